"""From latents to waveforms, one batch or many clips."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from stav2a.models.stav2a import STAV2A
from stav2a.utils.distributed import device


@torch.no_grad()
def to_audio(model: STAV2A, z: Tensor) -> tuple[Tensor, Tensor]:
    """Latents (B, C, T, F) -> log-mels (B, 1, Tm, M) and waveforms (B, S)."""
    mel = model.autoencoder.decode(z)
    return mel, model.vocoder(mel)


BATCH = 32
LOUDEST = 0.99


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
    """Sounds for many clips, in batches: clip i has the noise of seed (seed, i), whatever the batches.

    Shapes:
        e_v (N, L, D_v) -> audio (N, S)
    """
    model.eval()
    parts = []
    for start in tqdm(range(0, len(captions), BATCH), desc="sampling", unit="batch", leave=False):
        rows = slice(start, start + BATCH)
        seeds = [seed * 1_000_003 + 2 * i for i in range(start, min(start + BATCH, len(captions)))]
        z = sampler(
            model,
            e_v[rows].to(device()),
            captions[rows],
            scheduler=scheduler,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            seeds=seeds,
        )
        parts.append(to_audio(model, z)[1].cpu().numpy())
    return np.concatenate(parts).clip(-LOUDEST, LOUDEST)
