"""Intervals of figures over clips, and their levels by chance. Arrays in, numbers out.

NaN marks a clip that has no value; it is left out, here as in the mean.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stav2a.metrics.score import MetricError

Array = NDArray[np.float64]
CONFIDENCE = 0.95
_CELLS = 1 << 22  # weights in memory at once


class Interval(NamedTuple):
    """Two ends; NaN where there are too few clips."""

    low: float
    high: float


class Corrected(NamedTuple):
    """A score on the scale from chance (0) to perfect (1), and its interval."""

    value: float
    low: float
    high: float


NO_INTERVAL = Interval(float("nan"), float("nan"))


def mean_interval(values: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """95 % percentile bootstrap interval of a mean over clips.

    Args:
        values: One value a clip, or NaN.
        resamples: Number of draws of the clips, with replacement.
        seed: Seed of the draws.

    Shapes:
        (N,) -> two ends; NaN when fewer than two clips have a value

    Example:
        >>> mean_interval([0.5, 0.5, 0.5])
        Interval(low=0.5, high=0.5)
    """
    row = _row(values)
    if np.isfinite(row).sum() < 2:
        return NO_INTERVAL
    return ends(resampled_means([row], resamples, seed)[0])


def replicates(
    statistic: Callable[[NDArray[np.int64]], float], n: int, *, resamples: int = 300, seed: int = 0
) -> Array:
    """Values of a statistic of the whole set (FD, IS) on each draw of n clips, not centred.

    Which clips are drawn depends on `n`, `resamples` and `seed` alone: the replicates of two models on the
    same clips are pairs, and their differences are the replicates of the difference.

    Args:
        statistic: Function of the indices of the clips drawn.
        n: Number of clips.
        resamples: Number of draws of the clips.
        seed: Seed of the draws.

    Shapes:
        -> (resamples,); none for a single clip

    Example:
        >>> x = np.random.default_rng(0).normal(size=200)
        >>> low, high = ends(centred(replicates(lambda clips: x[clips].std(), 200), x.std()))
        >>> bool(low < x.std() < high)
        True
    """
    rng = np.random.default_rng(seed)
    times = resamples if n > 1 else 0
    return np.array([statistic(rng.integers(n, size=n)) for _ in range(times)], dtype=np.float64)


def centred(drawn: ArrayLike, value: float) -> Array:
    """Replicates of a statistic of the whole set, moved onto the set's own value.

    Drawing with replacement adds to FD or IS the same bias again that n clips gave it already: the plain
    percentiles of FD lie wholly above FD. So they are moved by the mean's excess. The resulting interval is
    of the statistic *at this n*, its bias not removed; with few clips for the dimensions it is too wide, by
    half in the worst case simulated.

    Example:
        >>> centred([3.0, 5.0], 1.0).tolist()
        [0.0, 2.0]
    """
    row = np.asarray(drawn, dtype=np.float64)
    return row - row.mean() + value if row.size else row


def derangements(n: int, count: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Shuffles of n clips in which no clip keeps its place, and no two shuffles make the same pair.

    They are turns of one random ring, so there are n - 1 at most: then all pairs are made once.

    Args:
        n: Number of clips.
        count: Number of shuffles, if there are as many.
        seed: Seed of the ring and the turns.

    Shapes:
        -> (min(count, n - 1), n) indices; none for one clip

    Example:
        >>> derangements(2, 5)
        array([[1, 0]])
    """
    rng = np.random.default_rng(seed)
    ring = rng.permutation(n)
    turns = rng.permutation(np.arange(1, n))[:count]
    shuffles = np.empty((len(turns), n), dtype=np.int64)
    for shuffle, turn in zip(shuffles, turns, strict=True):
        shuffle[ring] = np.roll(ring, turn)
    return shuffles


def chance_levels(score: Callable[[int, int], float], n: int, *, shuffles: int = 20, seed: int = 0) -> Array:
    """Each clip's mean score against other clips: its level if it were not aligned with its own reference.

    Args:
        score: Score of the generated clip i against the reference of clip j; NaN is left out.
        n: Number of clips.
        shuffles: Number of other clips for each clip, at most n - 1; see `derangements`.
        seed: Seed of the shuffles.

    Shapes:
        -> (n,); NaN where a clip has no score with any other

    Example:
        >>> chance_levels(lambda i, j: float(j), 3)
        array([1.5, 1. , 0.5])
    """
    pairs = derangements(n, shuffles, seed=seed)
    scores = np.array([[score(i, int(j)) for i, j in enumerate(shuffle)] for shuffle in pairs])
    return nan_mean(scores.reshape(len(pairs), n), axis=0)


def corrected_for_chance(
    values: ArrayLike, chances: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> Corrected:
    """Score corrected for chance, (mean - chance) / (1 - chance), with a 95 % interval over clips.

    Each clip is drawn together with its own level by chance.

    Args:
        values: One score a clip, or NaN; 1 is perfect.
        chances: Each clip's level by chance, as `chance_levels` gives it.
        resamples: Number of draws of the clips.
        seed: Seed of the draws.

    Shapes:
        (N,), (N,) -> a value and two ends; NaN where chance is 1 or more, or no clip has a value

    Example:
        >>> corrected_for_chance([0.6, 0.8], [0.2, 0.2]).value.__round__(6)
        0.625
    """
    row, chance = _row(values), _row(chances)
    if row.shape != chance.shape:
        raise MetricError(f"{len(row)} values and {len(chance)} chance levels. Give one of each a clip.")
    value = _correct(nan_mean(row), nan_mean(chance))
    if np.isfinite(row).sum() < 2:
        return Corrected(float(value), *NO_INTERVAL)
    means = resampled_means([row, chance], resamples, seed)
    return Corrected(float(value), *ends(_correct(means[0], means[1])))


def nan_mean(values: Array, axis: int | None = None) -> Array:
    """Mean of the values that are not NaN; NaN where there is none, without a warning."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=axis), known.sum(axis=axis))


def _correct(value: Array, chance: Array) -> Array:
    room = 1.0 - chance
    return np.where(room > 1e-12, _ratio(value - chance, np.where(room > 1e-12, room, 0.0)), np.nan)


def _ratio(above: Array, below: Array) -> Array:
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)


def resampled_means(rows: Sequence[Array], resamples: int, seed: int) -> Array:
    """Means of several rows over the same draws of clips; NaN is left out.

    Shapes:
        R times (N,) -> (R, resamples)
    """
    rng = np.random.default_rng(seed)
    n = len(rows[0])
    known = [np.isfinite(row) for row in rows]
    filled = [np.where(k, row, 0.0) for row, k in zip(rows, known, strict=True)]
    chunks = []
    for start in range(0, resamples, step := max(1, _CELLS // n)):
        weights = rng.multinomial(n, np.full(n, 1.0 / n), size=min(step, resamples - start)).astype(
            np.float64
        )
        chunks.append([_ratio(weights @ f, weights @ k) for f, k in zip(filled, known, strict=True)])
    return np.concatenate(chunks, axis=1)


def ends(drawn: Array) -> Interval:
    """Ends of the 95 % interval, which leaves out the same share of the draws on either side."""
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return NO_INTERVAL
    tail = (1.0 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def _row(values: ArrayLike) -> Array:
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1 or not row.size:
        raise MetricError(f"the values were of shape {row.shape}. Give a row of one value a clip.")
    return row
