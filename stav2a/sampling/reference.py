"""Reference denoising loop, and the noise and the conditions that all samplers start from."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stav2a.models.stav2a import STAV2A, Conditions, check_denoises, encode_captions
from stav2a.registry import register, selector_of
from stav2a.sampling.guiders import EQUATION_7, Branch
from stav2a.slots import Guider
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


def branch_conditions(
    model: STAV2A,
    e_v: Tensor,
    captions: Sequence[str],
    branches: Sequence[Branch],
    negative_captions: Sequence[str] | None = None,
    e_tv: Tensor | None = None,
) -> Conditions:
    """Conditions of the B clips of every branch, one branch after the other."""
    videos = [each for each in (e_v, e_tv) if each is not None]
    null = [""] * len(captions) if negative_captions is None else negative_captions
    encoded = {
        text: encode_captions(model, captions if text else null)
        for text in dict.fromkeys(branch.text for branch in branches)
    }
    longest = max(mask.shape[1] for _, mask in encoded.values())  # an encoder may pad to its batch's longest
    conditions = []
    for branch in branches:
        e_text, mask = encoded[branch.text]
        padding = (0, longest - mask.shape[1])
        e_text, mask = functional.pad(e_text, (0, 0, *padding)), functional.pad(mask, padding)
        given, *more = videos if branch.video else map(torch.zeros_like, videos)
        conditions.append(model.condition(given, e_text, mask, *more))
    return reduce(add, conditions)


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
        guider: Guider = EQUATION_7,
        e_tv: Tensor | None = None,
        progress: Progress = iter,
    ) -> Tensor:
        """Denoise one latent per clip; see `slots.Sampler`."""
        self.check(model, scheduler)
        branches = guider.branches(guidance_scale)
        conditions = branch_conditions(model, e_v, captions, branches, negative_captions, e_tv)
        z_t = initial_noise(model.latent_shape, seeds).to(e_v) * scheduler.init_noise_sigma
        scheduler.set_timesteps(num_inference_steps)
        extra = {"generator": step_generators(seeds)} if takes_generator(scheduler) else {}
        for i, t in enumerate(progress(scheduler.timesteps)):
            prediction = guided(model, z_t, t, conditions, guidance_scale, guider)
            z_t = scheduler.step(prediction, t, z_t, **extra).prev_sample
            z_t = self.after_step(model, e_v, scheduler, i, prediction, z_t)
        return z_t

    def check(self, model: STAV2A, scheduler: Any) -> None:
        """Refuse a model or a scheduler that the loop does not serve.

        Raises:
            UsageError: It predicts codes.
        """
        check_denoises(model, selector_of("sampler", type(self)))

    def after_step(
        self, model: STAV2A, e_v: Tensor, scheduler: Any, i: int, prediction: Tensor, z_t: Tensor
    ) -> Tensor:
        """Latents (B, C, T, F) that the step after step i begins with; here those that step i gave."""
        return z_t


def guided(
    model: STAV2A,
    z_t: Tensor,
    t: Tensor,
    conditions: Conditions,
    guidance_scale: float,
    guider: Guider = EQUATION_7,
) -> Tensor:
    """Prediction of all branches, as the guider makes one of them.

    Args:
        model: The assembled model.
        z_t: Noisy latents (B, C, T, F).
        t: One timestep, (1,).
        conditions: Conditions of the B clips of every branch; see `branch_conditions`.
        guidance_scale: Weight of the text, w of eq. 7.
        guider: Guider of these branches; that of eq. 7 by default.
    """
    branches = len(conditions.c) // len(z_t)
    times = t.to(z_t.device).expand(branches * len(z_t))
    if branches == 1:
        return model.predict(z_t, times, conditions)
    prediction = model.predict(torch.cat([z_t] * branches), times, conditions)
    return guider.combine(prediction.chunk(branches), guidance_scale)
