"""What a stage is given to work on: the model, the clips as tensors, and where to keep its checkpoints."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stav2a import processes
from stav2a.assembly import STAV2A
from stav2a.training.objective import Plan

Texts = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Corpus:
    """The prepared clips, one row a clip.

    Args:
        frames: uint8 frames at the feature encoder's rate and size, (N, L, 3, H, W).
        mel: Log-mels (N, 1, Tm, M).
        onsets: Pseudo-labels of onsets in latent frames (N, T), 0 or 1.
        labels: Class of each clip (N,), -1 where unknown.
        rows: Row numbers that a split holds, after a filter: called with the split and the filter's factory.
        features: e_v of all clips (N, L, D_v) by the model's present encoder; computed once.
        latents: Mean and deviation of all latents, each (N, C, T, F); computed once.
        texts: e_text (B, K0, D_c) and mask (B, K0) of the captions of some rows: called with the rows, and
            with which of them get the null text. Carries the text encoder's gradient where it is trained.
    """

    frames: Tensor
    mel: Tensor
    onsets: Tensor
    labels: Tensor
    rows: Callable[[str, Callable[..., object]], Tensor]
    features: Callable[[], Tensor]
    latents: Callable[[], tuple[Tensor, Tensor]]
    texts: Texts


@dataclass(frozen=True)
class Work:
    """One stage's surroundings.

    Args:
        model: The assembled model; the stage leaves its result in it.
        corpus: The clips.
        folder: Where unfinished training is kept.
        seed: Of all randomness in the stage.
        prediction_type: What the denoiser predicts, `epsilon` (eq. 6) or `v_prediction`.
        frozen: Blocks that an earlier stage has finished.
        log: Called with a name, a value and a step.
        trainer: How to train; see `training.trainer`.
    """

    model: STAV2A
    corpus: Corpus
    folder: Path
    seed: int
    prediction_type: str
    frozen: frozenset[str]
    log: Callable[[str, float, int], None]
    trainer: Any

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return processes.device()

    def fit(self, plan: Plan) -> dict[str, Any]:
        """Train as the plan says; the losses come back by name."""
        return self.trainer.fit(plan, self)

    def train_only(self, *slots: str) -> list[nn.Module]:
        """Freeze the model but for these blocks; those that an earlier stage finished stay frozen."""
        self.model.requires_grad_(False).eval()
        blocks = [self.model.block(slot) for slot in slots if slot not in self.frozen]
        for block in blocks:
            block.requires_grad_(True).train()
        return blocks


def generator(seed: int, name: str, step: int) -> torch.Generator:
    """The randomness of one step of one stage: nothing carries over, so a resumed run needs only the step."""
    return torch.Generator().manual_seed((seed * 1_000_003 + zlib.crc32(name.encode())) * 1_000_003 + step)
