"""The model, its forward in a few lines, and `assemble`, which joins its blocks."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stav2a import recipe
from stav2a.data import mel
from stav2a.errors import UsageError
from stav2a.registry import entry_of, expect

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
        from stav2a import pretrained

        pretrained.save(self, Path(folder))

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
        from stav2a import pretrained

        return pretrained.load(Path(folder), others)

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
            parameters = recipe.describe(factory)["parameters"]
        else:
            parameters = {
                name: recipe.describe(each.default)
                for name, each in entry.settable.items()
                if name not in given
            }
        own = {name: recipe.describe(value) for name, value in given.items()}
    except recipe.RecipeError:
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
