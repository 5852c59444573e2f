"""Reference denoising loop, and the noise and the conditions that all samplers start from."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stav2a.models.stav2a import STAV2A, Conditions, encode_captions
from stav2a.registry import register
from stav2a.utils.errors import USAGE, StaV2AError

Progress = Callable[[Iterable[Any]], Iterable[Any]]


class SamplerError(StaV2AError):
    """A sampler that does not fit the scheduler or the backbone it was given, or a model that gives NaN."""

    exit_code = USAGE


def initial_noise(shape: tuple[int, int, int], seeds: Sequence[int]) -> Tensor:
    """Noise (B, C, T, F), one clip per seed: the noise of a clip does not depend on its batch."""
    return torch.stack([torch.randn(shape, generator=generator(seed)) for seed in seeds])


def step_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator per clip for the noise that the scheduler adds at each step."""
    return [generator(seed + 1) for seed in seeds]


def generator(seed: int) -> torch.Generator:
    """Generator on the CPU, whose numbers are the same for every device."""
    return torch.Generator().manual_seed(seed)


def text_conditions(
    model: STAV2A,
    e_v: Tensor,
    captions: Sequence[str],
    guidance_scale: float,
    negative_captions: Sequence[str] | None = None,
) -> Conditions:
    """Conditions of 2B clips, null text or what is not wanted first; of the B captions at a scale of 1."""
    texts = [list(captions)]
    if guidance_scale != 1:
        texts = [[""] * len(captions) if negative_captions is None else list(negative_captions), *texts]
    encoded = [encode_captions(model, text) for text in texts]
    longest = max(mask.shape[1] for _, mask in encoded)  # an encoder may pad to the longest of its batch
    branches = []
    for e_text, mask in encoded:
        padding = (0, longest - mask.shape[1])
        e_text, mask = functional.pad(e_text, (0, 0, *padding)), functional.pad(mask, padding)
        branches.append(model.condition(e_v, e_text, mask))
    return reduce(add, branches)


def takes_generator(scheduler: Any) -> bool:
    """True for a scheduler whose step takes a random generator."""
    return "generator" in inspect.signature(scheduler.step).parameters


@register("sampler", "reference")
class ReferenceSampler:
    """Denoising loop as in the pipelines of diffusers, step by step, in the precision of the model."""

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
        negative_captions: Sequence[str] | None = None,
        progress: Progress = iter,
    ) -> Tensor:
        """Denoise one latent per clip; see `slots.Sampler`."""
        conditions = text_conditions(model, e_v, captions, guidance_scale, negative_captions)
        z_t = initial_noise(model.latent_shape, seeds).to(e_v) * scheduler.init_noise_sigma
        scheduler.set_timesteps(num_inference_steps)
        extra = {"generator": step_generators(seeds)} if takes_generator(scheduler) else {}
        for t in progress(scheduler.timesteps):
            if guidance_scale == 1:
                prediction = model.predict(z_t, t.to(z_t.device).expand(len(z_t)), conditions)
            else:
                prediction = guided(model, z_t, t, conditions, guidance_scale)
            z_t = scheduler.step(prediction, t, z_t, **extra).prev_sample
        return z_t


def guided(model: STAV2A, z_t: Tensor, t: Tensor, both: Conditions, guidance_scale: float) -> Tensor:
    """Prediction with classifier-free guidance of the text alone (eq. 7): null + w (conditional - null).

    Args:
        model: The assembled model.
        z_t: Noisy latents (B, C, T, F).
        t: One timestep, (1,).
        both: Conditions of 2B clips: null text first, then captions.
        guidance_scale: w of eq. 7; 1 is the conditional prediction.
    """
    prediction = model.predict(torch.cat([z_t, z_t]), t.to(z_t.device).expand(2 * len(z_t)), both)
    null, conditional = prediction.chunk(2)
    return null + guidance_scale * (conditional - null)
