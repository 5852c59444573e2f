"""From ratings to the figures of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stav2a.comparison.statistics import Estimate
from stav2a.listen.database import Rating
from stav2a.listen.errors import ListenError
from stav2a.listen.folder import ListeningTest
from stav2a.listen.scales import NAMES
from stav2a.listen.statistics import Array, cluster_draws, krippendorff_alpha, t_half_width
from stav2a.metrics import bootstrap


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
