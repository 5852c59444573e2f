"""From the scores of rows and seeds to a metric's figures: one measure, the same clips, the same draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stav2a.comparison.errors import ComparisonError
from stav2a.comparison.rows import Row
from stav2a.comparison.statistics import Array, Figures
from stav2a.metrics import bootstrap
from stav2a.metrics.sets import Score

DIRECTIONS = {True: "higher", False: "lower"}


class Place(NamedTuple):
    """Where a score comes from."""

    row: str
    seed: int

    def __str__(self) -> str:
        return f"{self.row}, seed {self.seed}"


@dataclass(frozen=True)
class Gathered:
    """One metric of all rows that have it.

    Args:
        scores: Row and seed -> its score.
        figures: Row -> its figures.
        clips: How many clips all of them rest on.
        left_out: Clip -> why it is not among them.
    """

    scores: Mapping[Place, Score]
    figures: Mapping[str, Figures]
    clips: int
    left_out: Mapping[str, str]


def why_absent(rows: Sequence[Row], metric: str) -> str | None:
    """Why there is nothing to compare; None where there is something."""
    named = [score for row in rows for score in row.named(metric).values()]
    if not named:
        known = dict.fromkeys(s.name for row in rows for scores in row.scores.values() for s in scores)
        return f"no row has such a score; there are: {', '.join(known) or 'none'}"
    measured = [score for score in named if score.unavailable is None]
    if not measured:
        return "; ".join(dict.fromkeys(score.unavailable for score in named if score.unavailable))
    if _by_clip(measured) and not _in_common(measured):
        return "no clip has a value in all rows and seeds"
    return None


def gather(rows: Sequence[Row], metric: str, direction: str, *, resamples: int, seed: int) -> Gathered:
    """One metric's figures, of the clips that all rows and seeds have.

    Raises:
        ComparisonError: Scores of different measures, or of another direction than is said.
    """
    scores = {Place(row.name, at): score for row in rows for at, score in row.measured(metric).items()}
    _check_direction(metric, direction, next(iter(scores.values())))
    means = _by_clip(list(scores.values()))
    _check_alike(metric, {place: s.measure if means else s.definition for place, s in scores.items()})
    return _of_means(scores, resamples, seed) if means else _of_statistics(scores, resamples)


def _of_means(scores: Mapping[Place, Score], resamples: int, seed: int) -> Gathered:
    clips = _in_common(list(scores.values()))
    values = [np.array([(score.per_clip or {})[clip] for clip in clips]) for score in scores.values()]
    draws = bootstrap.resampled_means(values, resamples, seed) if len(clips) > 1 else None
    means = dict(zip(scores, [float(row.mean()) for row in values], strict=True))
    return Gathered(
        scores=scores,
        figures=_by_row(means, None if draws is None else dict(zip(scores, draws, strict=True))),
        clips=len(clips),
        left_out=_left_out(scores, set(clips)),
    )


def _of_statistics(scores: Mapping[Place, Score], resamples: int) -> Gathered:
    """Figures of the whole set. Their draws are in the scores, and repeat where there are too few."""
    draws = {
        place: np.resize(bootstrap.centred(score.replicates, score.value), resamples)
        for place, score in scores.items()
        if score.replicates
    }
    return Gathered(
        scores=scores,
        figures=_by_row(
            {place: score.value for place, score in scores.items()},
            draws if len(draws) == len(scores) else None,
        ),
        clips=next(iter(scores.values())).n,
        left_out={},
    )


def _by_row(values: Mapping[Place, float], draws: Mapping[Place, Array] | None) -> dict[str, Figures]:
    return {
        row: Figures(
            values={at.seed: value for at, value in values.items() if at.row == row},
            draws=None if draws is None else {at.seed: d for at, d in draws.items() if at.row == row},
        )
        for row in dict.fromkeys(place.row for place in values)
    }


def _by_clip(scores: Sequence[Score]) -> bool:
    return all(score.per_clip is not None for score in scores)


def _in_common(scores: Sequence[Score]) -> list[str]:
    everywhere = set.intersection(*(set(score.per_clip or ()) for score in scores))
    return [clip for clip in scores[0].per_clip or () if clip in everywhere]


def _left_out(scores: Mapping[Place, Score], kept: set[str]) -> dict[str, str]:
    """Each clip's first reason, in the order of rows and seeds."""
    known = dict.fromkeys(
        clip for score in scores.values() for clip in (*(score.per_clip or ()), *score.left_out)
    )
    return {clip: _reason(scores, clip) for clip in known if clip not in kept}


def _reason(scores: Mapping[Place, Score], clip: str) -> str:
    without = {place: score for place, score in scores.items() if clip not in (score.per_clip or ())}
    place, score = next(iter(without.items()))
    reason = score.left_out.get(clip, "not among its clips").rstrip(".")
    return reason if len(without) == len(scores) else f"{reason} ({place})"


def _check_direction(metric: str, direction: str, score: Score) -> None:
    own = DIRECTIONS[score.higher_is_better]
    if direction != own:
        raise ComparisonError(
            f"of {metric}, {direction!r} was said to be better, but {score.label} says {own!r}. "
            f"Write {metric!r}: {own!r}."
        )


def _check_alike(metric: str, measures: Mapping[Place, str]) -> None:
    (first, expected), *others = measures.items()
    for place, measure in others:
        if measure != expected:
            raise ComparisonError(
                f"{metric} is not the same thing in all rows.\n  {first}: {expected}\n  {place}: {measure}\n"
                "Evaluate them in the same way, on the same clips."
            )
