"""The assembled model: its blocks, conditions and prediction, and its folder of weights."""

import functools
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stav2a import __version__, registry
from stav2a.data.front_ends import AudioLDMMel
from stav2a.models.adapters import base_name, is_adapter, merge
from stav2a.recipe import describing, parsing
from stav2a.registry import Entry, conforming, entry_of, expect, fails, selector_of
from stav2a.slots import ALL_FOR_CODES, ROLES
from stav2a.utils.checkpoints import (
    CONFIG,
    OURS,
    WEIGHTS,
    CheckpointError,
    fingerprint,
    holder,
    load_some,
    load_weights,
    save_weights,
    state,
    tensors_hash,
)
from stav2a.utils.errors import StaV2AError, UsageError, check_positive
from stav2a.utils.files import give_rights, new_folder, write_json
from stav2a.utils.shipped import doc

# Blocks of every model. It may have those of `ROLES` as well.
BLOCKS = (
    "feature_encoder",
    "text_encoder",
    "local_head",
    "global_pooler",
    "condition_fuser",
    "unet",
    "backbone",
    "autoencoder",
    "vocoder",
)
PARTS = (*BLOCKS, "front_end")  # it has no weights; where none is named it is AudioLDM's


@dataclass(frozen=True)
class VideoInput:
    """Names of what an encoder of the video takes and gives, beside those of another encoder.

    Args:
        prefix: Prefix of all names but the symbol.
        symbol: The features, in formulas and prepared data.
    """

    prefix: str
    symbol: str

    @property
    def frames(self) -> str:
        """Frames of the clips."""
        return f"{self.prefix}frames"

    @property
    def features(self) -> str:
        """Features of the clips, in the store."""
        return f"{self.prefix}features"


VIDEO = {
    "feature_encoder": VideoInput("", "e_v"),
    "temporal_encoder": VideoInput("temporal_", "e_tv"),
}


@dataclass(frozen=True)
class Conditions:
    """Conditions of the denoiser; constant over the steps of one generation.

    Shapes:
        c (B, K0+K, D_c), mask (B, K0+K), e_lv (B, T, D_l)
    """

    c: Tensor
    mask: Tensor
    e_lv: Tensor

    def __add__(self, other: "Conditions") -> "Conditions":
        """Both in one batch, those of `self` first."""
        pairs = ((self.c, other.c), (self.mask, other.mask), (self.e_lv, other.e_lv))
        return Conditions(*(torch.cat(pair) for pair in pairs))


class STAV2A(nn.Module):
    """Model from video and text to audio (Fig. 1): one block per slot.

    Args:
        blocks: A module for each of `PARTS` but `unet`, which is part of the backbone. A `temporal_encoder`
            is optional: its features feed the local head, in place of the feature encoder's.
        latent_shape: Shape of the latent of one clip, (C, T, F).
        duration_s: Duration of one clip, in seconds.

    Attributes:
        described: Component and parameters of each block for `save_pretrained`, where `assemble` knows them.
        adapters: Description of the adapter that is attached to a block, by slot.
    """

    def __init__(
        self, blocks: Mapping[str, Any], *, latent_shape: tuple[int, int, int], duration_s: float
    ) -> None:
        super().__init__()
        self.feature_encoder = blocks["feature_encoder"]
        self.temporal_encoder = blocks.get("temporal_encoder")
        self.text_encoder = blocks["text_encoder"]
        self.local_head = blocks["local_head"]
        self.global_pooler = blocks["global_pooler"]
        self.condition_fuser = blocks["condition_fuser"]
        self.backbone = blocks["backbone"]
        self.autoencoder = blocks["autoencoder"]
        self.vocoder = blocks["vocoder"]
        self.front_end = blocks["front_end"]
        self.latent_shape, self.duration_s = latent_shape, duration_s
        self.described: dict[str, Any] = {}
        self.adapters: dict[str, Any] = {}

    @property
    def latent_rate_hz(self) -> float:
        """Latent frames per second."""
        return self.latent_shape[1] / self.duration_s

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of all blocks: `BLOCKS`, and the temporal encoder where there is one."""
        return (*BLOCKS, *(role for role in ROLES if getattr(self, role) is not None))

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of the video's encoders; the last one's features feed the local head."""
        return tuple(slot for slot in VIDEO if slot in self.slots)

    def block(self, slot: str) -> Any:
        """Module that fills one of `slots`, or the front end."""
        return self.get_submodule("backbone.unet" if slot == "unet" else slot)

    def condition(self, e_v: Tensor, e_text: Tensor, mask: Tensor, e_tv: Tensor | None = None) -> Conditions:
        """Conditions of the denoiser.

        Args:
            e_v: Features of the feature encoder (B, L, D_v).
            e_text: Tokens (B, K0, D_c).
            mask: Mask of the tokens (B, K0).
            e_tv: Features of the temporal encoder (B, L_t, D_t), of a model that has one.

        Raises:
            UsageError: There is a temporal encoder and no e_tv, or the reverse.
        """
        if (e_tv is None) != (self.temporal_encoder is None):
            has, given = ("no", "were") if e_tv is not None else ("a", "were not")
            raise UsageError(
                f"The model has {has} temporal encoder, but its features e_tv {given} given.",
                advice="Give the features of each of `model.encoders`.",
            )
        c, mask = self.condition_fuser(e_text, mask, self.global_pooler(e_v))
        return Conditions(c, mask, self.local_head(e_v if e_tv is None else e_tv))

    def attach(self, adapter: Callable[..., Any]) -> None:
        """Attach an adapter, given by its factory, to each of its blocks, whose own weights it freezes."""
        made = adapter()
        for slot in made.blocks:
            made.attach(self.block(slot))
            self.adapters[slot] = describe_factory(adapter)

    def merge_adapters(self, slots: Iterable[str] | None = None) -> None:
        """Add the updates of adapters to the weights of their blocks; by default of all."""
        for slot in set(self.adapters) & set(self.adapters if slots is None else slots):
            merge(self.block(slot))
            del self.adapters[slot]

    def predict(self, z_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """z_t (B, C, T, F), t (B,) -> prediction (B, C, T, F): eps, v or a flow, as trained."""
        return self.backbone(z_t, t, conditions.c, conditions.mask, conditions.e_lv)

    def forward(
        self, z_t: Tensor, t: Tensor, e_v: Tensor, e_text: Tensor, mask: Tensor, e_tv: Tensor | None = None
    ) -> Tensor:
        return self.predict(z_t, t, self.condition(e_v, e_text, mask, e_tv))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model to a new folder with one subfolder per block, whole or not at all.

        Of a block with an adapter the adapter alone is written, and where the weights of its base are.

        Raises:
            PretrainedError: A block is no registered component with plain parameters.
            UsageError: The folder exists.
        """
        with new_folder(Path(folder)) as new:
            self.write(new)

    def write(self, folder: Path) -> None:
        """Write what `save_pretrained` writes into an empty folder.

        Raises:
            PretrainedError: A block is no registered component with plain parameters.
        """
        for slot in (*self.slots, "front_end"):
            if self.described.get(slot) is None:
                raise PretrainedError(
                    f"The {slot} was made by something that is no registered component with plain "
                    "parameters, so another process could not make it again.",
                    advice=f"Register it; see {doc('components.md')}.",
                )
        for slot in self.slots:
            if slot in self.adapters:
                _save_adapter(
                    self.block(slot), slot, self.described[slot], self.adapters[slot], folder / slot
                )
            else:
                _save_block(self.block(slot), slot, self.described[slot], folder / slot)
        write_model(folder, duration_s=self.duration_s, front_end=self.described["front_end"])

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        bases: Mapping[str, str | Path] | None = None,
        **others: Callable[..., Any],
    ) -> "STAV2A":
        """Load a model that `save_pretrained` wrote, bit for bit, in evaluation mode.

        Args:
            folder: The folder, or one of `stav2a convert released`.
            bases: Folders of the weights that adapters were trained on, by slot; by default those of then.
            others: Factories by slot, in place of the folder's blocks, or for those that it lacks.

        Raises:
            PretrainedError: There is no model, or one that this version can't make.
            CheckpointError: Weights do not fit their component.
            RegistryError: A component is not installed here.
        """
        folder = Path(folder)
        saved = _config(folder)
        if saved.get("format") != FORMAT:
            raise PretrainedError(
                f"{folder} was written in format {saved.get('format')}, this version reads {FORMAT}.",
                advice="Save the model again with this version.",
            )
        known = (*PARTS, *ROLES)
        if unknown := sorted(set(others) - set(known)):
            raise PretrainedError(
                f"No block named {unknown[0]!r}.", advice=registry.did_you_mean(unknown[0], known)
            )
        if missing := [slot for slot in BLOCKS if slot not in others and not (folder / slot).is_dir()]:
            arguments = ", ".join(f"{slot}=FACTORY" for slot in missing)
            raise PretrainedError(
                f"{folder} has no {' and no '.join(missing)}.",
                advice=f"Give what is to be there: from_pretrained(DIR, {arguments}).",
            )
        registry.load()
        own = (*BLOCKS, *(role for role in ROLES if (folder / role).is_dir()))
        blocks = {slot: _config(folder / slot) for slot in own if slot not in others}
        for slot, base in (bases or {}).items():
            if "adapter" not in blocks.get(slot, {}):
                raise PretrainedError(f"{folder / slot} holds no adapter, so it takes no base.")
            blocks[slot]["parameters"]["checkpoint"] = str(base)
        factories = {slot: _factory(slot, described, folder / slot) for slot, described in blocks.items()}
        if "front_end" in saved:  # older folders name none
            factories["front_end"] = _factory("front_end", saved["front_end"], folder)
        model = assemble({**factories, **others}, duration_s=saved["duration_s"])
        for slot, described in blocks.items():
            block, inside = model.block(slot), INSIDE.get(slot, "")
            if "adapter" in described:
                _load_adapter(model, slot, described, folder / slot)
                continue
            if not from_hub(_entry(described)):
                part = block if inside else holder(block)
                load_weights(part, str(folder / slot), parameter=slot, without=inside)
            if not described.get("trainable", True):
                for parameter in own_tensors(slot, block.named_parameters()):
                    parameter.requires_grad_(False)
        return model.eval()


def assemble(factories: Mapping[str, Callable[..., Any]], *, duration_s: float) -> STAV2A:
    """Call the factories in data-flow order, with the widths of the neighbouring blocks.

    Args:
        factories: A component factory for each slot of `PARTS`; the front end is AudioLDM's by default, and
            one for `temporal_encoder` is optional.
        duration_s: Duration of one clip, whose mel frames are a multiple of the autoencoder's downsampling.

    Raises:
        RegistryError: A factory fills another slot, or its block can't be built or lacks an attribute.
        UsageError: The duration does not make a whole number of latent frames, autoencoder or vocoder are
            made for another front end, or a feature encoder has a frame rate that is not above 0.
    """
    factories = {"front_end": AudioLDMMel, **factories}
    slots = (*PARTS, *(role for role in ROLES if role in factories))
    for slot in slots:
        expect(slot, factories[slot])

    def make(slot: str, **wired: Any) -> Any:
        with torch.random.fork_rng(devices=[]):  # the weights of a block do not depend on the other blocks
            try:
                block = factories[slot](**wired)
            except StaV2AError:
                raise
            except (TypeError, ValueError, AttributeError, LookupError, ZeroDivisionError) as error:
                raise fails(slot, factories[slot], error) from error
        return conforming(slot, block, factories[slot])

    encoders = [slot for slot in VIDEO if slot in slots]
    blocks = {slot: make(slot) for slot in ("front_end", *encoders, "text_encoder", "autoencoder")}
    for slot in encoders:
        check_positive(f"{selector_of(slot, factories[slot])}.frame_rate_hz", blocks[slot].frame_rate_hz)
    front_end = blocks["front_end"]
    blocks["vocoder"] = make("vocoder", **_taken(factories["vocoder"], front_end=front_end))
    for slot in ("autoencoder", "vocoder"):
        check_fit(slot, blocks[slot], factories[slot], front_end)
    shape = latent_shape(blocks["autoencoder"], front_end, duration_s)
    in_dim, cond_dim = blocks["feature_encoder"].dim, blocks["text_encoder"].dim
    blocks["local_head"] = make("local_head", in_dim=blocks[encoders[-1]].dim, length=shape[1])
    blocks["global_pooler"] = make("global_pooler", in_dim=in_dim, cond_dim=cond_dim)
    blocks["condition_fuser"] = make("condition_fuser", cond_dim=cond_dim)
    offered = _taken(factories["unet"], latent_bins=shape[2])
    unet = make("unet", latent_channels=shape[0], cond_dim=cond_dim, **offered)
    offered = {}
    if _taken(factories["backbone"], video_tokens=None):
        offered = {"video_tokens": _video_tokens(blocks, duration_s)}
    blocks["backbone"] = make("backbone", unet=unet, local_dim=blocks["local_head"].dim, **offered)
    model = STAV2A(blocks, latent_shape=shape, duration_s=duration_s)
    model.described = {slot: describe_factory(factories[slot]) for slot in slots}
    return model


def _taken(factory: Callable[..., Any], **offered: Any) -> dict[str, Any]:
    """Those of the offered arguments that a factory takes."""
    entry = entry_of(factory)
    known = entry.parameters if entry else inspect.signature(factory).parameters
    return {name: value for name, value in offered.items() if name in known}


@torch.no_grad()
def _video_tokens(blocks: Mapping[str, Any], duration_s: float) -> int:
    """Number of the video's tokens where the fuser puts them first, else 0."""
    from stav2a.data.media import frame_count  # decodes videos, which a model alone need not

    if not getattr(blocks["condition_fuser"], "video_first", False):
        return 0
    encoder = blocks["feature_encoder"]
    frames = frame_count(duration_s, encoder.frame_rate_hz)
    with torch.random.fork_rng(devices=[]):
        return blocks["global_pooler"](torch.zeros(1, frames, encoder.dim)).shape[1]


def describe_factory(factory: Callable[..., Any]) -> Any:
    """Component and parameters of a factory; None where it is no component."""
    given: dict[str, Any] = {}
    while isinstance(factory, functools.partial) and not factory.args:
        given, factory = factory.keywords | given, factory.func
    entry = entry_of(factory)
    if entry is None:
        return None
    try:
        if factory is not entry.factory:  # with the values of a recipe
            parameters = describing.describe(factory)["parameters"]
        else:
            parameters = {
                name: describing.describe(each.default)
                for name, each in entry.settable.items()
                if name not in given
            }
        own = {name: describe_factory(value) or describing.describe(value) for name, value in given.items()}
    except parsing.RecipeError:
        return None
    return {"component": entry.selector, "parameters": parameters | own}


def check_fit(slot: str, block: Any, factory: Any, front_end: Any) -> None:
    """Refuse an autoencoder or a vocoder that is made for another front end.

    Raises:
        UsageError: Its rate, hop or number of bins is not the front end's.
    """
    texts = {"sample_rate": "sound at {} Hz", "hop": "a hop of {} samples", "bins": "{} bins"}
    for name, text in texts.items():
        made_for, given = getattr(block, name, None), getattr(front_end, name)
        if made_for is not None and made_for != given:
            chosen = selector_of("front_end", type(front_end))
            raise UsageError(
                f"{selector_of(slot, factory)} is made for {text.format(made_for)}, and {chosen} gives "
                f"{text.format(given)}.",
                advice=f"Bind the run.front_end that this {slot} is made for, or another run.{slot}.",
            )


def mel_frames(front_end: Any, duration_s: float) -> int:
    """Frames that a front end makes of a clip, Tm."""
    return round(duration_s * front_end.sample_rate) // front_end.hop


def latent_shape(autoencoder: Any, front_end: Any, duration_s: float) -> tuple[int, int, int]:
    """Shape of the latent of one clip, (C, T, F).

    Raises:
        UsageError: The autoencoder does not divide the clip's frames or their bins.
    """
    frames, factor = mel_frames(front_end, duration_s), autoencoder.downsampling
    if frames % factor:
        step_s = factor * front_end.hop / front_end.sample_rate
        nearest_s = max(1, round(frames / factor)) * step_s
        raise UsageError(
            f"run.duration_s = {duration_s} makes {frames} frames, which the autoencoder's downsampling "
            f"of {factor} does not divide.",
            # rounded up by less than half of a sample
            advice=f"Choose a multiple of {step_s} s, such as {math.ceil(round(nearest_s * 1e5, 6)) / 1e5}.",
        )
    bins = getattr(autoencoder, "latent_bins", None)
    if bins is None and front_end.bins % factor:
        raise UsageError(
            f"{selector_of('front_end', type(front_end))} gives {front_end.bins} bins, which the "
            f"autoencoder's downsampling of {factor} does not divide.",
            advice="Bind another run.front_end or run.autoencoder.",
        )
    return autoencoder.latent_channels, frames // factor, bins or front_end.bins // factor


def encode_captions(model: STAV2A, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokens and mask of captions; each distinct caption is encoded once."""
    distinct = sorted(set(captions))
    e_text, mask = model.text_encoder(distinct)
    rows = torch.tensor([distinct.index(caption) for caption in captions], device=e_text.device)
    return e_text[rows], mask[rows]


def as_video(frames: Tensor) -> Tensor:
    """uint8 frames (B, L, 3, H, W) -> video in [0, 1], the input of feature encoders."""
    return frames.to(torch.float32) / 255


def check_denoises(model: STAV2A, part: str) -> None:
    """Refuse a model of codes for a part that denoises.

    Args:
        model: The model.
        part: Selector of the sampler or stage.

    Raises:
        UsageError: It predicts codes.
    """
    unet = model.block("unet")
    if hasattr(unet, "codebook"):
        raise UsageError(
            f"{part} needs a denoiser, and {selector_of('unet', type(unet))} predicts codes.",
            advice=ALL_FOR_CODES,
        )


def check_predicts_codes(model: STAV2A, part: str) -> None:
    """Refuse a denoiser for a part that needs a model of codes; arguments as those of `check_denoises`.

    Raises:
        UsageError: It denoises.
    """
    if not hasattr(model.backbone, "logits"):
        raise UsageError(
            f"{part} needs a model of codes, and {selector_of('backbone', type(model.backbone))} is none.",
            advice=ALL_FOR_CODES,
        )


FORMAT = 1
ADAPTER = "adapter.safetensors"
INSIDE = {"backbone": "unet."}  # prefix of the tensors in a block that belong to another block


class PretrainedError(CheckpointError):
    """A folder without a model, or of another version; or a model that can't be saved."""


def write_model(folder: Path, *, duration_s: float, front_end: Any = None) -> None:
    """Write the configuration that makes a model of the folders of blocks in a folder.

    Args:
        folder: The folder.
        duration_s: Duration of one clip, in seconds.
        front_end: Description of the front end; None for AudioLDM's.
    """
    described = {} if front_end is None else {"front_end": front_end}
    config = {"format": FORMAT, "version": __version__, "duration_s": duration_s, **described}
    write_json(folder / CONFIG, {OURS: config})


def _config(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8"))[OURS]
    except (OSError, ValueError, KeyError, TypeError):
        raise PretrainedError(
            f"{folder} holds no model of ours: there is no {CONFIG} in it that says so.",
            advice="Give the folder that `save_pretrained` was given.",
        ) from None


def _save_block(block: nn.Module, slot: str, described: Mapping[str, Any], folder: Path) -> None:
    folder.mkdir()
    own = own_tensors(slot, block.named_parameters())
    config = {
        "component": described["component"],
        "parameters": {
            name: value for name, value in described["parameters"].items() if name != "checkpoint"
        },
        "trainable": not own or any(p.requires_grad for p in own),
    }
    if not from_hub(_entry(described)):
        inside = INSIDE.get(slot, "")
        save_weights(folder / WEIGHTS, state(block if inside else holder(block), without=inside))
        write_json(folder / CONFIG, {OURS: config})
        return
    for part in [*block.children(), *vars(block).values()]:
        if hasattr(part, "save_pretrained"):  # the model of transformers, and its tokenizer
            part.save_pretrained(folder)
    for file in folder.iterdir():
        give_rights(file)
    write_json(folder / CONFIG, {**json.loads((folder / CONFIG).read_text(encoding="utf-8")), OURS: config})


def _save_adapter(
    block: nn.Module, slot: str, described: Mapping[str, Any], adapter: Any, folder: Path
) -> None:
    """Write the tensors of an adapter, and the settings and the fingerprint of the block beneath."""
    checkpoint = described["parameters"].get("checkpoint")
    if not checkpoint:
        raise PretrainedError(
            f"{adapter['component']} of the {slot} was trained on weights that are in no folder.",
            advice="Merge it: `stav2a export --merge`, or the model's merge_adapters().",
        )
    folder.mkdir()
    tensors = block.state_dict()
    base = {base_name(name): tensor for name, tensor in tensors.items() if not is_adapter(name)}
    save_weights(folder / ADAPTER, {name: each for name, each in tensors.items() if is_adapter(name)})
    config = {**described, "adapter": adapter, "base": tensors_hash(base)}
    write_json(folder / CONFIG, {OURS: config})


def _load_adapter(model: STAV2A, slot: str, described: Mapping[str, Any], folder: Path) -> None:
    block = model.block(slot)
    if fingerprint(block) != described["base"]:
        raise PretrainedError(
            f"{folder} holds an adapter of other weights than those of "
            f"{described['parameters']['checkpoint']!r}.",
            advice=f"Give the folder of its base: from_pretrained(DIR, bases={{{slot!r}: FOLDER}}).",
        )
    model.attach(component(described["adapter"]))
    load_some(block, folder / ADAPTER, is_adapter)


def own_tensors(slot: str, named: Iterable[tuple[str, Tensor]]) -> list[Tensor]:
    """Parameters or buffers of a slot's block, without those of a block inside it."""
    inside = INSIDE.get(slot)
    return [tensor for name, tensor in named if not (inside and name.startswith(inside))]


def _factory(slot: str, described: Mapping[str, Any], folder: Path) -> Any:
    """Component with its parameters; one from the hub takes its weights at once, the others later."""
    entry = _entry(described)
    if entry.slot != ROLES.get(slot, slot):
        raise PretrainedError(f"{folder} holds {entry.selector}, which is no {slot}.")
    if unknown := sorted(set(described["parameters"]) - set(entry.settable)):
        known = registry.did_you_mean(unknown[0], entry.settable)
        raise PretrainedError(
            f"{folder} sets {entry.selector}.{unknown[0]}, which this version does not have.",
            advice=f"{known} Save the model again with this version.",
        )
    factory = component(described)
    own = from_hub(entry) and "adapter" not in described
    return functools.partial(factory, checkpoint=str(folder)) if own else factory


def component(saved: Any) -> Any:
    """Value as it was before `describe` and JSON: lists are tuples, described components factories."""
    if isinstance(saved, list):
        return tuple(component(inner) for inner in saved)
    if isinstance(saved, dict) and {"component", "parameters"} <= set(saved):
        given = {name: component(inner) for name, inner in saved["parameters"].items()}
        return functools.partial(_entry(saved).factory, **given)
    return saved


def _entry(described: Mapping[str, Any]) -> Entry:
    slot, _, name = described["component"].partition(".")
    return registry.get(slot, name)


def from_hub(entry: Entry) -> bool:
    """True for a component that needs a checkpoint, in the layout of its model in transformers."""
    checkpoint = entry.settable.get("checkpoint")
    return checkpoint is not None and checkpoint.default is not None
