"""Audit of a model: parameters, memory and operations of its blocks, and missing weights and data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stav2a import registry
from stav2a.components.text_encoders import TOKENIZER_FILES, PretrainedTextEncoder
from stav2a.data.media import frame_count
from stav2a.models.conversion.converters import CONVERTERS
from stav2a.models.stav2a import STAV2A, Conditions, assemble, from_hub, own_tensors
from stav2a.recipe import describing
from stav2a.utils.checkpoints import CONFIG, CheckpointError, RequestedWeights, no_weights, skips_weights
from stav2a.utils.errors import StaV2AError
from stav2a.utils.shipped import doc

GRADIENT, ADAMW, EMA = 4, 8, 4  # bytes per trained parameter beside its weight, in float32
DENOISER = ("unet", "backbone")  # blocks that a sampler of another precision keeps a copy of
CAPTION_TOKENS = 77  # of a text encoder without `max_length`


@dataclass(frozen=True)
class StageAudit:
    """Parameters that a stage trains."""

    stage: str
    trained: Mapping[str, int]  # number by slot; the backbone's are without the U-Net's
    averaged: bool  # True where the stage keeps a running mean of the parameters

    @property
    def parameter_bytes(self) -> int:
        """Bytes per trained parameter, beside the weight itself."""
        return GRADIENT + ADAMW + (EMA if self.averaged else 0)


@dataclass(frozen=True)
class BlockAudit:
    """Cost of a block; the backbone is without the U-Net."""

    slot: str
    kind: str  # class of the block
    parameters: int | None  # None where the size is unknown
    trained_in: tuple[str, ...]  # names of stages
    weights: int  # bytes of weights and buffers in float32
    training: int  # bytes of `weights` and of the training state, at most over all stages
    inference: int  # bytes of `weights` and of the copy in the precision of the sampler
    flops: int | None  # operations of one denoising step; None where they could not be counted


@dataclass(frozen=True)
class Audit:
    """Cost of a model."""

    blocks: Sequence[BlockAudit]
    stages: Sequence[StageAudit]
    shapes: Mapping[str, tuple[int, ...]]  # of the inputs of one denoising step, by the paper's symbols
    precision: str  # of the sampler

    @property
    def flops(self) -> int | None:
        """Operations of one denoising step without guidance; None where they could not be counted."""
        counted = [block.flops for block in self.blocks]
        return None if None in counted else sum(filter(None, counted))

    @property
    def parameters_trained(self) -> int:
        """Number of parameters that the last stage trains."""
        return sum(self.stages[-1].trained.values()) if self.stages else 0

    def training_bytes(self, stage: StageAudit) -> int:
        """Bytes of all weights in float32 and of the training state of a stage."""
        weights = sum(block.weights for block in self.blocks)
        return weights + sum(stage.trained.values()) * stage.parameter_bytes


def audit(model: STAV2A, stages: Sequence[tuple[str, Any]], *, precision: str = "float32") -> Audit:
    """Count parameters, memory and operations; changes the parameters' `requires_grad`.

    Args:
        model: Assembled model, on any device; blocks with a true `size_unknown` are in no sum.
        stages: Name and instance of every stage that has steps, in order.
        precision: Name of the sampler's torch type; the weights are float32 throughout.
    """
    audited = list(_stages(model, stages))
    encoders, text = [model.eval().block(slot) for slot in model.encoders], model.text_encoder
    empty, tokens = partial(torch.empty, device="meta"), getattr(text, "max_length", CAPTION_TOKENS)
    with torch.no_grad():  # one clip with the longest caption
        e_v, *e_tv = (
            empty(1, frame_count(model.duration_s, each.frame_rate_hz), each.dim) for each in encoders
        )
        captions = empty(1, tokens, text.dim), empty(1, tokens, dtype=torch.bool)
        conditions = model.condition(e_v, *captions, *e_tv)
        z_t = empty(1, *model.latent_shape)
        flops = _flops(model, z_t, empty(1, dtype=torch.long), conditions)
    blocks = [_block(model, slot, audited, precision, flops.get(slot, 0)) for slot in model.slots]
    shapes = {"z_t": tuple(z_t.shape), "c": tuple(conditions.c.shape), "e_lv": tuple(conditions.e_lv.shape)}
    return Audit(blocks, audited, shapes, precision)


def parameter_counts(model: STAV2A) -> dict[str, int]:
    """Number of parameters of each block; the backbone's are without the U-Net's."""
    return {slot: sum(p.numel() for p in _parameters(model, slot)) for slot in model.slots}


def _stages(model: STAV2A, stages: Sequence[tuple[str, Any]]) -> Iterable[StageAudit]:
    """Freeze and unfreeze blocks, and attach adapters, as the stages do."""
    frozen = {
        slot for slot in model.slots if not any(p.requires_grad for p in model.block(slot).parameters())
    }
    for name, stage in stages:
        model.merge_adapters()
        model.requires_grad_(False)
        for slot in stage.trains:
            if slot not in frozen:
                model.block(slot).requires_grad_(True)
        if "backbone" in stage.trains:
            model.backbone.start_from_t2a()
        if hasattr(stage, "adapter"):
            model.attach(stage.adapter)
        trained = {
            slot: sum(p.numel() for p in _parameters(model, slot) if p.requires_grad) for slot in model.slots
        }
        yield StageAudit(name, trained, bool(getattr(stage, "ema_decay", 0)))
        frozen |= set(stage.trains) - {"unet", "backbone"}


def _block(
    model: STAV2A, slot: str, stages: Sequence[StageAudit], precision: str, flops: int | None
) -> BlockAudit:
    block, parameters = model.block(slot), _parameters(model, slot)
    tensors = [*parameters, *own_tensors(slot, block.named_buffers())]
    weights = _bytes(tensors, "float32")
    copied = slot in DENOISER and precision != "float32"
    return BlockAudit(
        slot,
        getattr(block, "stands_for", type(block).__name__),
        None if getattr(block, "size_unknown", False) else sum(p.numel() for p in parameters),
        tuple(each.stage for each in stages if each.trained[slot]),
        weights,
        weights + max((each.trained[slot] * each.parameter_bytes for each in stages), default=0),
        weights + (_bytes(tensors, precision) if copied else 0),
        flops,
    )


def _parameters(model: STAV2A, slot: str) -> list[Tensor]:
    return own_tensors(slot, model.block(slot).named_parameters())


def _bytes(tensors: Sequence[Tensor], precision: str) -> int:
    size = getattr(torch, precision).itemsize
    return sum(t.numel() * (size if t.is_floating_point() else t.element_size()) for t in tensors)


def _flops(model: STAV2A, z_t: Tensor, t: Tensor, conditions: Conditions) -> dict[str, int | None]:
    """Operations of one denoising step: those of the U-Net, and those that the backbone adds."""
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with FlopCounterMode(display=False) as whole:
            model.predict(z_t, t, conditions)
        with FlopCounterMode(display=False) as alone:
            inputs = {"encoder_attention_mask": conditions.mask, "return_dict": False}
            model.block("unet")(z_t, t, conditions.c, **inputs)
    except (NotImplementedError, RuntimeError):  # an operation without a meta version
        return {"unet": None, "backbone": None}
    unet = alone.get_total_flops()
    return {"unet": unet, "backbone": whole.get_total_flops() - unet}


ASSUMED_WIDTH = 1024  # of mt5-large and Flan-T5-large, the text encoders of the paper and of Tango


def skeleton(
    factories: Mapping[str, Callable[..., Any]], *, duration_s: float, device: torch.device | str = "meta"
) -> tuple[STAV2A, list[RequestedWeights]]:
    """The assembled model without its weights, and the weights that a run would load.

    Args:
        factories: A component factory for each slot, as a recipe gives them.
        duration_s: Duration of one clip, in seconds.
        device: Device of the model; on the meta device it has no numbers at all.

    Raises:
        RegistryError: The components do not go together.
        UsageError: The duration does not make a whole number of latent frames.
    """
    factory = factories["text_encoder"]
    entry = registry.entry_of(factory)
    if entry is not None and from_hub(entry):
        given = describing.describe(factory)["parameters"]
        factory = partial(
            TextStandIn,
            entry.factory,
            f"{entry.selector}.checkpoint",
            given["checkpoint"],
            given.get("max_length", CAPTION_TOKENS),
        )
    with no_weights() as requested, torch.device(device):
        return assemble({**factories, "text_encoder": factory}, duration_s=duration_s), requested


class TextStandIn(nn.Module):
    """Placeholder of a pretrained text encoder, of the size in its folder where there is one.

    Args:
        encoder: Class of the encoder, a component.
        parameter: The recipe's name of `checkpoint`.
        checkpoint: Folder or hub name.
        max_length: Maximum number of tokens per caption.
    """

    def __init__(self, encoder: Any, parameter: str, checkpoint: str, max_length: int) -> None:
        super().__init__()
        self.stands_for, self.max_length = getattr(encoder, "__name__", "text_encoder"), max_length
        self.dim, self.size_unknown = ASSUMED_WIDTH, True
        self.register_buffer("place", torch.empty(0), persistent=False)
        skips_weights(parameter, checkpoint, partial(self._build, encoder, parameter, checkpoint))

    def forward(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        tokens: Any = self.place
        shape = len(captions), self.max_length
        return tokens.new_zeros(*shape, self.dim), tokens.new_ones(shape, dtype=torch.bool)

    def _build(self, encoder: Any, parameter: str, checkpoint: str) -> None:
        from huggingface_hub import try_to_load_from_cache
        from transformers import AutoConfig, AutoModelForTextEncoding

        where = f"{parameter} = {checkpoint!r}"
        if isinstance(encoder, type) and issubclass(encoder, PretrainedTextEncoder):
            checkpoint, model = encoder.located(checkpoint), encoder.model_class()
            kind, build = model.config_class, model
        else:
            kind, build = AutoConfig, AutoModelForTextEncoding.from_config
        folder = Path(checkpoint)
        try:
            # transformers would ask the network for a name
            config_file = folder / CONFIG if folder.is_dir() else try_to_load_from_cache(checkpoint, CONFIG)
            if not isinstance(config_file, str | Path):
                raise FileNotFoundError(checkpoint)
            config = kind.from_pretrained(Path(config_file).parent, local_files_only=True)
            self.encoder: Any = build(config).requires_grad_(False)
        except (OSError, ValueError):
            raise CheckpointError(
                f"{where}: size unknown without its folder, which is neither here nor in the hub's cache "
                f"(tokens of width {ASSUMED_WIDTH} are assumed, as mt5-large and Flan-T5-large have).",
                advice="Give the folder of a text encoder, as transformers saves it.",
            ) from None
        self.dim, self.size_unknown = config.hidden_size, False
        if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
            advice = "Put the tokenizer's files into that folder."
            raise CheckpointError(f"{where}: no tokenizer there.", advice=advice)


DATA = ("file", "folder", "videos")  # parameters of datasets that are paths
CLIPS = (
    "get the clips (the paper's are VGGSound's), and prepare them with this recipe, or once for all rows of "
    "Table III with recipes/cn_unfiltered.gin in its place: " + doc("data.md")
)
ON_THE_HUB = {  # as transformers saves them
    "text_encoder.mt5.checkpoint": "google/mt5-large",
    "text_encoder.t5.checkpoint": "google/flan-t5-large",
    "text_encoder.clip.checkpoint": "openai/clip-vit-large-patch14",
    "text_encoder.clap.checkpoint": "laion/clap-htsat-unfused",
    "feature_encoder.clip.checkpoint": "openai/clip-vit-large-patch14",
    "feature_encoder.videomae.checkpoint": "MCG-NJU/videomae-base",
    "feature_encoder.vjepa2.checkpoint": "facebook/vjepa2-vitl-fpc64-256",
}


def missing_weights(
    requested: Iterable[RequestedWeights], recipe: Mapping[str, Any] | None = None
) -> list[StaV2AError]:
    """Weights that could not be loaded, each with the command that makes them where there is one.

    Args:
        requested: Weights as `skeleton` lists them.
        recipe: Described parameters of the recipe's root, which a published U-Net must fit; None for any.
    """
    found: list[StaV2AError] = []
    for each in requested:
        if each.fault:
            command = None if Path(each.folder).exists() else _command(each.parameter, each.folder, recipe)
            found.append(StaV2AError(each.fault.message, advice=command or each.fault.advice))
    return found


def missing_data(described: Mapping[str, Any]) -> list[StaV2AError]:
    """Files and folders that a dataset's description names and that do not exist."""
    prefix, given = described["component"], described["parameters"]
    return [
        StaV2AError(f"{prefix}.{name} = {given[name]!r}: there is no such file or folder", advice=CLIPS)
        for name in given
        if name in DATA and given[name] and not Path(given[name]).exists()
    ]


def _command(parameter: str, folder: str, recipe: Mapping[str, Any] | None) -> str | None:
    """Command that fills a missing folder of weights; of a U-Net that no publication has, the ways round."""
    output = Path(folder)
    sources = [
        (kind, converter.file, part)
        for kind, converter in CONVERTERS.items()
        for part, component in converter.components.items()
        if f"{component}.checkpoint" == parameter
        and (part not in DENOISER or not recipe or not converter.denoiser or converter.denoiser.fits(recipe))
    ]
    if recipe and not sources and parameter == f"{recipe['unet']['component']}.checkpoint":
        return _without_published(parameter, recipe)
    # A kind that the folder is named after, else the last: the release, which has all, comes first.
    sources.sort(key=lambda source: source[0] == output.parent.name)
    kind, file, part = sources[-1] if sources else (None, "", "")
    inside = part != "" and output.name == part
    if parameter in ON_THE_HUB and not inside:
        name = ON_THE_HUB[parameter]
        return f"hf download {name}" + ("" if folder == name else f" --local-dir {folder}")
    if kind is None:
        return None
    command = f"stav2a convert {kind} --checkpoint {file} --output"
    if inside or not part:
        return f"{command} {output.parent if inside else output}"
    return f"{command} {output}, then bind {parameter} = '{output / part}'"


def _without_published(parameter: str, recipe: Mapping[str, Any]) -> str:
    """Ways to a U-Net where no published one fits the recipe."""
    objective, text_encoder = (recipe[slot]["component"] for slot in ("objective", "text_encoder"))
    component = recipe["unet"]["component"]
    wanted = f"predicts {objective.removeprefix('objective.')} from the tokens of {text_encoder}"
    others = [
        f"lay {each.scale} over the recipe to start from {kind}'s, which predicts {each.predicts} from the "
        f"tokens of {each.reads}"
        for kind, converter in CONVERTERS.items()
        if (each := converter.denoiser) and each.scale and component in converter.components.values()
    ]
    own = f"put your own there, or bind {parameter} = None and give stage.t2a_pretrain steps"
    if not others:
        return f"no published weights are known for {component}: {own}"
    return f"no published U-Net of these sizes {wanted}: {', or '.join([own, *others])}"
