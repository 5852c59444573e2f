"""Kernel audio distance (KAD) [Chung et al., 2025]: between sets of sounds, not inflated by few clips."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stav2a.metrics.distribution import as_matrix
from stav2a.metrics.errors import MetricError

Array = NDArray[np.float64]

SCALE = 100.0  # as by its authors, for figures that can be read


class KernelDistance:
    """100 times the unbiased squared MMD between two sets, with a Gaussian kernel.

    Its expectation is 0 for two samples of one distribution, however few, so that it can be negative. The
    kernel's width is the median distance between the real embeddings.

    Args:
        generated: Embeddings of the generated sounds.
        reference: Embeddings of the real sounds, clip by clip beside them.

    Shapes:
        (N, D), (N, D)

    Raises:
        MetricError: Fewer than two clips, different shapes, real sounds that are all alike.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(40, 3))
        >>> near, far = KernelDistance(x + 0.1, x), KernelDistance(x + 2.0, x)
        >>> near() < far()
        True
    """

    def __init__(self, generated: ArrayLike, reference: ArrayLike) -> None:
        x = as_matrix(generated, "generated embeddings")
        y = as_matrix(reference, "reference embeddings")
        if x.shape != y.shape:
            raise MetricError(
                f"embeddings of shapes {x.shape} and {y.shape}. Give one row a clip, both sides."
            )
        if len(x) < 2:
            raise MetricError(f"the kernel distance needs 2 clips or more; got {len(x)}.")
        distances = _squared_distances(y, y)
        width = np.median(np.sqrt(distances[np.triu_indices(len(y), k=1)]))
        if not width > 0:
            raise MetricError("the kernel distance needs real sounds that differ; most of these are alike.")
        self._xx, self._yy, self._xy = (
            np.exp(-squared / (2 * width**2))
            for squared in (_squared_distances(x, x), distances, _squared_distances(x, y))
        )
        np.fill_diagonal(self._xx, 0.0)
        np.fill_diagonal(self._yy, 0.0)

    def __call__(self, clips: NDArray[np.int64] | None = None) -> float:
        """The distance on these clips, which may be named more than once; by default on all.

        A clip drawn twice is never compared with itself, so that draws are as unbiased as the sample.
        """
        n = len(self._xx)
        times = np.ones(n) if clips is None else np.bincount(clips, minlength=n).astype(np.float64)
        pairs = times.sum() ** 2 - (times**2).sum()
        if pairs == 0:
            return float("nan")
        within = (times @ self._xx @ times + times @ self._yy @ times) / pairs
        between = times @ self._xy @ times / times.sum() ** 2
        return float(SCALE * (within - 2 * between))


def kernel_distance(generated: ArrayLike, reference: ArrayLike) -> float:
    """`KernelDistance` of all clips."""
    return KernelDistance(generated, reference)()


def _squared_distances(x: Array, y: Array) -> Array:
    squared = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1)[None] - 2 * x @ y.T
    return np.maximum(squared, 0.0)
