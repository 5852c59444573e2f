"""A whole model at a tiny size, and clips for it made by hand: what many tests start from."""

from collections.abc import Callable
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stav2a.components.autoencoders import MelVAE
from stav2a.components.backbones import UNetControlNet
from stav2a.components.condition_fusers import Concat
from stav2a.components.feature_encoders import CAVP
from stav2a.components.global_poolers import AttentivePooler
from stav2a.components.local_heads import OnsetHead
from stav2a.components.text_encoders import TinyMT5
from stav2a.components.unets import stable_diffusion
from stav2a.components.vocoders import GriffinLim
from stav2a.data import mel as front_end
from stav2a.models.stav2a import STAV2A, assemble, encode_captions
from stav2a.training.corpus import Corpus, encode_frames, encode_mels
from stav2a.training.denoising import Epsilon
from stav2a.training.objective import TrainingContext
from stav2a.training.trainer import AccelerateTrainer

DURATION_S = 0.64
TRAIN, VALIDATION = 12, 4
CAPTIONS = ("a low drum", "a high bell")

unet = partial(
    stable_diffusion,
    block_out_channels=(8, 16),
    attention_levels=(False, True),
    attention_head_dim=(2, 2),
    layers_per_block=1,
    norm_num_groups=4,
)


def factories(**changes: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """A small component for every block, but for the changes."""
    own: dict[str, Callable[..., Any]] = {
        "feature_encoder": partial(
            CAVP, width=4, blocks=(1, 1, 1, 1), dim=16, frame_rate_hz=12.5, frame_size=16
        ),
        "text_encoder": partial(TinyMT5, dim=16, layers=1, heads=2, vocabulary=64, max_length=6),
        "local_head": partial(OnsetHead, dim_per_window=8, windows=(1, 2)),
        "global_pooler": AttentivePooler,
        "condition_fuser": Concat,
        "unet": unet,
        "backbone": UNetControlNet,
        "autoencoder": partial(
            MelVAE, block_out_channels=(8, 16), latent_channels=4, layers_per_block=1, patch=4,
            mel_mean=-6.0, mel_std=3.0,
        ),
        "vocoder": partial(GriffinLim, iterations=4),
    }  # fmt: skip
    return own | changes


def model(seed: int = 0, **changes: Callable[..., Any]) -> STAV2A:
    """The small components, assembled: latents are (4, 8, 8), features (8, 16)."""
    torch.manual_seed(seed)
    return assemble(factories(**changes), duration_s=DURATION_S).eval()


def shake(module: nn.Module, size: float = 0.1, seed: int = 0) -> None:
    """Move every parameter away from where it was initialised, zeros above all."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(size * torch.randn(p.shape, generator=rng))


@cache
def clips() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Frames, log-mels, onsets and labels of clips that flash and sound once, at the same moment.

    The sound's pitch is the label, and so is the flash's colour.
    """
    rng = torch.Generator().manual_seed(0)
    count, seconds = TRAIN + VALIDATION, torch.arange(int(DURATION_S * front_end.SAMPLE_RATE))
    moments = torch.randint(1, 7, (count,), generator=rng)
    labels = torch.arange(count) % 2
    frames = torch.randint(0, 40, (count, 8, 3, 16, 16), generator=rng, dtype=torch.uint8)
    audio, onsets = 0.001 * torch.randn(count, len(seconds), generator=rng), torch.zeros(count, 8)
    for i, (moment, label) in enumerate(zip(moments.tolist(), labels.tolist(), strict=True)):
        frames[i, moment, label] = 255
        start = moment * len(seconds) // 8
        t = seconds[start:] - start
        audio[i, start:] += torch.sin(t * (0.2, 1.1)[label]) * torch.exp(-t / 1500)
        onsets[i, moment] = 1
    return frames, front_end.log_mel(audio), onsets, labels


class TinyCorpus:
    """The clips, with features and latents by the model's present encoders."""

    def __init__(self, model: STAV2A) -> None:
        self.model = model
        self.frames, self.mel, self.onsets, self.labels = clips()
        self.spectrogram = self.mel

    def rows(self, split: str, data_filter: object) -> Tensor:
        return torch.arange(TRAIN) if split == "train" else torch.arange(TRAIN, TRAIN + VALIDATION)

    @cached_property
    def _features(self) -> Tensor:
        return encode_frames(self.model, self.frames)

    @cached_property
    def _latents(self) -> dict[str, Tensor]:
        return encode_mels(self.model, self.mel)

    def features(self) -> Tensor:
        return self._features

    def latents(self) -> tuple[Tensor, Tensor]:
        return self._latents["mean"], self._latents["std"]

    def captions(self, rows: Tensor, drop: Tensor) -> list[str]:
        labels = self.labels[rows].tolist()
        return ["" if null else CAPTIONS[i] for i, null in zip(labels, drop.tolist(), strict=True)]

    def texts(self, rows: Tensor, drop: Tensor) -> tuple[Tensor, Tensor]:
        return encode_captions(self.model, self.captions(rows, drop))


def corpus(of: STAV2A) -> Corpus:
    """The clips, with what stages read of them."""
    made: Any = TinyCorpus(of)
    return made


def work(
    of: STAV2A,
    folder: Path,
    *,
    frozen: frozenset[str] = frozenset(),
    seed: int = 0,
    trainer: AccelerateTrainer | None = None,
    objective: Any = None,
) -> TrainingContext:
    """A stage's surroundings, with logs going nowhere."""
    quiet = lambda name, value, step: None  # noqa: E731 - a name for one line
    return TrainingContext(
        of, corpus(of), folder, seed, objective or Epsilon(), frozen, quiet, trainer or AccelerateTrainer()
    )
