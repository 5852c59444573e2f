"""From rows to one comparison."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stav2a.metrics import bootstrap
from stav2a.metrics.score import Score
from stav2a.utils.errors import StaV2AError


class ComparisonError(StaV2AError):
    """These scores can't be compared as asked. Says what came, what was expected, what to do."""


@dataclass(frozen=True)
class ComparedRow:
    """One row: the same recipe, trained and measured with several seeds.

    Args:
        name: As in the table.
        scores: Seed -> its scores on the held-out clips, which are the same for all rows and seeds.
        builds_on: The row that this one changes by a step, or None.
        missing: Seed -> why it has no scores.
    """

    name: str
    scores: Mapping[int, Sequence[Score]]
    builds_on: str | None = None
    missing: Mapping[int, str] = field(default_factory=dict)

    def named(self, metric: str) -> dict[int, Score]:
        """Seed -> its score of this name, measured or not."""
        found = {seed: [s for s in scores if s.name == metric] for seed, scores in self.scores.items()}
        return {seed: scores[0] for seed, scores in sorted(found.items()) if scores}

    def measured(self, metric: str) -> dict[int, Score]:
        """Seed -> its score of this name, where there is a figure."""
        return {seed: score for seed, score in self.named(metric).items() if score.unavailable is None}


Array = NDArray[np.float64]


@dataclass(frozen=True)
class Figures:
    """One figure of a row, or of a difference: by seed, and by seed over many draws of the clips.

    Args:
        values: Seed -> its figure on the clips.
        draws: Seed -> its figure on each draw of the clips (B,), the same draws for all seeds and rows; None
            where they are not known.
    """

    values: Mapping[int, float]
    draws: Mapping[int, Array] | None

    def minus(self, other: "Figures") -> "Figures":
        """The difference, pair by pair: of the seeds that both sides have, draw by draw."""
        seeds = [seed for seed in self.values if seed in other.values]
        return Figures(
            values={seed: self.values[seed] - other.values[seed] for seed in seeds},
            draws={seed: self.draws[seed] - other.draws[seed] for seed in seeds}
            if self.draws is not None and other.draws is not None
            else None,
        )


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and the ends of its 95 % interval over seeds and clips.

    Args:
        value: The mean.
        low: Lower end; None where the interval is not known.
        high: Upper end.
        by_seed: Seed -> its own figure.
    """

    value: float
    low: float | None
    high: float | None
    by_seed: Mapping[int, float]

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval; an end of 0 is inside. False where there is no interval."""
        if self.low is None or self.high is None:
            return False
        return not self.low <= 0 <= self.high


def estimate(figures: Figures, seed: int = 0) -> Estimate:
    """Mean and interval of figures of one seed or more.

    Example:
        >>> same = np.array([0.5, 0.5])
        >>> estimate(Figures({0: 0.5, 1: 0.5}, {0: same, 1: same}))
        Estimate(value=0.5, low=0.5, high=0.5, by_seed={0: 0.5, 1: 0.5})
    """
    value = float(np.mean(list(figures.values.values())))
    if figures.draws is None:
        return Estimate(value, None, None, dict(figures.values))
    drawn = over_seeds(np.stack([figures.draws[each] for each in figures.values]), seed)
    low, high = bootstrap.ends(drawn)
    return Estimate(value, low, high, dict(figures.values))


def over_seeds(draws: Array, seed: int = 0) -> Array:
    """Means over seeds drawn with replacement, one for each draw of the clips.

    S seeds drawn from S have a spread that is too small by (S - 1) / S, a third for three seeds: the part
    that the seeds add is stretched by the root of S / (S - 1), so that its variance is unbiased. A single
    seed adds nothing, for nothing is known of the others.

    Few seeds stay few: simulated with three, 95 % intervals hold the truth in 96 % of cases where clips alone
    decide, in 91 % where seeds weigh as much, in 84 % where seeds alone do (75 % if they were not stretched).

    Args:
        draws: The figure of each seed on each draw of the clips.
        seed: Of the drawing of seeds.

    Shapes:
        (S, B) -> (B,)
    """
    seeds, count = draws.shape
    mean = draws.mean(axis=0)
    if seeds == 1:
        return mean
    # A stream of its own: draws of seeds must not follow the draws of clips.
    rng = np.random.default_rng((seed, seeds))
    shares = rng.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=count).T / seeds  # (S, B)
    return mean + np.sqrt(seeds / (seeds - 1)) * ((shares * draws).sum(axis=0) - mean)


# Whether the paper's sign is ours too.
YES, NO, NOISE, UNKNOWN = "yes", "no", "within noise", "–"


@dataclass(frozen=True)
class ComparedMetric:
    """A column.

    Args:
        name: As in a score.
        label: As in a table.
        measure: What is measured, exactly.
        higher_is_better: Its direction.
        clips: How many clips all rows were measured on.
        left_out: Clip -> why it is not among them.
        chance: The least and the greatest level by chance of all rows, or None.
        beside: What is the same for all rows: "real sound" -> its own figure.
        drawn: Whether the draws over clips are known, so that there are intervals.
    """

    name: str
    label: str
    measure: str
    higher_is_better: bool
    clips: int
    left_out: Mapping[str, str]
    chance: tuple[float, float] | None
    beside: Mapping[str, float]
    drawn: bool

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↑" if self.higher_is_better else "↓"


@dataclass(frozen=True)
class Difference:
    """A row less another one, on the same seeds and clips.

    Args:
        against: The other row.
        estimate: Mean, interval, and the difference of each seed.
        published: The same difference of the published figures, or None.
        verdict: Whether the signs agree: `yes`, `no`, `within noise`; `–` where there are not two of them.
    """

    against: str
    estimate: Estimate
    published: float | None
    verdict: str


@dataclass(frozen=True)
class Cell:
    """One row's figure.

    Args:
        estimate: Mean over seeds, interval, and each seed's own figure.
        published: The published figure, or None.
        to_baseline: Its difference to the baseline; None for the baseline, and where one of them is missing.
        to_step: Its difference to the row it builds on, or None.
    """

    estimate: Estimate
    published: float | None
    to_baseline: Difference | None
    to_step: Difference | None


@dataclass(frozen=True)
class Comparison:
    """Rows by metrics.

    Args:
        rows: Names, in the table's order.
        metrics: Columns, in the table's order.
        cells: ComparedRow and metric name -> its cell. There is none where a row has no figure.
        baseline: The row that all are compared with.
        builds_on: ComparedRow -> the row that it changes by a step.
        seeds: ComparedRow -> the seeds it has scores of.
        missing: ComparedRow -> seed -> why there are none.
        absent: ComparedMetric -> why no row has it.
        lacking: ComparedRow and metric name -> why this row has no figure, though others have.
        published: ComparedRow -> metric -> figure, as given.
        resamples: Bootstrap draws.
    """

    rows: Sequence[str]
    metrics: Sequence[ComparedMetric]
    cells: Mapping[tuple[str, str], Cell]
    baseline: str
    builds_on: Mapping[str, str]
    seeds: Mapping[str, Sequence[int]]
    missing: Mapping[str, Mapping[int, str]]
    absent: Mapping[str, str]
    lacking: Mapping[tuple[str, str], str]
    published: Mapping[str, Mapping[str, float]]
    resamples: int

    @property
    def several_seeds(self) -> bool:
        """Whether any row has more than one."""
        return any(len(seeds) > 1 for seeds in self.seeds.values())

    @property
    def other_steps(self) -> bool:
        """Whether any row builds on another one than the baseline, so that steps tell something new."""
        return any(against != self.baseline for against in self.builds_on.values())

    def best(self, metric: ComparedMetric) -> str | None:
        """The row with the best figure."""
        values = {row: self.cells[row, metric.name].estimate.value for row in self.having(metric)}
        if not values:
            return None
        choose = max if metric.higher_is_better else min
        return choose(values, key=lambda row: values[row])

    def having(self, metric: ComparedMetric) -> list[str]:
        """The rows that have a figure."""
        return [row for row in self.rows if (row, metric.name) in self.cells]

    def difference(self, row: str, metric: ComparedMetric, kind: str) -> Difference | None:
        """A row's difference of a kind, `to_baseline` or `to_step`, if it has one."""
        cell = self.cells.get((row, metric.name))
        if cell is None:
            return None
        return {"to_baseline": cell.to_baseline, "to_step": cell.to_step}[kind]

    def differences(self, kind: str) -> list[Difference]:
        """All differences of a kind."""
        found = [self.difference(row, metric, kind) for row in self.rows for metric in self.metrics]
        return [difference for difference in found if difference]

    def tally(self, kind: str) -> dict[str, int]:
        """Verdict -> how many differences of a kind have it, of those that can have one."""
        verdicts = [difference.verdict for difference in self.differences(kind)]
        return {verdict: verdicts.count(verdict) for verdict in (YES, NO, NOISE)}


def verdict(estimate: Estimate, published: float | None) -> str:
    """Whether the sign of a published difference is ours.

    Example:
        >>> verdict(Estimate(0.2, 0.1, 0.3, {}), 0.02), verdict(Estimate(0.2, -0.1, 0.3, {}), 0.02)
        ('yes', 'within noise')
    """
    if not published or estimate.low is None:
        return UNKNOWN
    if not estimate.excludes_zero:
        return NOISE
    return YES if (estimate.value > 0) == (published > 0) else NO


DIRECTIONS = {True: "higher", False: "lower"}


class RowSeed(NamedTuple):
    """Where a score comes from."""

    row: str
    seed: int

    def __str__(self) -> str:
        return f"{self.row}, seed {self.seed}"


@dataclass(frozen=True)
class MetricFigures:
    """One metric of all rows that have it.

    Args:
        scores: ComparedRow and seed -> its score.
        figures: ComparedRow -> its figures.
        clips: How many clips all of them rest on.
        left_out: Clip -> why it is not among them.
    """

    scores: Mapping[RowSeed, Score]
    figures: Mapping[str, Figures]
    clips: int
    left_out: Mapping[str, str]


def why_absent(rows: Sequence[ComparedRow], metric: str) -> str | None:
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


def gather(
    rows: Sequence[ComparedRow], metric: str, direction: str, *, resamples: int, seed: int
) -> MetricFigures:
    """One metric's figures, of the clips that all rows and seeds have.

    Raises:
        ComparisonError: Scores of different measures, or of another direction than is said.
    """
    scores = {RowSeed(row.name, at): score for row in rows for at, score in row.measured(metric).items()}
    _check_direction(metric, direction, next(iter(scores.values())))
    means = _by_clip(list(scores.values()))
    _check_alike(metric, {place: s.measure if means else s.definition for place, s in scores.items()})
    return _of_means(scores, resamples, seed) if means else _of_statistics(scores, resamples)


def _of_means(scores: Mapping[RowSeed, Score], resamples: int, seed: int) -> MetricFigures:
    clips = _in_common(list(scores.values()))
    values = [np.array([(score.per_clip or {})[clip] for clip in clips]) for score in scores.values()]
    draws = bootstrap.resampled_means(values, resamples, seed) if len(clips) > 1 else None
    means = dict(zip(scores, [float(row.mean()) for row in values], strict=True))
    return MetricFigures(
        scores=scores,
        figures=_by_row(means, None if draws is None else dict(zip(scores, draws, strict=True))),
        clips=len(clips),
        left_out=_left_out(scores, set(clips)),
    )


def _of_statistics(scores: Mapping[RowSeed, Score], resamples: int) -> MetricFigures:
    """Figures of the whole set. Their draws are in the scores, and repeat where there are too few."""
    draws = {
        place: np.resize(bootstrap.centred(score.replicates, score.value), resamples)
        for place, score in scores.items()
        if score.replicates
    }
    return MetricFigures(
        scores=scores,
        figures=_by_row(
            {place: score.value for place, score in scores.items()},
            draws if len(draws) == len(scores) else None,
        ),
        clips=next(iter(scores.values())).n,
        left_out={},
    )


def _by_row(values: Mapping[RowSeed, float], draws: Mapping[RowSeed, Array] | None) -> dict[str, Figures]:
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


def _left_out(scores: Mapping[RowSeed, Score], kept: set[str]) -> dict[str, str]:
    """Each clip's first reason, in the order of rows and seeds."""
    known = dict.fromkeys(
        clip for score in scores.values() for clip in (*(score.per_clip or ()), *score.left_out)
    )
    return {clip: _reason(scores, clip) for clip in known if clip not in kept}


def _reason(scores: Mapping[RowSeed, Score], clip: str) -> str:
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


def _check_alike(metric: str, measures: Mapping[RowSeed, str]) -> None:
    (first, expected), *others = measures.items()
    for place, measure in others:
        if measure != expected:
            raise ComparisonError(
                f"{metric} is not the same thing in all rows.\n  {first}: {expected}\n  {place}: {measure}\n"
                "Evaluate them in the same way, on the same clips."
            )


Published = Mapping[str, Mapping[str, float]]


def compare(
    rows: Sequence[ComparedRow],
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
        published: ComparedRow -> metric -> a published figure, for the rows that have one.
        resamples: Draws of seeds and clips for the intervals.
        seed: Of the draws.

    Raises:
        ComparisonError: A baseline, a step or a direction that there is not, two rows of one name, or scores
            that don't measure the same thing.

    Example:
        >>> from stav2a.metrics.score import Score
        >>> def row(name, *values):
        ...     clips = {f"clip{i}": value for i, value in enumerate(values)}
        ...     score = Score(name="aa", label="AA", definition="hits", higher_is_better=True, per_clip=clips)
        ...     return ComparedRow(name, {0: [score]})
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


def _metric(name: str, found: MetricFigures) -> ComparedMetric:
    scores = list(found.scores.values())
    chances = [score.chance for score in scores if score.chance is not None]
    beside = {
        key: value
        for key, value in scores[0].details.items()
        if all(math.isclose(score.details.get(key, math.nan), value, rel_tol=1e-6) for score in scores)
    }
    return ComparedMetric(
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


def _cell(
    row: ComparedRow, metric: str, found: MetricFigures, baseline: str, published: Published, seed: int
) -> Cell:
    return Cell(
        estimate=estimate(found.figures[row.name], seed),
        published=published.get(row.name, {}).get(metric),
        to_baseline=_difference(row.name, baseline, metric, found, published, seed),
        to_step=_difference(row.name, row.builds_on, metric, found, published, seed),
    )


def _difference(
    row: str, against: str | None, metric: str, found: MetricFigures, published: Published, seed: int
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


def _lacking(
    rows: Sequence[ComparedRow], gathered: Mapping[str, MetricFigures]
) -> dict[tuple[str, str], str]:
    """Reasons of the rows that have scores, but not this one."""
    return {
        (row.name, name): next(
            (score.unavailable for score in row.named(name).values() if score.unavailable), "not measured"
        )
        for name, found in gathered.items()
        for row in rows
        if row.scores and row.name not in found.figures
    }


def _check(rows: Sequence[ComparedRow], metrics: Mapping[str, str], baseline: str) -> None:
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
