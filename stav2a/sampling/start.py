"""What every sampler begins with: the conditions of both branches, and a clip's own noise."""

import inspect
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

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
    texts = [list(captions)] if guidance_scale == 1 else [[""] * len(captions), list(captions)]
    encoded = [encode_captions(model, text) for text in texts]
    longest = max(mask.shape[1] for _, mask in encoded)  # an encoder may pad to the longest it is given
    branches = [model.condition(e_v, *_padded(*each, longest)) for each in encoded]
    return reduce(add, branches)


def _padded(e_text: Tensor, mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
    padding = (0, length - mask.shape[1])
    return functional.pad(e_text, (0, 0, *padding)), functional.pad(mask, padding)


def takes_noise(scheduler: Any) -> bool:
    """Whether a scheduler's step can be told where its noise comes from."""
    return "generator" in inspect.signature(scheduler.step).parameters
