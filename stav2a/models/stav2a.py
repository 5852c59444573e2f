"""The model, its forward in a few lines, and `assemble`, which joins its blocks."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stav2a import __version__, registry
from stav2a.data import mel
from stav2a.recipe import describing, parsing
from stav2a.registry import Entry, entry_of, expect
from stav2a.utils.checkpoints import (
    CONFIG,
    OURS,
    WEIGHTS,
    CheckpointError,
    holder,
    load_weights,
    save_weights,
    state,
)
from stav2a.utils.errors import UsageError
from stav2a.utils.files import new_folder, write_json

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


@dataclass(frozen=True)
class Conditions:
    """All that steers the denoiser; constant over the steps of one generation.

    Shapes:
        c (B, K0+K, D_c), mask (B, K0+K), e_lv (B, T, D_l)
    """

    c: Tensor
    mask: Tensor
    e_lv: Tensor

    def __add__(self, other: "Conditions") -> "Conditions":
        """Both in one batch, ours first."""
        pairs = ((self.c, other.c), (self.mask, other.mask), (self.e_lv, other.e_lv))
        return Conditions(*(torch.cat(pair) for pair in pairs))


class STAV2A(nn.Module):
    """Video and text to audio (Fig. 1): one block a slot, and nothing else.

    Args:
        blocks: A module for each of `BLOCKS` but `unet`, which the backbone holds.
        latent_shape: Shape of one clip's latent, (C, T, F).
        duration_s: Seconds that one latent covers.

    Attributes:
        described: Each block's component and parameters, where `assemble` could tell; for `save_pretrained`.
    """

    def __init__(
        self, blocks: Mapping[str, Any], *, latent_shape: tuple[int, int, int], duration_s: float
    ) -> None:
        super().__init__()
        self.feature_encoder = blocks["feature_encoder"]
        self.text_encoder = blocks["text_encoder"]
        self.local_head = blocks["local_head"]
        self.global_pooler = blocks["global_pooler"]
        self.condition_fuser = blocks["condition_fuser"]
        self.backbone = blocks["backbone"]
        self.autoencoder = blocks["autoencoder"]
        self.vocoder = blocks["vocoder"]
        self.latent_shape, self.duration_s = latent_shape, duration_s
        self.described: dict[str, Any] = {}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model down: a new folder, with one subfolder a block.

        Raises:
            PretrainedError: A block is no registered component.
            UsageError: The folder is there already.
        """

        save(self, Path(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path, **others: Callable[..., Any]) -> "STAV2A":
        """The model of a folder that `save_pretrained` made, bit for bit, in evaluation mode.

        Args:
            folder: The folder, or one of `stav2a convert released`.
            others: Factories by slot, in place of the folder's blocks, or for those that it lacks.

        Raises:
            CheckpointError: There is none, or its weights do not fit.
            RegistryError: A component is not installed here.
        """

        return load(Path(folder), others)

    @property
    def latent_rate_hz(self) -> float:
        """Latent frames a second."""
        return self.latent_shape[1] / self.duration_s

    def block(self, slot: str) -> nn.Module:
        """The module that fills a slot of `BLOCKS`."""
        return self.get_submodule("backbone.unet" if slot == "unet" else slot)

    def condition(self, e_v: Tensor, e_text: Tensor, mask: Tensor) -> Conditions:
        """e_v (B, L, D_v), e_text (B, K0, D_c) and its mask -> what steers the denoiser."""
        c, mask = self.condition_fuser(e_text, mask, self.global_pooler(e_v))
        return Conditions(c, mask, self.local_head(e_v))

    def predict(self, z_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """z_t (B, C, T, F), t (B,) -> the prediction (B, C, T, F): eps or v, as trained."""
        return self.backbone(z_t, t, conditions.c, conditions.mask, conditions.e_lv)

    def forward(self, z_t: Tensor, t: Tensor, e_v: Tensor, e_text: Tensor, mask: Tensor) -> Tensor:
        return self.predict(z_t, t, self.condition(e_v, e_text, mask))


def assemble(factories: Mapping[str, Callable[..., Any]], *, duration_s: float) -> STAV2A:
    """Call the factories in data-flow order, handing each the widths of its neighbours.

    Args:
        factories: A component factory for each slot of `BLOCKS`.
        duration_s: Seconds of one clip; its mel frames must divide by the autoencoder's downsampling.

    Raises:
        RegistryError: A factory fills another slot.
        UsageError: The duration does not make a whole number of latent frames.
    """
    make = {slot: _apart(expect(slot, factories[slot])) for slot in BLOCKS}
    blocks: dict[str, Any] = {
        slot: make[slot]()
        for slot in ("feature_encoder", "text_encoder", "condition_fuser", "autoencoder", "vocoder")
    }
    shape = latent_shape(blocks["autoencoder"], duration_s)
    in_dim, cond_dim = blocks["feature_encoder"].dim, blocks["text_encoder"].dim
    blocks["local_head"] = make["local_head"](in_dim=in_dim, length=shape[1])
    blocks["global_pooler"] = make["global_pooler"](in_dim=in_dim, cond_dim=cond_dim)
    unet = make["unet"](latent_channels=shape[0], cond_dim=cond_dim)
    blocks["backbone"] = make["backbone"](unet=unet, local_dim=blocks["local_head"].dim)
    model = STAV2A(blocks, latent_shape=shape, duration_s=duration_s)
    model.described = {slot: _described(factories[slot]) for slot in BLOCKS}
    return model


def _described(factory: Callable[..., Any]) -> Any:
    """The component and parameters that a factory stands for; None where it is no component."""
    given: dict[str, Any] = {}
    while isinstance(factory, functools.partial) and not factory.args:
        given, factory = factory.keywords | given, factory.func
    entry = entry_of(factory)
    if entry is None:
        return None
    try:
        if factory is not entry.factory:  # as gin hands it out, with the values that a recipe gave
            parameters = describing.describe(factory)["parameters"]
        else:
            parameters = {
                name: describing.describe(each.default)
                for name, each in entry.settable.items()
                if name not in given
            }
        own = {name: describing.describe(value) for name, value in given.items()}
    except parsing.RecipeError:
        return None
    return {"component": entry.selector, "parameters": parameters | own}


def _apart(factory: Callable[..., Any]) -> Callable[..., Any]:
    """The factory, drawing from the generator's state as it is: a block starts alike whatever the others."""

    def make(**wired: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            return factory(**wired)

    return make


def latent_shape(autoencoder: Any, duration_s: float) -> tuple[int, int, int]:
    """Shape of one clip's latent, (C, T, F).

    Raises:
        UsageError: The duration does not make a whole number of latent frames.
    """
    frames = round(duration_s * mel.SAMPLE_RATE / mel.HOP)
    if frames % autoencoder.downsampling:
        raise UsageError(
            f"run.duration_s = {duration_s} makes {frames} mel frames, which the autoencoder's downsampling "
            f"of {autoencoder.downsampling} does not divide. Choose a multiple of "
            f"{autoencoder.downsampling * mel.HOP / mel.SAMPLE_RATE} s."
        )
    return (
        autoencoder.latent_channels,
        frames // autoencoder.downsampling,
        mel.N_MELS // autoencoder.downsampling,
    )


def encode_captions(model: STAV2A, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Captions -> tokens and mask, each distinct caption encoded once."""
    distinct = sorted(set(captions))
    e_text, mask = model.text_encoder(distinct)
    rows = torch.tensor([distinct.index(caption) for caption in captions], device=e_text.device)
    return e_text[rows], mask[rows]


def as_video(frames: Tensor) -> Tensor:
    """uint8 frames (B, L, 3, H, W) -> video in [0, 1], as feature encoders take it."""
    return frames.to(torch.float32) / 255


FORMAT = 1
INSIDE = {"backbone": "unet."}  # what a block holds of another one


class PretrainedError(CheckpointError):
    """A folder that holds no model, or one of another version; or a model that can't be written down."""


def save(model: STAV2A, folder: Path) -> None:
    """Write a model down; the folder appears whole or not at all.

    Raises:
        PretrainedError: A block was made by something that is no registered component.
        UsageError: The folder is there already.
    """
    unknown = [slot for slot in BLOCKS if model.described.get(slot) is None]
    if unknown:
        raise PretrainedError(
            f"The {unknown[0]} was made by something that is no registered component with plain parameters, "
            "so another process could not make it again. Register it; see docs/components.md."
        )
    with new_folder(folder) as new:
        for slot in BLOCKS:
            _save_block(model.block(slot), slot, model.described[slot], new / slot)
        write_model(new, duration_s=model.duration_s)


def write_model(folder: Path, *, duration_s: float) -> None:
    """Say that the folders of blocks in a folder make up a model, and what joins them."""
    write_json(folder / CONFIG, {OURS: {"format": FORMAT, "version": __version__, "duration_s": duration_s}})


def load(folder: Path, others: Mapping[str, Callable[..., Any]]) -> STAV2A:
    """The model of a folder that `save` made, in evaluation mode.

    Args:
        folder: The folder.
        others: Factories by slot, in place of the folder's blocks, or for those that it lacks.

    Raises:
        PretrainedError: There is none, or one that this version can't make.
        CheckpointError: Weights do not fit their component.
        RegistryError: A component is not installed here.
    """
    facts = _config(folder)
    if facts.get("format") != FORMAT:
        raise PretrainedError(
            f"{folder} was written in format {facts.get('format')}, this version reads {FORMAT}. "
            "Save the model again with this version."
        )
    _check_slots(folder, others)
    registry.load()
    blocks = {slot: _config(folder / slot) for slot in BLOCKS if slot not in others}
    ours = {slot: _factory(slot, described, folder / slot) for slot, described in blocks.items()}
    model = assemble({**ours, **others}, duration_s=facts["duration_s"])
    for slot, described in blocks.items():
        _fill(model.block(slot), slot, described, folder / slot)
    return model.eval()


def _check_slots(folder: Path, others: Mapping[str, Any]) -> None:
    if strange := sorted(set(others) - set(BLOCKS)):
        raise PretrainedError(f"No block named {strange[0]!r}. {registry.did_you_mean(strange[0], BLOCKS)}")
    if missing := [slot for slot in BLOCKS if slot not in others and not (folder / slot).is_dir()]:
        raise PretrainedError(
            f"{folder} has no {' and no '.join(missing)}. Give what is to be there: "
            f"from_pretrained(DIR, {', '.join(f'{slot}=FACTORY' for slot in missing)})."
        )


def _save_block(block: nn.Module, slot: str, described: Mapping[str, Any], folder: Path) -> None:
    folder.mkdir()
    parameters = {name: value for name, value in described["parameters"].items() if name != "checkpoint"}
    ours = {"component": described["component"], "parameters": parameters, "trainable": _trains(block, slot)}
    if _from_hub(_entry(described["component"])):
        for part in _stock(block):
            part.save_pretrained(folder)
        known = json.loads((folder / CONFIG).read_text())
        write_json(folder / CONFIG, {**known, OURS: ours})
        return
    inside = INSIDE.get(slot, "")
    save_weights(folder / WEIGHTS, state(block if inside else holder(block), without=inside))
    write_json(folder / CONFIG, {OURS: ours})


def _fill(block: nn.Module, slot: str, described: Mapping[str, Any], folder: Path) -> None:
    if not _from_hub(_entry(described["component"])):
        inside = INSIDE.get(slot, "")
        load_weights(block if inside else holder(block), str(folder), parameter=slot, without=inside)
    if not described.get("trainable", True):
        for name, parameter in block.named_parameters():
            if not (slot in INSIDE and name.startswith(INSIDE[slot])):
                parameter.requires_grad_(False)


def _factory(slot: str, described: Mapping[str, Any], folder: Path) -> Any:
    """The component with its parameters; one from the hub takes its weights at once, the others later."""
    entry = _entry(described["component"])
    if entry.slot != slot:
        raise PretrainedError(f"{folder} holds {entry.selector}, which is no {slot}.")
    given = {name: _plain(value) for name, value in described["parameters"].items()}
    if strange := sorted(set(given) - set(entry.settable)):
        raise PretrainedError(
            f"{folder} sets {entry.selector}.{strange[0]}, which this version does not have. "
            f"{registry.did_you_mean(strange[0], entry.settable)} Save the model again with this version."
        )
    if _from_hub(entry):
        given["checkpoint"] = str(folder)
    return functools.partial(entry.factory, **given)


def _plain(value: Any) -> Any:
    """What JSON changed: components take tuples, and other components as they are."""
    if isinstance(value, list):
        return tuple(_plain(inner) for inner in value)
    if isinstance(value, dict) and set(value) == {"component", "parameters"}:
        given = {name: _plain(inner) for name, inner in value["parameters"].items()}
        return functools.partial(_entry(value["component"]).factory, **given)
    return value


def _entry(selector: str) -> Entry:
    slot, _, name = selector.partition(".")
    return registry.get(slot, name)


def _from_hub(entry: Entry) -> bool:
    """Whether the component can't be built without a checkpoint, in the layout of its stock model."""
    checkpoint = entry.settable.get("checkpoint")
    return checkpoint is not None and checkpoint.default is not None


def _stock(block: nn.Module) -> list[Any]:
    """The stock model in a component, and its tokenizer."""
    inside = [*block.children(), *vars(block).values()]
    return [part for part in inside if hasattr(part, "save_pretrained")]


def _trains(block: nn.Module, slot: str) -> bool:
    own = [p for name, p in block.named_parameters() if not name.startswith(INSIDE.get(slot, "\0"))]
    return not own or any(p.requires_grad for p in own)


def _config(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / CONFIG).read_text())[OURS]
    except (OSError, ValueError, KeyError, TypeError):
        raise PretrainedError(
            f"{folder} holds no model of ours: there is no {CONFIG} in it that says so. "
            "Give the folder that `save_pretrained` was given."
        ) from None
