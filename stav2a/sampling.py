"""Sampling: the denoising loop with text guidance. No recipe, no tracking."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from stav2a.assembly import STAV2A, Conditions, encode_captions
from stav2a.registry import register

# The noise schedule of Stable Diffusion 2.1, which Tango, VTA-LDM and STA-V2A all use.
NOISE_SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}


@register("scheduler", "ddpm")
def ddpm(prediction_type: str, *, timestep_spacing: str = "leading") -> Any:
    """Ancestral sampling with fresh noise at every step: the paper's, with 200 steps.

    Args:
        prediction_type: What the model predicts, `epsilon` or `v_prediction`. Wired.
        timestep_spacing: Which of the training timesteps are visited, in diffusers' terms.
    """
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        prediction_type=prediction_type,
        timestep_spacing=timestep_spacing,
        clip_sample=False,
        **NOISE_SCHEDULE,
    )


@register("scheduler", "ddim")
def ddim(prediction_type: str, *, timestep_spacing: str = "leading") -> Any:
    """Deterministic sampling in fewer steps (Song et al. 2021).

    Args:
        prediction_type: What the model predicts, `epsilon` or `v_prediction`. Wired.
        timestep_spacing: Which of the training timesteps are visited, in diffusers' terms.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        prediction_type=prediction_type,
        timestep_spacing=timestep_spacing,
        clip_sample=False,
        set_alpha_to_one=False,
        **NOISE_SCHEDULE,
    )


@register("scheduler", "dpm_solver")
def dpm_solver(prediction_type: str, *, timestep_spacing: str = "linspace") -> Any:
    """DPM-Solver++ of second order: about 25 steps (Lu et al. 2022).

    Args:
        prediction_type: What the model predicts, `epsilon` or `v_prediction`. Wired.
        timestep_spacing: Which of the training timesteps are visited, in diffusers' terms.
    """
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        prediction_type=prediction_type, timestep_spacing=timestep_spacing, **NOISE_SCHEDULE
    )


def initial_noise(shape: tuple[int, int, int], seeds: Sequence[int]) -> Tensor:
    """One clip of noise (C, T, F) a seed: a clip's noise does not depend on its batch."""
    return torch.stack([torch.randn(shape, generator=_generator(seed)) for seed in seeds])


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def guided(model: STAV2A, z_t: Tensor, t: Tensor, both: Conditions, guidance_scale: float) -> Tensor:
    """Classifier-free guidance of the text alone (eq. 7): null + w (conditional - null).

    Args:
        model: The assembled model.
        z_t: Noisy latents (B, C, T, F).
        t: One timestep, (1,).
        both: Conditions of 2B clips: the null text's first, then the caption's.
        guidance_scale: w of eq. 7; 1 is the conditional prediction.
    """
    prediction = model.predict(torch.cat([z_t, z_t]), t.expand(2 * len(z_t)), both)
    null, conditional = prediction.chunk(2)
    return null + guidance_scale * (conditional - null)


@torch.no_grad()
def generate_latents(
    model: STAV2A,
    e_v: Tensor,
    captions: Sequence[str],
    *,
    scheduler: Any,
    num_inference_steps: int,
    guidance_scale: float,
    seeds: Sequence[int],
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Tensor:
    """Denoise one latent for every clip.

    Args:
        model: The assembled model, in evaluation mode.
        e_v: Video features (B, L, D_v).
        captions: B captions; "" is the null text.
        scheduler: A diffusers scheduler; its state is set anew.
        num_inference_steps: Denoising steps.
        guidance_scale: w of eq. 7; at 1 the null branch is not computed.
        seeds: B seeds, one a clip, of its initial noise and of the scheduler's own.
        progress: Wraps the timesteps, e.g. with a progress bar.

    Returns:
        z (B, C, T, F), whitened latents.
    """
    conditions = model.condition(e_v, *encode_captions(model, captions))
    if guidance_scale != 1:
        null = model.condition(e_v, *encode_captions(model, [""] * len(captions)))
        conditions = null + conditions
    z_t = initial_noise(model.latent_shape, seeds).to(e_v) * scheduler.init_noise_sigma
    generators = [_generator(seed + 1) for seed in seeds]
    scheduler.set_timesteps(num_inference_steps)
    extra = {"generator": generators} if _takes_noise(scheduler) else {}
    for t in progress(scheduler.timesteps):
        if guidance_scale == 1:
            prediction = model.predict(z_t, t.expand(len(z_t)), conditions)
        else:
            prediction = guided(model, z_t, t, conditions, guidance_scale)
        z_t = scheduler.step(prediction, t, z_t, **extra).prev_sample
    return z_t


def _takes_noise(scheduler: Any) -> bool:
    return "generator" in inspect.signature(scheduler.step).parameters


@torch.no_grad()
def to_audio(model: STAV2A, z: Tensor) -> tuple[Tensor, Tensor]:
    """Latents (B, C, T, F) -> log-mels (B, 1, Tm, M) and waveforms (B, S)."""
    mel = model.autoencoder.decode(z)
    return mel, model.vocoder(mel)
