"""Waveforms from latents, for one batch or many clips."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stav2a.models.stav2a import STAV2A
from stav2a.sampling.reference import SamplerError
from stav2a.utils.distributed import device
from stav2a.utils.progress import progress

BATCH = 32
LOUDEST = 0.99


@torch.no_grad()
def to_audio(model: STAV2A, z: Tensor) -> tuple[Tensor, Tensor]:
    """Latents (B, C, T, F) -> log-mels (B, 1, Tm, M) and waveforms (B, S).

    Raises:
        SamplerError: They are not finite.
    """
    mel = _finite(model.autoencoder.decode(_finite(z)))
    return mel, _finite(model.vocoder(mel))


def _finite(x: Tensor) -> Tensor:
    if not x.isfinite().all():
        raise SamplerError(
            "The model gives NaN: its training diverged.",
            advice="Train it again with a smaller learning rate of the stage whose loss is NaN, or take "
            "another model.",
        )
    return x


def noise_seed(seed: int, number: int) -> int:
    """Seed of the initial noise of a clip or window by its number; the next one is the scheduler's."""
    return seed * 1_000_003 + 2 * number


def generate(
    model: STAV2A,
    e_v: Tensor,
    captions: Sequence[str],
    *,
    sampler: Any,
    scheduler: Any,
    num_inference_steps: int,
    guidance_scale: float,
    seed: int,
) -> np.ndarray:
    """Waveforms of many clips, in batches; the noise of a clip depends on the seed and its index alone.

    Shapes:
        e_v (N, L, D_v) -> audio (N, S)

    Raises:
        SamplerError: The model gives NaN.
    """
    model.eval()
    parts = []
    starts = range(0, len(captions), BATCH)
    with progress(len(starts) * num_inference_steps, "sampling", "step", leave=False) as bar:
        for start in starts:
            rows = slice(start, start + BATCH)
            z = sampler(
                model,
                e_v[rows].to(device()),
                captions[rows],
                scheduler=scheduler,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                seeds=[noise_seed(seed, i) for i in range(len(captions))[rows]],
                progress=bar.counted,
            )
            parts.append(to_audio(model, z)[1].cpu().numpy())
    return np.concatenate(parts).clip(-LOUDEST, LOUDEST)
