"""From ratings to the figures of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from stav2a.evaluation.comparison import Estimate
from stav2a.listening.database import NAMES, Rating
from stav2a.listening.material import ListenError
from stav2a.listening.setup import ListeningTest
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


@dataclass(frozen=True)
class Figure:
    """One system on one scale.

    Args:
        estimate: Mean, and the ends of its cluster bootstrap interval where there is one.
        half: Half of its t interval; NaN for a single rating.
        difference: Less the first system, on the same annotators and clips; None for the first system.
    """

    estimate: Estimate
    half: float
    difference: Estimate | None


@dataclass(frozen=True)
class Analysis:
    """What came of a test.

    Args:
        systems: Their names, in the table's order.
        figures: System and scale -> its figure.
        agreement: Scale -> Krippendorff's alpha; NaN where it is not known.
        n: Ratings behind each figure: how often an annotator has rated a clip through all systems.
        annotators: How many annotators they are from.
        clips: How many clips they are of.
        progress: Annotator -> how many clips are rated through all systems.
        total: How many clips the test has.
    """

    systems: Sequence[str]
    figures: Mapping[tuple[str, str], Figure]
    agreement: Mapping[str, float]
    n: int
    annotators: int
    clips: int
    progress: Mapping[str, int]
    total: int


def analyse(test: ListeningTest, ratings: Sequence[Rating]) -> Analysis:
    """All figures of a table.

    A clip counts for an annotator once all four scales are rated through all systems, each played to its end:
    so all systems are judged by the same annotators on the same clips.

    Raises:
        ListenError: No clip is rated through all systems yet.
    """
    names = sorted({rating.annotator for rating in ratings})
    sheet = _complete(_sheet(test, names, ratings))  # (A, C, S, 4)
    done = np.isfinite(sheet[..., 0, 0])
    if not done.any():
        raise ListenError(
            f"{test.folder}: nobody has rated a clip through all {len(test.systems)} systems yet. "
            "Rate one first."
        )
    kept = sheet[done.any(axis=1)][:, done.any(axis=0)]
    return Analysis(
        systems=test.systems,
        figures=_figures(test.systems, kept),
        agreement={
            scale: krippendorff_alpha(kept[..., i].reshape(len(kept), -1)) for i, scale in enumerate(NAMES)
        },
        n=int(done.sum()),
        annotators=kept.shape[0],
        clips=kept.shape[1],
        progress={name: int(row.sum()) for name, row in zip(names, done, strict=True)},
        total=len(test.clips),
    )


def _sheet(test: ListeningTest, names: Sequence[str], ratings: Sequence[Rating]) -> Array:
    """Annotators by clips by systems by scales; NaN where there is no rating of a video that was heard."""
    sheet = np.full((len(names), len(test.clips), len(test.systems), len(NAMES)), np.nan)
    places = [{name: i for i, name in enumerate(axis)} for axis in (names, test.clips, test.systems, NAMES)]
    for each in ratings:
        if each.heard:
            keys = (each.annotator, each.clip, each.system, each.scale)
            sheet[tuple(place[key] for place, key in zip(places, keys, strict=True))] = each.value
    return sheet


def _complete(sheet: Array) -> Array:
    """Clips that an annotator has not rated through all systems are no ratings at all."""
    whole = np.isfinite(sheet).all(axis=(2, 3), keepdims=True)
    return np.where(whole, sheet, np.nan)


def _figures(systems: Sequence[str], sheet: Array) -> dict[tuple[str, str], Figure]:
    draws = cluster_draws(sheet.reshape(*sheet.shape[:2], -1)).reshape(-1, *sheet.shape[2:])  # (B, S, 4)
    drawn = sheet.shape[0] > 1 or sheet.shape[1] > 1
    found = {}
    for s, system in enumerate(systems):
        for k, scale in enumerate(NAMES):
            own, first = (_known(sheet[:, :, which, k]) for which in (s, 0))
            found[system, scale] = Figure(
                estimate=_estimate(own, draws[:, s, k], drawn),
                half=t_half_width(own),
                difference=_estimate(own - first, draws[:, s, k] - draws[:, 0, k], drawn) if s else None,
            )
    return found


def _known(values: Array) -> Array:
    return values[np.isfinite(values)]


def _estimate(values: Array, draws: Array, drawn: bool) -> Estimate:
    low, high = bootstrap.ends(draws) if drawn else (None, None)
    return Estimate(float(values.mean()), low, high, {})
