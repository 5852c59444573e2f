"""From rows to one comparison."""

import math
from collections.abc import Mapping, Sequence

from stav2a.comparison.errors import ComparisonError
from stav2a.comparison.gathering import DIRECTIONS, Gathered, gather, why_absent
from stav2a.comparison.results import Cell, Comparison, Difference, Metric, verdict
from stav2a.comparison.rows import Row
from stav2a.comparison.statistics import estimate

Published = Mapping[str, Mapping[str, float]]


def compare(
    rows: Sequence[Row],
    *,
    metrics: Mapping[str, str],
    baseline: str,
    published: Published | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare rows over their seeds, each with a baseline and with the row that it builds on.

    A row without scores stays in the comparison, with the reason; so does a metric that nobody has.

    Args:
        rows: In the table's order.
        metrics: Score name -> "higher" or "lower", whichever is better.
        baseline: The name of the row that all are compared with.
        published: Row -> metric -> a published figure, for the rows that have one.
        resamples: Draws of seeds and clips for the intervals.
        seed: Of the draws.

    Raises:
        ComparisonError: A baseline, a step or a direction that there is not, two rows of one name, or scores
            that don't measure the same thing.

    Example:
        >>> from stav2a.metrics.sets import Score
        >>> def row(name, *values):
        ...     clips = {f"clip{i}": value for i, value in enumerate(values)}
        ...     return Row(name, {0: [Score(name="aa", label="AA", definition="hits", higher_is_better=True,
        ...                                 per_clip=clips)]})
        >>> both = compare([row("CN", 0.0, 0.5), row("CN+Onset", 0.25, 0.75)], metrics={"aa": "higher"},
        ...                baseline="CN")
        >>> found = both.cells["CN+Onset", "aa"].to_baseline.estimate
        >>> found.value, found.low, found.high
        (0.25, 0.25, 0.25)
    """
    _check(rows, metrics, baseline)
    reasons = {name: why_absent(rows, name) for name in metrics}
    gathered = {
        name: gather(rows, name, metrics[name], resamples=resamples, seed=seed)
        for name, reason in reasons.items()
        if reason is None
    }
    published = published or {}
    return Comparison(
        rows=[row.name for row in rows],
        metrics=[_metric(name, found) for name, found in gathered.items()],
        cells={
            (row.name, name): _cell(row, name, found, baseline, published, seed)
            for name, found in gathered.items()
            for row in rows
            if row.name in found.figures
        },
        baseline=baseline,
        builds_on={row.name: row.builds_on for row in rows if row.builds_on},
        seeds={row.name: sorted(row.scores) for row in rows},
        missing={row.name: dict(row.missing) for row in rows if row.missing},
        absent={name: reason for name, reason in reasons.items() if reason is not None},
        lacking=_lacking(rows, gathered),
        published={row: dict(figures) for row, figures in published.items()},
        resamples=resamples,
    )


def _metric(name: str, found: Gathered) -> Metric:
    scores = list(found.scores.values())
    chances = [score.chance for score in scores if score.chance is not None]
    beside = {
        key: value
        for key, value in scores[0].details.items()
        if all(math.isclose(score.details.get(key, math.nan), value, rel_tol=1e-6) for score in scores)
    }
    return Metric(
        name=name,
        label=scores[0].label,
        measure=scores[0].measure,
        higher_is_better=scores[0].higher_is_better,
        clips=found.clips,
        left_out=found.left_out,
        chance=(min(chances), max(chances)) if chances else None,
        beside=beside if len(scores) > 1 else {},
        drawn=all(figures.draws is not None for figures in found.figures.values()),
    )


def _cell(row: Row, metric: str, found: Gathered, baseline: str, published: Published, seed: int) -> Cell:
    return Cell(
        estimate=estimate(found.figures[row.name], seed),
        published=published.get(row.name, {}).get(metric),
        to_baseline=_difference(row.name, baseline, metric, found, published, seed),
        to_step=_difference(row.name, row.builds_on, metric, found, published, seed),
    )


def _difference(
    row: str, against: str | None, metric: str, found: Gathered, published: Published, seed: int
) -> Difference | None:
    if against is None or against == row or against not in found.figures:
        return None
    figures = found.figures[row].minus(found.figures[against])
    if not figures.values:  # no seed in common
        return None
    ours, theirs = estimate(figures, seed), _published_difference(row, against, metric, published)
    return Difference(against, ours, theirs, verdict(ours, theirs))


def _published_difference(row: str, against: str, metric: str, published: Published) -> float | None:
    """Rounded, so that 0.692 - 0.669 is 0.023."""
    figures = [published.get(name, {}).get(metric) for name in (row, against)]
    if figures[0] is None or figures[1] is None:
        return None
    return round(figures[0] - figures[1], 9)


def _lacking(rows: Sequence[Row], gathered: Mapping[str, Gathered]) -> dict[tuple[str, str], str]:
    """Reasons of the rows that have scores, but not this one."""
    return {
        (row.name, name): next(
            (score.unavailable for score in row.named(name).values() if score.unavailable), "not measured"
        )
        for name, found in gathered.items()
        for row in rows
        if row.scores and row.name not in found.figures
    }


def _check(rows: Sequence[Row], metrics: Mapping[str, str], baseline: str) -> None:
    names = [row.name for row in rows]
    known = f"The rows are: {', '.join(names) or 'none'}."
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ComparisonError(f"two rows are named {twice[0]!r}. Give each row a name of its own.")
    if baseline not in names:
        raise ComparisonError(f"the baseline {baseline!r} is not a row. {known}")
    for row in rows:
        if row.builds_on is not None and row.builds_on not in names:
            raise ComparisonError(f"{row.name!r} builds on {row.builds_on!r}, which is not a row. {known}")
    for metric, direction in metrics.items():
        if direction not in DIRECTIONS.values():
            raise ComparisonError(
                f"the better direction of {metric!r} was {direction!r}. Write 'higher' or 'lower'."
            )
