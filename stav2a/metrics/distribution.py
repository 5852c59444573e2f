"""Distances between sets of sounds, from embeddings and logits. Arrays in, numbers out, in float64."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.lapack import dpstrf
from scipy.special import log_softmax

from stav2a.metrics.score import MetricError

Array = NDArray[np.float64]
FEWEST_FOR_FLOOR = 8  # real clips, so that quarters hold two
NO_VARIANCE = 1e-12  # of a direction that a draw lacks, where that of all rows is about 1


class MeanStd(NamedTuple):
    """Mean and deviation (ddof 0) over the splits."""

    mean: float
    std: float


def frechet_distance(generated: ArrayLike, reference: ArrayLike) -> float:
    """Fréchet distance of two Gaussians fitted to the sets (covariance ddof 1); not square-rooted.

    With the centred sets A / sqrt(n - 1) and B / sqrt(m - 1), tr sqrt(S_a S_b) is the nuclear norm of A B^T:
    exact for fewer samples than dimensions too, where a matrix square root needs an epsilon.

    Args:
        generated: Embeddings of the generated sounds.
        reference: Embeddings of the real sounds.

    Shapes:
        (N, D), (M, D) -> a distance, 0 or more

    Raises:
        MetricError: Fewer than two samples, different widths, numbers that are not finite.

    Example:
        >>> round(frechet_distance([[0.0], [2.0]], [[1.0], [5.0]]), 9)  # (1 - 3)^2 + (sqrt(2) - sqrt(8))^2
        6.0
    """
    x, y = matrix(generated, "generated embeddings"), matrix(reference, "reference embeddings")
    if min(len(x), len(y)) < 2:
        raise MetricError(f"the Fréchet distance needs 2 clips or more a side; got {len(x)} and {len(y)}.")
    if x.shape[1] != y.shape[1]:
        raise MetricError(
            f"embeddings of widths {x.shape[1]} and {y.shape[1]} can't be compared. Use one classifier."
        )
    offset = x.mean(axis=0) - y.mean(axis=0)
    a, b = _factor(x), _factor(y)
    overlap = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    distance = offset @ offset + (a * a).sum() + (b * b).sum() - 2 * overlap
    return max(0.0, float(distance))  # equal sets give 0 but for rounding


class FrechetStatistic:
    """`frechet_distance` of drawn clips, but for rounding, at a part of its time.

    A draw with replacement weights the clips. With fewer than two rows a dimension, A B^T is taken from that
    of all rows, and has a row only for each one drawn. With more, a draw's covariance is its weighted moments
    in an orthonormal basis of all rows, in which they are near a multiple of the unit matrix and lose no
    digits.

    Args:
        generated: Rows (W_i, D) of the generated sound of each clip.
        reference: Rows (V_i, D) of its real sound.

    Raises:
        MetricError: Numbers that are not finite; from a call, see `frechet_distance`.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(40, 1, 3))
        >>> distance, clips = FrechetStatistic(x, x + 1.0), np.array([0, 0, 1, 2, 3, 3, 4])
        >>> abs(distance(clips) - frechet_distance(x[clips, 0], x[clips, 0] + 1.0)) < 1e-12
        True
    """

    def __init__(self, generated: Sequence[Array], reference: Sequence[Array]) -> None:
        sides = {"generated embeddings": generated, "reference embeddings": reference}
        self._rows = [matrix(np.concatenate(list(rows)), name) for name, rows in sides.items()]
        self._lengths = [[len(each) for each in rows] for rows in sides.values()]

    def __call__(self, clips: NDArray[np.int64]) -> float:
        """Distance of these clips, which may be named more than once."""
        times = np.bincount(clips, minlength=len(self._lengths[0]))
        drawn = [np.repeat(times, lengths) for lengths in self._lengths]
        if times.max() == 1 or min(each.sum() for each in drawn) < 2:  # no clip twice; or refused
            return frechet_distance(*map(np.repeat, self._rows, drawn, (0, 0)))
        means = [each @ rows / each.sum() for each, rows in zip(drawn, self._centred, strict=True)]
        spread = sum(
            (each @ squares - each.sum() * mean @ mean) / (each.sum() - 1)
            for each, squares, mean in zip(drawn, self._squares, means, strict=True)
        )
        (x, y), (x_mean, y_mean) = self._rows, means
        offset = x.mean(axis=0) + x_mean - y.mean(axis=0) - y_mean
        if min(len(x), len(y)) < 2 * x.shape[1]:
            overlap = self._overlap_of_rows(drawn, means)
        else:
            overlap = self._overlap_of_moments(drawn)
        overlap /= np.sqrt((drawn[0].sum() - 1) * (drawn[1].sum() - 1))
        nuclear = np.linalg.svd(overlap, compute_uv=False).sum()
        return max(0.0, float(offset @ offset + spread - 2 * nuclear))

    @cached_property
    def _centred(self) -> list[Array]:
        return [rows - rows.mean(axis=0) for rows in self._rows]

    @cached_property
    def _squares(self) -> list[Array]:
        return [(rows * rows).sum(axis=1) for rows in self._centred]

    @cached_property
    def _products(self) -> Array:
        x, y = self._centred
        return x @ y.T

    @cached_property
    def _bases(self) -> list[tuple[Array, Array]]:
        """Orthonormal columns (N, R) and coordinates (R, D) of each side's centred rows, of rank R."""
        found = []
        for rows in self._centred:
            u, s, vt = np.linalg.svd(rows, full_matrices=False)
            rank = int((s > s[0] * max(rows.shape) * np.finfo(np.float64).eps).sum())
            found.append((u[:, :rank], s[:rank, None] * vt[:rank]))
        return found

    @cached_property
    def _coordinate_products(self) -> Array:
        (_, x), (_, y) = self._bases
        return x @ y.T

    def _overlap_of_rows(self, drawn: Sequence[NDArray[np.int64]], means: Sequence[Array]) -> Array:
        (i, j), (x_mean, y_mean) = map(np.flatnonzero, drawn), means
        x, y = self._centred[0][i], self._centred[1][j]
        centred = self._products[np.ix_(i, j)] - (x @ y_mean)[:, None] - (y @ x_mean) + x_mean @ y_mean
        return np.sqrt(drawn[0][i])[:, None] * centred * np.sqrt(drawn[1][j])

    def _overlap_of_moments(self, drawn: Sequence[NDArray[np.int64]]) -> Array:
        x, y = (_moments_factor(basis, each) for (basis, _), each in zip(self._bases, drawn, strict=True))
        return x @ self._coordinate_products @ y.T


def _moments_factor(rows: Array, times: NDArray[np.int64]) -> Array:
    """Factor F (K, R) of the centred sums of squares F^T F of rows (N, R) that are drawn so many times."""
    kept = np.flatnonzero(times)
    weighted = rows[kept] * np.sqrt(times[kept])[:, None]
    mean = times @ rows / times.sum()
    lower, order, rank, _ = dpstrf(
        weighted.T @ weighted - times.sum() * np.outer(mean, mean), tol=NO_VARIANCE, lower=1
    )
    factor = np.empty((rank, len(order)))
    factor[:, order - 1] = np.tril(lower)[:, :rank].T
    return factor


def frechet_floor(reference: Array | Sequence[Array], n: int, *, draws: int = 20, seed: int = 0) -> float:
    """Bias floor of the Fréchet distance: the one between two sets of n clips of one distribution.

    With few clips the Fréchet distance is inflated, by about 1/n where there are many more clips than
    dimensions; a perfect generator would reach this floor. Measured on disjoint parts of the references, of
    n clips if there are 2n. If not, the power law of n through their halves and quarters is followed up to
    n: in simulations of 50 to 1,000 clips and 16 to 192 dimensions that came within 20 % of the truth, where
    drawing with replacement fell short by as much as 40 %.

    Args:
        reference: Embeddings of the real sounds: a row a clip, or several rows (W_i, D) a clip.
        n: Number of clips a side.
        draws: Number of pairs of parts to average.
        seed: Seed of the draws.

    Shapes:
        (M, D), or M times (W_i, D) -> a distance

    Raises:
        MetricError: Fewer than eight references.
    """
    clips = [matrix(np.atleast_2d(np.asarray(rows)), "reference embeddings") for rows in reference]
    m = len(clips)
    if m < FEWEST_FOR_FLOOR:
        raise MetricError(
            f"the floor of the Fréchet distance needs {FEWEST_FOR_FLOOR} real clips or more; got {m}."
        )
    rng = np.random.default_rng(seed)
    if 2 * n <= m:
        return _between_parts(clips, n, draws, rng)
    halves, quarters = (_between_parts(clips, m // parts, draws, rng) for parts in (2, 4))
    if halves == 0 or quarters == 0:
        return 0.0
    slope = np.log(halves / quarters) / np.log((m // 2) / (m // 4))
    return float(halves * (n / (m // 2)) ** slope)


def kl_divergences(generated_logits: ArrayLike, reference_logits: ArrayLike, *, eps: float = 0.0) -> Array:
    """KL(reference || generated) of each pair of clips, in nats, between softmax distributions.

    Args:
        generated_logits: Logits of the generated sounds; row i belongs to the clip of the reference's row i.
        reference_logits: Logits of the real sounds.
        eps: Number added to the generated probabilities after softmax; the released code has 1e-6.

    Shapes:
        (N, C), (N, C) -> (N,)

    Raises:
        MetricError: Sets of different shapes, numbers that are not finite, a negative eps.

    Example:
        >>> kl_divergences([[0.0, 0.0]], [[np.log(3.0), 0.0]]).round(4)  # 3/4 log(3/2) + 1/4 log(1/2)
        array([0.1308])
    """
    q, p = matrix(generated_logits, "generated logits"), matrix(reference_logits, "reference logits")
    if p.shape != q.shape:
        raise MetricError(
            f"logits of shapes {q.shape} and {p.shape} don't pair up. Give one row a clip, on both sides."
        )
    if eps < 0:
        raise MetricError(f"eps was {eps}. Give 0 (exact) or a small positive number (1e-6 as released).")
    log_p, log_q = log_softmax(p, axis=1), log_softmax(q, axis=1)
    if eps:
        log_q = np.log(np.exp(log_q) + eps)
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)


def inception_score(logits: ArrayLike, *, splits: int = 10, seed: int = 2020) -> MeanStd:
    """Inception score, exp of the mean KL(p || mean p): mean and deviation over the parts of a fixed shuffle.

    Args:
        logits: Logits of the generated sounds.
        splits: Number of parts; split i is rows [i*N//splits : (i+1)*N//splits].
        seed: Seed of the shuffle, `RandomState(seed).permutation(N)`.

    Shapes:
        (N, C) -> two numbers; the score lies within 1 and C

    Raises:
        MetricError: Fewer than two clips a split, where the score would be 1 whatever the sounds.

    Example:
        >>> inception_score(np.zeros((20, 5)))
        MeanStd(mean=1.0, std=0.0)
    """
    rows = matrix(logits, "logits")
    n = len(rows)
    if n < 2 * splits:
        raise MetricError(
            f"the inception score in {splits} splits needs {2 * splits} clips or more; got {n}."
        )
    log_p = log_softmax(rows, axis=1)[np.random.RandomState(seed).permutation(n)]
    parts = [_exp_mutual_information(log_p[i * n // splits : (i + 1) * n // splits]) for i in range(splits)]
    return MeanStd(float(np.mean(parts)), float(np.std(parts)))


def _exp_mutual_information(log_p: Array) -> float:
    p = np.exp(log_p)
    mean = p.mean(axis=0)
    log_mean = np.log(mean, out=np.zeros_like(mean), where=mean > 0)  # a class of no mass adds nothing
    return float(np.exp((p * (log_p - log_mean)).sum(axis=1).mean()))


def _between_parts(clips: Sequence[Array], size: int, draws: int, rng: np.random.Generator) -> float:
    """Mean distance between two disjoint parts of `size` clips."""

    def pooled(chosen: NDArray[np.int64]) -> Array:
        return np.concatenate([clips[i] for i in chosen])

    orders = [rng.permutation(len(clips)) for _ in range(draws)]
    parts = [(pooled(order[:size]), pooled(order[size : 2 * size])) for order in orders]
    return float(np.mean([frechet_distance(*pair) for pair in parts]))


def _factor(samples: Array) -> Array:
    """Factor F of the covariance F^T F: the centred samples, or their triangle where it is smaller."""
    centred = (samples - samples.mean(axis=0)) / np.sqrt(len(samples) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if centred.shape[0] > centred.shape[1] else centred


def matrix(values: ArrayLike, name: str) -> Array:
    """Finite rows in float64, one a clip.

    Raises:
        MetricError: Another shape, no row, numbers that are not finite; `name` says of what.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not array.size:
        raise MetricError(f"the {name} were of shape {array.shape}. Give one row a clip, and at least one.")
    if not np.isfinite(array).all():
        raise MetricError(
            f"the {name} are not all finite: row {np.argwhere(~np.isfinite(array))[0][0]} is not."
        )
    return array


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
        x = matrix(generated, "generated embeddings")
        y = matrix(reference, "reference embeddings")
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
        """Distance on these clips, which may be named more than once; on all clips by default.

        A clip drawn twice is never compared with itself, so that draws are as unbiased as the sample.
        """
        n = len(self._xx)
        times = np.ones(n) if clips is None else np.bincount(clips, minlength=n).astype(np.float64)
        pairs = times.sum() ** 2 - (times**2).sum()
        if pairs == 0:
            return float("nan")
        within = (times @ self._xx @ times + times @ self._yy @ times) / pairs
        between = times @ self._xy @ times / times.sum() ** 2
        return float(100.0 * (within - 2 * between))


def _squared_distances(x: Array, y: Array) -> Array:
    squared = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1)[None] - 2 * x @ y.T
    return np.maximum(squared, 0.0)
