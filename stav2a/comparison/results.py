"""What a comparison says, before it is written down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stav2a.comparison.statistics import Estimate

# Whether the paper's sign is ours too.
YES, NO, NOISE, UNKNOWN = "yes", "no", "within noise", "–"


@dataclass(frozen=True)
class Metric:
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
        cells: Row and metric name -> its cell. There is none where a row has no figure.
        baseline: The row that all are compared with.
        builds_on: Row -> the row that it changes by a step.
        seeds: Row -> the seeds it has scores of.
        missing: Row -> seed -> why there are none.
        absent: Metric -> why no row has it.
        lacking: Row and metric name -> why this row has no figure, though others have.
        published: Row -> metric -> figure, as given.
        resamples: Bootstrap draws.
    """

    rows: Sequence[str]
    metrics: Sequence[Metric]
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

    def best(self, metric: Metric) -> str | None:
        """The row with the best figure."""
        values = {row: self.cells[row, metric.name].estimate.value for row in self.having(metric)}
        if not values:
            return None
        choose = max if metric.higher_is_better else min
        return choose(values, key=lambda row: values[row])

    def having(self, metric: Metric) -> list[str]:
        """The rows that have a figure."""
        return [row for row in self.rows if (row, metric.name) in self.cells]

    def difference(self, row: str, metric: Metric, kind: str) -> Difference | None:
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
