"""Sampling: the denoising loop with text guidance. No recipe, no tracking."""

import torch
from torch import Tensor

from stav2a.assembly import STAV2A
from stav2a.sampling.engines import Compiled, CudaGraph, Eager
from stav2a.sampling.fast import FastSampler
from stav2a.sampling.reference import ReferenceSampler, guided
from stav2a.sampling.schedulers import ddim, ddpm, dpm_solver, unipc
from stav2a.sampling.shortcuts import ControlEvery, DeepCache, GuidanceInterval, NoShortcut
from stav2a.sampling.start import initial_noise
from stav2a.sampling.tables import SamplerError

__all__ = [
    "Compiled", "ControlEvery", "CudaGraph", "DeepCache", "Eager", "FastSampler", "GuidanceInterval",
    "NoShortcut", "ReferenceSampler", "SamplerError", "ddim", "ddpm", "dpm_solver", "guided", "initial_noise",
    "to_audio", "unipc",
]  # fmt: skip


@torch.no_grad()
def to_audio(model: STAV2A, z: Tensor) -> tuple[Tensor, Tensor]:
    """Latents (B, C, T, F) -> log-mels (B, 1, Tm, M) and waveforms (B, S)."""
    mel = model.autoencoder.decode(z)
    return mel, model.vocoder(mel)
