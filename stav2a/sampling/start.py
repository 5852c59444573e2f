"""What every sampler begins with: the conditions of both branches, and a clip's own noise."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stav2a.assembly import STAV2A, Conditions, encode_captions


def initial_noise(shape: tuple[int, int, int], seeds: Sequence[int]) -> Tensor:
    """One clip of noise (C, T, F) a seed: a clip's noise does not depend on its batch."""
    return torch.stack([torch.randn(shape, generator=generator(seed)) for seed in seeds])


def step_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One a clip, of the noise that the scheduler adds at each step."""
    return [generator(seed + 1) for seed in seeds]


def generator(seed: int) -> torch.Generator:
    """A new one, on the CPU: the same numbers on every device."""
    return torch.Generator().manual_seed(seed)


def text_conditions(model: STAV2A, e_v: Tensor, captions: Sequence[str], guidance_scale: float) -> Conditions:
    """Conditions of 2B clips, the null text's first, then the caption's; of B clips at a guidance of 1."""
    conditions = model.condition(e_v, *encode_captions(model, captions))
    if guidance_scale == 1:
        return conditions
    return model.condition(e_v, *encode_captions(model, [""] * len(captions))) + conditions


def takes_noise(scheduler: Any) -> bool:
    """Whether a scheduler's step can be told where its noise comes from."""
    return "generator" in inspect.signature(scheduler.step).parameters
