"""Hypotheses of a study, stated before its runs: signed differences of two rows, and their verdicts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stav2a.evaluation.comparison import Comparison, Estimate, over_seeds

Array = NDArray[np.float64]

LEVEL = 0.05  # probability of any false verdict among all hypotheses of a study
CONFIRMED, CONTRADICTED, UNDECIDED = "confirmed", "contradicted", "undecided"
NOT_MEASURED, ONE_SEED = "not measured", "one seed"


@dataclass(frozen=True)
class Hypothesis:
    """A row is better than another one in a metric.

    Args:
        name: Name in tables.
        better: The row that is said to be better.
        other: The row that it is compared with.
        metric: Name of the metric.
        finished_runs: Number of runs of the study that were finished when it was first stated.
    """

    name: str
    better: str
    other: str
    metric: str
    finished_runs: int = 0

    @property
    def statement(self) -> tuple[str, str, str, str]:
        """Name, rows and metric, without the time."""
        return self.name, self.better, self.other, self.metric


@dataclass(frozen=True)
class TestedHypothesis:
    """A hypothesis with its test.

    Args:
        hypothesis: What is stated.
        difference: The better row less the other, with the published difference beside; None where a row has
            no figure.
        higher_is_better: Direction of the metric.
        freedom: Degrees of freedom of the t distribution.
        p: Two-sided p-value of the difference alone; None without an interval.
        adjusted: The p-value after Holm's correction for all hypotheses of the study.
    """

    hypothesis: Hypothesis
    difference: Estimate | None
    higher_is_better: bool = True
    freedom: float | None = None
    p: float | None = None
    adjusted: float | None = None

    @property
    def verdict(self) -> str:
        """Confirmed or contradicted where the corrected p-value is at most 0.05, else undecided.

        With one seed there is no verdict, as nothing is known of other trainings.
        """
        if self.difference is None or self.adjusted is None:
            return NOT_MEASURED
        if len(self.difference.by_seed) < 2:
            return ONE_SEED
        if self.adjusted > LEVEL:
            return UNDECIDED
        return CONFIRMED if (self.difference.value > 0) == self.higher_is_better else CONTRADICTED


def holm(values: Sequence[float]) -> list[float]:
    """P-values after Holm's step-down correction (Holm 1979), in the order given.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted


def paired_test(draws: Array, figures: Array, clips: int) -> tuple[float, float]:
    """Two-sided p-value of a mean over seeds, and the degrees of freedom.

    The variance is that of the draws of seeds and clips. The part of the seeds is estimated from few of them,
    so that the ratio of mean and deviation follows a t distribution; its degrees of freedom are Welch and
    Satterthwaite's, of S - 1 for the seeds' part and N - 1 for the rest.

    Args:
        draws: Difference of each seed on each draw of the clips.
        figures: Difference of each seed on all clips.
        clips: Number of clips, N.

    Shapes:
        (S, B), (S,) -> two numbers
    """
    from scipy.stats import t

    count, value = len(figures), float(np.mean(figures))
    total = float(np.var(over_seeds(draws), ddof=1))
    if total == 0:
        return (1.0 if value == 0 else 0.0), math.inf
    seeds = min(total, float(np.var(figures, ddof=1)) / count) if count > 1 else 0.0
    rest = total - seeds
    freedom = total**2 / ((seeds**2 / (count - 1) if count > 1 else 0.0) + rest**2 / max(1, clips - 1))
    return float(2 * t.sf(abs(value) / math.sqrt(total), freedom)), freedom


def hypothesis_tests(comparison: Comparison, hypotheses: Sequence[Hypothesis]) -> list[TestedHypothesis]:
    """Each hypothesis on the seeds that both of its rows have, corrected for their number."""
    metrics = {each.score.name: each for each in comparison.metrics}
    found = []
    for each in hypotheses:
        compared = each.better, each.other, each.metric
        difference, draws = comparison.difference(*compared), comparison.drawn_differences(*compared)
        if difference is None:
            found.append(TestedHypothesis(each, None))
            continue
        metric = metrics[each.metric]
        p = freedom = None
        if draws is not None:
            figures = np.array([difference.by_seed[seed] for seed in draws])
            p, freedom = paired_test(np.stack(list(draws.values())), figures, metric.clips)
        found.append(TestedHypothesis(each, difference, metric.score.higher_is_better, freedom, p))
    known = [place for place, each in enumerate(found) if each.p is not None]
    for place, adjusted in zip(known, holm([found[i].p or 0.0 for i in known]), strict=True):
        found[place] = replace(found[place], adjusted=adjusted)
    return found
