"""Parameters, memory and operations of each block. Meta tensors will do: only shapes count."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stav2a import registry
from stav2a.data.media import frame_count
from stav2a.models.stav2a import BLOCKS, STAV2A, Conditions, assemble
from stav2a.recipe import describing
from stav2a.utils.checkpoints import CheckpointError, RequestedWeights, left_out, no_weights

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}  # a number, by precision
GRADIENT, ADAMW, EMA = 4, 8, 4  # bytes a trained parameter, beside its weight: kept in float32 throughout
DENOISER = ("unet", "backbone")  # what a sampler of another precision keeps a copy of
CAPTION_TOKENS = 77  # of a text encoder that has no `max_length`


@dataclass(frozen=True)
class Training:
    """What one stage trains.

    Args:
        stage: Its name.
        trained: Parameters that it trains, by slot; the backbone's are without the U-Net's.
        averaged: Whether it keeps a running mean of them.
    """

    stage: str
    trained: Mapping[str, int]
    averaged: bool

    def bytes_a_parameter(self) -> int:
        """Beside the weight itself."""
        return GRADIENT + ADAMW + (EMA if self.averaged else 0)


@dataclass(frozen=True)
class Block:
    """One row of the table.

    Args:
        slot: Of `BLOCKS`; the backbone is without the U-Net.
        kind: Its class.
        parameters: How many; None where its size is not known.
        trained_in: Stages that train it; none where it is frozen.
        weights: Bytes of its weights and buffers in float32.
        training: Bytes at most over all stages: the same, and what training keeps of them.
        inference: Bytes of its weights, and of the copy that a sampler of another precision keeps of them.
        flops: Operations of one denoising step; None where they could not be counted.
    """

    slot: str
    kind: str
    parameters: int | None
    trained_in: tuple[str, ...]
    weights: int
    training: int
    inference: int
    flops: int | None


@dataclass(frozen=True)
class Audit:
    """All blocks, and what holds for the whole model.

    Args:
        blocks: One a slot.
        trainings: One a stage.
        shapes: Of what one denoising step is given, by the paper's symbols.
        precision: In which the sampler computes.
    """

    blocks: Sequence[Block]
    trainings: Sequence[Training]
    shapes: Mapping[str, tuple[int, ...]]
    precision: str

    @property
    def flops(self) -> int | None:
        """Operations of one denoising step without guidance; None where they could not be counted."""
        counted = [block.flops for block in self.blocks]
        return None if None in counted else sum(filter(None, counted))

    def training_bytes(self, training: Training) -> int:
        """Memory of one stage: every block's weights in float32, and what training adds."""
        weights = sum(block.weights for block in self.blocks)
        return weights + sum(training.trained.values()) * training.bytes_a_parameter()


def audit(model: STAV2A, stages: Sequence[tuple[str, Any]], *, precision: str = "float32") -> Audit:
    """Count everything. Which parameters require a gradient is changed on the way.

    Args:
        model: Assembled, on any device; a block with a true `size_unknown` is left out of all sums.
        stages: Name and instance of every stage that has steps, in order.
        precision: In which the sampler computes, one of `BYTES`; the weights are float32 throughout.
    """
    trainings = list(_trainings(model, stages))
    given = _step_inputs(model.eval())
    flops = _flops(model, given)
    blocks = [_block(model, slot, trainings, precision, flops) for slot in BLOCKS]
    z_t, _, conditions = given
    shapes = {"z_t": z_t, "c": conditions.c, "e_lv": conditions.e_lv}
    return Audit(blocks, trainings, {name: tuple(x.shape) for name, x in shapes.items()}, precision)


def _trainings(model: STAV2A, stages: Sequence[tuple[str, Any]]) -> Iterable[Training]:
    """Freeze and thaw blocks as the stages will."""
    frozen = {slot for slot in BLOCKS if not any(p.requires_grad for p in model.block(slot).parameters())}
    for name, stage in stages:
        model.requires_grad_(False)
        for slot in stage.trains:
            if slot not in frozen:
                model.block(slot).requires_grad_(True)
        if "backbone" in stage.trains:
            model.backbone.start_from_t2a()
        trained = {slot: sum(p.numel() for p in _own(model, slot) if p.requires_grad) for slot in BLOCKS}
        yield Training(name, trained, bool(getattr(stage, "ema_decay", 0)))
        frozen |= set(stage.trains) - {"unet", "backbone"}


def _block(
    model: STAV2A, slot: str, trainings: Sequence[Training], precision: str, flops: Mapping[str, int | None]
) -> Block:
    block = model.block(slot)
    numbers = [*_own(model, slot), *_own(model, slot, buffers=True)]
    extra = [each.trained[slot] * each.bytes_a_parameter() for each in trainings]
    weights = _bytes(numbers, "float32")
    return Block(
        slot,
        getattr(block, "stands_for", type(block).__name__),
        None if getattr(block, "size_unknown", False) else sum(p.numel() for p in _own(model, slot)),
        tuple(each.stage for each in trainings if each.trained[slot]),
        weights,
        weights + max(extra, default=0),
        weights + (_bytes(numbers, precision) if slot in DENOISER and precision != "float32" else 0),
        flops.get(slot, 0),
    )


def _own(model: STAV2A, slot: str, *, buffers: bool = False) -> list[Tensor]:
    """A block's tensors; the U-Net's are not the backbone's."""

    def of(module: nn.Module) -> list[Tensor]:
        return list(module.buffers() if buffers else module.parameters())

    inner = {id(t) for t in of(model.block("unet"))} if slot == "backbone" else set()
    return [t for t in of(model.block(slot)) if id(t) not in inner]


def _bytes(tensors: Sequence[Tensor], precision: str) -> int:
    return sum(t.numel() * (BYTES[precision] if t.is_floating_point() else t.element_size()) for t in tensors)


@torch.no_grad()
def _step_inputs(model: STAV2A) -> tuple[Tensor, Tensor, Conditions]:
    """One clip's, with the longest caption: z_t, t and the conditions, without numbers."""
    encoder, text = model.feature_encoder, model.text_encoder
    tokens = getattr(text, "max_length", CAPTION_TOKENS)
    e_v = torch.empty(1, frame_count(model.duration_s, encoder.frame_rate_hz), encoder.dim, device="meta")
    e_text = torch.empty(1, tokens, text.dim, device="meta")
    mask = torch.empty(1, tokens, dtype=torch.bool, device="meta")
    z_t = torch.empty(1, *model.latent_shape, device="meta")
    return z_t, torch.empty(1, dtype=torch.long, device="meta"), model.condition(e_v, e_text, mask)


@torch.no_grad()
def _flops(model: STAV2A, given: tuple[Tensor, Tensor, Conditions]) -> dict[str, int | None]:
    """Operations of one denoising step: the U-Net's, and what the backbone adds."""
    from torch.utils.flop_counter import FlopCounterMode

    z_t, t, conditions = given
    try:
        with FlopCounterMode(display=False) as whole:
            model.predict(z_t, t, conditions)
        with FlopCounterMode(display=False) as alone:
            model.block("unet")(z_t, t, conditions.c, encoder_attention_mask=conditions.mask)
    except (NotImplementedError, RuntimeError):  # an operation that has no meta version
        return {"unet": None, "backbone": None}
    unet = alone.get_total_flops()
    return {"unet": unet, "backbone": whole.get_total_flops() - unet}


ASSUMED_WIDTH = 1024  # of mt5-large and Flan-T5-large, the paper's text encoder and Tango's
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "spiece.model")


def skeleton(
    factories: Mapping[str, Callable[..., Any]], *, duration_s: float
) -> tuple[STAV2A, list[RequestedWeights]]:
    """The assembled model on the meta device, and the weights that a run would load.

    Args:
        factories: A component factory for each slot of `BLOCKS`, as a recipe gives them.
        duration_s: Seconds of one clip.

    Raises:
        RegistryError: The components do not go together.
        UsageError: The duration does not make a whole number of latent frames.
    """
    made = {**factories, "text_encoder": _text(factories["text_encoder"])}
    with no_weights() as asked, torch.device("meta"):
        return assemble(made, duration_s=duration_s), asked


class TextStandIn(nn.Module):
    """In place of a pretrained text encoder: as large as its folder says, where there is one.

    Args:
        stands_for: The class of the encoder.
        parameter: The recipe's name of `checkpoint`.
        checkpoint: Folder or hub name.
        max_length: Tokens a caption at most.
    """

    def __init__(self, stands_for: str, parameter: str, checkpoint: str, max_length: int) -> None:
        super().__init__()
        self.stands_for, self.max_length = stands_for, max_length
        self.dim, self.size_unknown = ASSUMED_WIDTH, True
        left_out(parameter, checkpoint, partial(self._fill, f"{parameter} = {checkpoint!r}", checkpoint))

    def _fill(self, told: str, checkpoint: str) -> None:
        from transformers import AutoConfig, AutoModelForTextEncoding

        try:
            config = AutoConfig.from_pretrained(_folder(checkpoint), local_files_only=True)
            self.encoder: Any = AutoModelForTextEncoding.from_config(config).requires_grad_(False)
        except (OSError, ValueError):
            raise CheckpointError(
                f"{told}: size unknown without its folder, which is neither here nor in the hub's cache "
                f"(tokens of width {ASSUMED_WIDTH} are assumed, as mt5-large and Flan-T5-large have). "
                "Give the folder of a text encoder, as transformers saves it."
            ) from None
        self.dim, self.size_unknown = config.hidden_size, False
        folder = Path(checkpoint)
        if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER):
            raise CheckpointError(f"{told}: no tokenizer there. Put the tokenizer's files into that folder.")


def _folder(checkpoint: str) -> Path:
    """The folder itself, or where the hub's cache has it; transformers would ask the network for the latter.

    Raises:
        FileNotFoundError: It is neither.
        ValueError: It is no folder, and can't be a name.
    """
    from huggingface_hub import try_to_load_from_cache

    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    found = try_to_load_from_cache(checkpoint, "config.json")
    if not isinstance(found, str):
        raise FileNotFoundError(checkpoint)
    return Path(found).parent


def _text(factory: Callable[..., Any]) -> Callable[..., Any]:
    """The factory, or what to build instead of an encoder that can't be made without its folder."""
    entry = registry.entry_of(factory)
    checkpoint = entry.settable.get("checkpoint") if entry else None
    if entry is None or checkpoint is None or checkpoint.default is None:
        return factory
    given = describing.describe(factory)["parameters"]
    return partial(
        TextStandIn,
        getattr(entry.factory, "__name__", entry.name),
        f"{entry.selector}.checkpoint",
        given["checkpoint"],
        given.get("max_length", CAPTION_TOKENS),
    )


DATA = ("file", "folder", "videos")  # a dataset's parameters that name what has to be there
CLIPS = "get the clips (the paper's are VGGSound's), and prepare them with this recipe: docs/data.md"


@dataclass(frozen=True)
class PublicCheckpoint:
    """A public checkpoint.

    Args:
        kind: What `stav2a convert` calls it.
        file: As its authors call it.
        part: The folder of the output that is the component's; empty where the output itself is.
    """

    kind: str
    file: str
    part: str = ""


RELEASED, TANGO, AUDIOLDM = "pytorch_model_2.bin", "pytorch_model_main.bin", "audioldm-s-full.ckpt"
SOURCES = {  # where there are several, the output folder's name tells which is meant, or else the first is
    "feature_encoder.cavp.checkpoint": (PublicCheckpoint("cavp", "cavp_epoch66.ckpt"),),
    "autoencoder.kl.checkpoint": (PublicCheckpoint("audioldm", AUDIOLDM, "vae"),),
    "vocoder.hifigan.checkpoint": (PublicCheckpoint("audioldm", AUDIOLDM, "vocoder"),),
    "unet.stable_diffusion.checkpoint": (
        PublicCheckpoint("tango", TANGO, "unet"),
        PublicCheckpoint("released", RELEASED, "unet"),
    ),
    "local_head.onset_released.checkpoint": (PublicCheckpoint("released", RELEASED, "local_head"),),
    "global_pooler.factor_graph.checkpoint": (PublicCheckpoint("released", RELEASED, "global_pooler"),),
    "backbone.unet_controlnet_released.checkpoint": (PublicCheckpoint("released", RELEASED, "backbone"),),
    "text_encoder.mt5.checkpoint": (PublicCheckpoint("released", RELEASED, "text_encoder"),),
    "text_encoder.t5.checkpoint": (PublicCheckpoint("tango", TANGO, "text_encoder"),),
}
ON_THE_HUB = {  # as transformers saves them
    "text_encoder.mt5.checkpoint": "google/mt5-large",
    "text_encoder.t5.checkpoint": "google/flan-t5-large",
    "feature_encoder.clip.checkpoint": "openai/clip-vit-large-patch14",
    "feature_encoder.videomae.checkpoint": "MCG-NJU/videomae-base",
    "feature_encoder.vjepa2.checkpoint": "facebook/vjepa2-vitl-fpc64-256",
}


@dataclass(frozen=True)
class Missing:
    """Something that a run needs and this machine lacks.

    Args:
        told: What it is.
        advice: A command that makes it, or what else to do.
    """

    told: str
    advice: str


def missing_weights(asked: Iterable[RequestedWeights]) -> list[Missing]:
    """The weights that could not be loaded, each with the command that makes them where we know one."""
    found = []
    for each in asked:
        if each.fault:
            told, _, advice = each.fault.partition(". ")
            known = None if Path(each.folder).exists() else _command(each.parameter, each.folder)
            found.append(Missing(told, known or advice.removesuffix(".")))
    return found


def missing_data(described: Mapping[str, Any]) -> list[Missing]:
    """The files and folders that a dataset's description names, and that are not there."""
    named = {name: value for name, value in described["parameters"].items() if name in DATA and value}
    return [
        Missing(f"{described['component']}.{name} = {value!r}: there is no such file or folder", CLIPS)
        for name, value in named.items()
        if not Path(value).exists()
    ]


def missing_lines(missing: Sequence[Missing]) -> list[str]:
    """What is missing, each advice once."""
    if not missing:
        return ["nothing that the recipe names is missing on this machine"]
    by_advice: dict[str, list[str]] = {}
    for each in missing:
        by_advice.setdefault(each.advice, []).append(each.told)
    lines = ["missing on this machine, and what to do:"]
    for advice, told in by_advice.items():
        lines += [*(f"  {line}" for line in told), f"    -> {advice}"]
    return lines


def _command(parameter: str, folder: str) -> str | None:
    """What puts the weights into a folder that is not there yet."""
    known, output = SOURCES.get(parameter, ()), Path(folder)
    meant = [each for each in known if each.kind == output.parent.name]
    source = next(iter([*meant, *known]), None)
    inside = source is not None and source.part != "" and output.name == source.part
    if parameter in ON_THE_HUB and not inside:
        name = ON_THE_HUB[parameter]
        return f"hf download {name}" + ("" if folder == name else f" --local-dir {folder}")
    if source is None:
        return None
    command = f"stav2a convert {source.kind} --checkpoint {source.file} --output"
    if inside or not source.part:
        return f"{command} {output.parent if inside else output}"
    return f"{command} {output}, then bind {parameter} = '{output / source.part}'"


HEAD = ("block", "class", "parameters", "trained in", "training", "inference", "FLOPs a step")
NUMBERS = {2, 4, 5, 6}  # columns that end, not begin, in line


def table(found: Audit) -> list[str]:
    """The audit, a block a line, and how to read it."""
    rows = [HEAD, *(_row(block) for block in found.blocks), _totals(found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = ["  ".join(_placed(cell, i, widths[i]) for i, cell in enumerate(row)).rstrip() for row in rows]
    return [*lines, "", *_stages(found), *_step(found), *_reading(found)]


def _placed(cell: str, column: int, width: int) -> str:
    return cell.rjust(width) if column in NUMBERS else cell.ljust(width)


def _row(block: Block) -> tuple[str, ...]:
    if block.parameters is None:
        return (block.slot, block.kind, "unknown", "frozen", "unknown", "unknown", "-")
    trained = ", ".join(block.trained_in) or ("frozen" if block.parameters else "-")
    flops = "unknown" if block.flops is None else _amount(block.flops) if block.flops else "-"
    memory = _amount(block.training, "B"), _amount(block.inference, "B")
    return (block.slot, block.kind, _millions(block.parameters), trained, *memory, flops)


def _totals(found: Audit) -> tuple[str, ...]:
    unknown = [block.slot for block in found.blocks if block.parameters is None]
    parameters = sum(block.parameters or 0 for block in found.blocks)
    training = max((found.training_bytes(each) for each in found.trainings), default=None)
    return (
        "all",
        f"without {', '.join(unknown)}" if unknown else "",
        _millions(parameters),
        "",
        "-" if training is None else _amount(training, "B"),
        _amount(sum(block.inference for block in found.blocks), "B"),
        "unknown" if found.flops is None else _amount(found.flops),
    )


def _stages(found: Audit) -> list[str]:
    if not found.trainings:
        return ["no stage has steps: nothing is trained"]
    return [
        f"stage.{each.stage} trains {_millions(sum(each.trained.values()))}, in "
        f"{_amount(found.training_bytes(each), 'B')}"
        for each in found.trainings
    ]


def _step(found: Audit) -> list[str]:
    shapes = ", ".join(f"{name} {shape}" for name, shape in found.shapes.items())
    if found.flops is None:
        return [f"one denoising step of one clip: {shapes}; its operations could not be counted"]
    return [
        f"one denoising step of one clip: {shapes}, the longest caption: {_amount(found.flops)}FLOP; "
        f"{_amount(2 * found.flops)}FLOP with guidance, which doubles it"
    ]


def _reading(found: Audit) -> list[str]:
    return [
        f"training: weights, gradients, AdamW's two moments and EMA in float32, the most of any stage; "
        f"inference: weights in float32{_copy(found.precision)}",
        "not counted: activations, a stage's own helpers, the copies that validation keeps; normalisations "
        "and activations in FLOPs, where a product and its sum are two",
    ]


def _copy(precision: str) -> str:
    return "" if precision == "float32" else f", and the sampler's copy of unet and backbone in {precision}"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else _amount(count).strip()


def _amount(number: float, unit: str = "") -> str:
    """A number to three digits or more, such as 798.5 G."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {prefix}{unit}"
    return f"{number:.0f} {unit}".rstrip() if unit else f"{number:.0f}"
