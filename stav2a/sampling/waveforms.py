"""Waveforms from latents, for one batch or many clips."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stav2a.models.stav2a import STAV2A
from stav2a.sampling.guiders import EQUATION_7
from stav2a.sampling.reference import SamplerError
from stav2a.slots import Guider
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
    features: Sequence[Any],
    rows: Sequence[int],
    captions: Sequence[str],
    *,
    sampler: Any,
    scheduler: Any,
    num_inference_steps: int,
    guidance_scale: float,
    guider: Guider = EQUATION_7,
    seed: int,
    batches: Sequence[range],
    shown: bool = True,
) -> Iterator[np.ndarray]:
    """Waveforms of many clips, a batch at a time.

    The noise of a clip depends on the seed and its index alone.

    Args:
        features: Those of each of `model.encoders`, of more clips, read a batch at a time.
        rows: Rows of the N clips in them.
        captions: Captions of the N clips.
        batches: Indices of the clips of each batch, from 0 to N - 1; see `batches_of`.
        shown: False for no progress bar.

    Shapes:
        features (M, L, D_v), and (M, L_t, D_t) of a temporal encoder -> audio (B, S) for each batch

    Raises:
        SamplerError: The model gives NaN.
    """
    model.eval()
    size = filled_size(sampler, [len(batch) for batch in batches])
    with progress(len(batches) * num_inference_steps, "sampling", "step", leave=False, shown=shown) as bar:
        for batch in batches:
            places = filled(batch, size)
            chosen = [rows[place] for place in places]
            e_v, *e_tv = (each[chosen].to(device()) for each in features)
            z = sampler(
                model,
                e_v,
                [captions[place] for place in places],
                scheduler=scheduler,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                guider=guider,
                e_tv=e_tv[0] if e_tv else None,
                seeds=[noise_seed(seed, place) for place in places],
                progress=bar.counted,
            )
            yield to_audio(model, z[: len(batch)])[1].cpu().numpy().clip(-LOUDEST, LOUDEST)


def filled_size(sampler: Any, sizes: Sequence[int]) -> int:
    """Size to fill batches to: the largest, where the sampler compiles or records every size; else 0."""
    return max(sizes, default=0) if getattr(sampler, "fixed_shapes", False) else 0


def filled(rows: Sequence[int], size: int) -> list[int]:
    """Rows of a batch, the last one repeated up to a size.

    Example:
        >>> filled(range(3, 5), 4), filled(range(2), 0)
        ([3, 4, 4, 4], [0, 1])
    """
    return [*rows, *[rows[-1]] * (size - len(rows))]


def batches_of(count: int) -> list[range]:
    """Indices of the clips of each batch."""
    return [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
