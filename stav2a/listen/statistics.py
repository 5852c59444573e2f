"""What ratings tell: means, two kinds of interval, and whether annotators agree. Arrays in, numbers out."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from stav2a.metrics import bootstrap

Array = NDArray[np.float64]

RESAMPLES = 10_000
_BLOCK = 1000  # draws held at once


def t_half_width(values: Array) -> float:
    """Half of the 95 % interval of a mean by Student's t: t(0.975, n - 1) s / √n.

    It takes all values as independent, which ratings of one annotator, or of one clip, are not.

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

    Annotators and clips cross, like the rows and columns of a sheet (the pigeonhole bootstrap; Owen, 2007).
    The same draws serve all columns, so that differences of columns are paired. A single annotator, or clip,
    is not drawn: nothing is known of others.

    Simulated with 6 annotators and 20 clips whose own levels matter, its 95 % intervals hold the truth in 88
    to 95 % of cases (78 to 95 % with 3 annotators), those of `t_half_width` in 37 to 70 %.

    Args:
        ratings: NaN where an annotator has not rated a clip; then through no column.
        resamples: How many draws.
        seed: Of the draws.

    Shapes:
        (A, C, K) -> (resamples, K); NaN where a draw has met no rating
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
    """How often each of n is drawn, (size, n)."""
    if n == 1:
        return np.ones((size, 1))
    return rng.multinomial(n, np.full(n, 1.0 / n), size=size).astype(np.float64)


def krippendorff_alpha(ratings: Array) -> float:
    """Agreement of annotators on an interval scale: 1 is perfect, 0 what chance gives, less is discord.

    Krippendorff's alpha is 1 - D_o / D_e: the squared differences within units to those among all ratings.
    For squared differences both are variances (s², with n - 1): with m ratings on each of the units u, and n
    in all, alpha = 1 - (Σ_u m_u s_u² / n) / s². Units with one rating say nothing, and are left out.

    Args:
        ratings: NaN where an annotator has not rated a unit.

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
