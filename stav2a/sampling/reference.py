"""The plain denoising loop, which all others are held against."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from stav2a.assembly import STAV2A, Conditions
from stav2a.registry import register
from stav2a.sampling.start import initial_noise, step_generators, takes_noise, text_conditions


@register("sampler", "reference")
class ReferenceSampler:
    """The loop as diffusers' pipelines write it, step by step, in the model's own precision."""

    @torch.no_grad()
    def __call__(
        self,
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
        """Denoise one latent for every clip; see `slots.Sampler`."""
        conditions = text_conditions(model, e_v, captions, guidance_scale)
        z_t = initial_noise(model.latent_shape, seeds).to(e_v) * scheduler.init_noise_sigma
        scheduler.set_timesteps(num_inference_steps)
        extra = {"generator": step_generators(seeds)} if takes_noise(scheduler) else {}
        for t in progress(scheduler.timesteps):
            if guidance_scale == 1:
                prediction = model.predict(z_t, t.to(z_t.device).expand(len(z_t)), conditions)
            else:
                prediction = guided(model, z_t, t, conditions, guidance_scale)
            z_t = scheduler.step(prediction, t, z_t, **extra).prev_sample
        return z_t


def guided(model: STAV2A, z_t: Tensor, t: Tensor, both: Conditions, guidance_scale: float) -> Tensor:
    """Classifier-free guidance of the text alone (eq. 7): null + w (conditional - null).

    Args:
        model: The assembled model.
        z_t: Noisy latents (B, C, T, F).
        t: One timestep, (1,).
        both: Conditions of 2B clips: the null text's first, then the caption's.
        guidance_scale: w of eq. 7; 1 is the conditional prediction.
    """
    prediction = model.predict(torch.cat([z_t, z_t]), t.to(z_t.device).expand(2 * len(z_t)), both)
    null, conditional = prediction.chunk(2)
    return null + guidance_scale * (conditional - null)
