"""Statistics of a listening test: means with two kinds of intervals, differences, agreement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from stav2a.evaluation.comparison import Estimate
from stav2a.listening.database import NAMES, ListenError, Rating
from stav2a.listening.setup import ListeningTest
from stav2a.metrics import bootstrap

Array = NDArray[np.float64]
RESAMPLES = 10_000
_BLOCK = 1000  # draws in memory at once


def t_half_width(values: Array) -> float:
    """Half of the 95 % interval of a mean by Student's t: t(0.975, n - 1) s / √n.

    All values are taken as independent, which ratings of one annotator, or of one clip, are not.

    Returns:
        NaN for fewer than two values.

    Example:
        >>> round(t_half_width(np.array([1.0, 2.0, 3.0])), 4)  # 4.3027 · 1 / √3
        2.4841
    """
    n = len(values)
    if n < 2:
        return float("nan")
    return float(student.ppf((1 + bootstrap.CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))


def cluster_draws(ratings: Array, *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Means over annotators and clips that are both drawn with replacement, independently.

    Annotators and clips cross, like the rows and columns of a table (the pigeonhole bootstrap; Owen, 2007).
    The same draws serve all columns, so that differences of columns are paired. A single annotator, or clip,
    is not drawn: nothing is known of others.

    Simulated with 6 annotators and 20 clips whose own levels matter, its 95 % intervals contain the truth in
    88 to 95 % of cases (78 to 95 % with 3 annotators), those of `t_half_width` in 37 to 70 %.

    Args:
        ratings: Ratings; NaN in all columns where an annotator has not rated a clip.
        resamples: Number of draws.
        seed: Seed of the draws.

    Shapes:
        (A, C, K) -> (resamples, K); NaN where a draw contains no rating
    """
    annotators, clips, _ = ratings.shape
    rng = np.random.default_rng(seed)
    known = np.isfinite(ratings[..., 0])
    filled = np.where(known[..., None], ratings, 0.0)
    parts = []
    for start in range(0, resamples, _BLOCK):
        size = min(_BLOCK, resamples - start)
        by_annotator, by_clip = _weights(rng, annotators, size), _weights(rng, clips, size)
        total = np.einsum("ba,bc,ack->bk", by_annotator, by_clip, filled, optimize=True)
        count = np.einsum("ba,bc,ac->b", by_annotator, by_clip, known.astype(float), optimize=True)
        parts.append(total / np.where(count > 0, count, np.nan)[:, None])
    return np.concatenate(parts)


def _weights(rng: np.random.Generator, n: int, size: int) -> Array:
    """Number of times that each of n is drawn: (size, n)."""
    if n == 1:
        return np.ones((size, 1))
    return rng.multinomial(n, np.full(n, 1.0 / n), size=size).astype(np.float64)


def krippendorff_alpha(ratings: Array) -> float:
    """Agreement of annotators on an interval scale: 1 is perfect, 0 is chance, less is disagreement.

    Krippendorff's alpha is 1 - D_o / D_e: the squared differences within units to those among all ratings.
    For squared differences both are variances (s², with n - 1): with m ratings on each of the units u, and n
    in all, alpha = 1 - (Σ_u m_u s_u² / n) / s². Units with one rating are left out.

    Args:
        ratings: Ratings; NaN where an annotator has not rated a unit.

    Shapes:
        (A, U) -> a number; NaN without two annotators on any unit, or if all ratings are the same

    Example:
        >>> krippendorff_alpha(np.array([[10.0, 20.0], [10.0, 20.0]]))
        1.0
    """
    units = [unit[np.isfinite(unit)] for unit in ratings.T]
    paired = [unit for unit in units if len(unit) > 1]
    if not paired:
        return float("nan")
    every = np.concatenate(paired)
    among = every.var(ddof=1)
    within = sum(len(unit) * unit.var(ddof=1) for unit in paired) / len(every)
    return float(1 - within / among) if among > 0 else float("nan")


@dataclass(frozen=True)
class ScaleMean:
    """One system's mean rating on one scale.

    Args:
        mean: Mean, and the ends of its cluster bootstrap interval where there is one.
        t_half_width: Half of its t interval; NaN for a single rating.
        difference: Difference to the first system, on the same annotators and clips; None for the first.
    """

    mean: Estimate
    t_half_width: float
    difference: Estimate | None


@dataclass(frozen=True)
class RatingAnalysis:
    """Results of a test.

    Args:
        test: The test.
        means: Mean by system and scale.
        best: The system by scale whose paired differences to all others exclude 0, where there is one.
        agreement: Krippendorff's alpha by scale; NaN where it is not known.
        n: Number of ratings behind each mean: pairs of annotator and clip that are rated through all systems.
        annotators: Number of annotators behind them.
        clips: Number of clips behind them.
        progress: Number of clips that each annotator has rated through all systems.
    """

    test: ListeningTest
    means: Mapping[tuple[str, str], ScaleMean]
    best: Mapping[str, str]
    agreement: Mapping[str, float]
    n: int
    annotators: int
    clips: int
    progress: Mapping[str, int]


def analyse(test: ListeningTest, ratings: Sequence[Rating]) -> RatingAnalysis:
    """All numbers of the tables.

    A clip counts for an annotator once all four scales are rated through all systems, each played to its end:
    so all systems are judged by the same annotators on the same clips.

    Raises:
        ListenError: No clip is rated through all systems yet.
    """
    annotators = sorted({rating.annotator for rating in ratings})
    axes = (annotators, test.clips, test.systems, NAMES)
    indices = [{name: i for i, name in enumerate(axis)} for axis in axes]
    values = np.full([len(axis) for axis in axes], np.nan)  # (A, C, S, 4)
    for rating in ratings:
        if rating.played:
            key = (rating.annotator, rating.clip, rating.system, rating.scale)
            values[tuple(index[name] for index, name in zip(indices, key, strict=True))] = rating.value
    complete = np.isfinite(values).all(axis=(2, 3))  # (A, C)
    if not complete.any():
        raise ListenError(
            f"{test.folder}: no clip is rated through all {len(test.systems)} systems yet. Rate one first."
        )
    values = np.where(complete[..., None, None], values, np.nan)
    values = values[complete.any(axis=1)][:, complete.any(axis=0)]

    draws = cluster_draws(values.reshape(*values.shape[:2], -1)).reshape(-1, *values.shape[2:])  # (B, S, 4)
    drawn = max(values.shape[:2]) > 1  # one rating has no interval

    def estimate(ratings: Array, draws: Array) -> Estimate:
        low, high = bootstrap.ends(draws) if drawn else (None, None)
        return Estimate(float(ratings.mean()), low, high, {})

    def rated(s: int, k: int) -> Array:
        return values[:, :, s, k][np.isfinite(values[:, :, s, k])]

    def less(s: int, other: int, k: int) -> Estimate:
        """Difference of two systems on one scale."""
        return estimate(rated(s, k) - rated(other, k), draws[:, s, k] - draws[:, other, k])

    means, best = {}, {}
    for s, system in enumerate(test.systems):
        for k, scale in enumerate(NAMES):
            own = estimate(rated(s, k), draws[:, s, k])
            means[system, scale] = ScaleMean(own, t_half_width(rated(s, k)), less(s, 0, k) if s else None)
            others = [less(s, other, k) for other in range(len(test.systems)) if other != s]
            if others and all(each.excludes_zero and each.value > 0 for each in others):
                best[scale] = system
    return RatingAnalysis(
        test=test,
        means=means,
        best=best,
        agreement={
            scale: krippendorff_alpha(values[..., k].reshape(len(values), -1))
            for k, scale in enumerate(NAMES)
        },
        n=int(complete.sum()),
        annotators=values.shape[0],
        clips=values.shape[1],
        progress={name: int(row.sum()) for name, row in zip(annotators, complete, strict=True)},
    )
