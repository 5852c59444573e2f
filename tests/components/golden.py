"""The weights and inputs that the golden numbers in tests/golden were made with, drawn again."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Normal draws, key by key in sorted order, sized by what the key is."""
    return {key: _draw(k, key, tuple(shapes[key])) for k, key in enumerate(sorted(shapes))}


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _draw(k: int, key: str, shape: tuple[int, ...]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    n = np.random.default_rng([7, k]).standard_normal(int(np.prod(shape)))
    if key.endswith("running_var"):
        n = 1 + 0.25 * np.abs(n)
    elif key.endswith(("running_mean", "bias")):
        n = 0.1 * n
    elif len(shape) == 1:
        n = 1 + 0.1 * n
    else:
        n = n * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(n.astype(np.float32)).reshape(shape)


def normal(i: int, *shape: int) -> Tensor:
    """The i-th input."""
    n = np.random.default_rng([7, 10**6 + i]).standard_normal(shape)
    return torch.from_numpy(n.astype(np.float32))


def error(found: Tensor, expected: np.ndarray) -> float:
    """The largest difference, over the largest number expected."""
    assert tuple(found.shape) == expected.shape
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())
