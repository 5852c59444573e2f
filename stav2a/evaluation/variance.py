"""Parts of the variance of a row's figure: the training, the clips, and what is of both."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stav2a.evaluation.comparison import Comparison

Array = NDArray[np.float64]


class VarianceParts(NamedTuple):
    """Variances of the figure of one training on a set of clips.

    Args:
        trainings: Variance of the part that a training has on all clips alike.
        clips: Variance of the part that other clips would change for all trainings alike.
        both: Variance of the part by which trainings differ from clip to clip; noise of sampling is in it.
    """

    trainings: float
    clips: float
    both: float

    @property
    def deviations(self) -> tuple[float, float, float]:
        """Standard deviations of the parts; 0 where a variance was estimated below it."""
        return tuple(max(0.0, part) ** 0.5 for part in self)


def variance_parts(draws: Mapping[int, Array], figures: Mapping[int, float]) -> VarianceParts:
    """Parts of a random-effects model without repetition: figure = mean + training + clips + both.

    Estimates are unbiased but for the bootstrap's (N - 1) / N, and so may be below 0.

    Args:
        draws: Seed -> its figure on each draw of the clips (B,), in the metric's unit; the same draws for all
            seeds.
        figures: Seed -> its figure on all clips.

    Raises:
        ValueError: There is one seed.

    Example:
        >>> draws = {0: np.array([0.4, 0.6]), 1: np.array([0.6, 0.8])}
        >>> [round(part, 6) for part in variance_parts(draws, {0: 0.5, 1: 0.7})]
        [0.02, 0.02, 0.0]
    """
    count = len(draws)
    if count < 2:
        raise ValueError(f"variance_parts needs two seeds or more, and was given {count}.")
    covariance = np.cov(np.stack(list(draws.values())))
    each = float(np.trace(covariance)) / count
    common = (float(covariance.sum()) - count * each) / (count * (count - 1))
    between = float(np.var([figures[seed] for seed in draws], ddof=1))
    return VarianceParts(between - (each - common), common, each - common)


def _mean(parts: Iterable[VarianceParts]) -> VarianceParts | None:
    known = list(parts)
    return VarianceParts(*np.mean(known, axis=0).tolist()) if known else None


def parts_of_figures(comparison: Comparison, metric: str) -> VarianceParts | None:
    """Mean over rows of the parts of their figures; None where no row has two seeds and draws."""
    return _mean(
        variance_parts(draws, comparison.estimates[row, metric].by_seed)
        for row in comparison.rows
        if len(draws := comparison.draws.get((row, metric), {})) > 1
    )


def parts_of_differences(comparison: Comparison, metric: str) -> VarianceParts | None:
    """Mean over rows of the parts of their paired differences to the baseline."""
    return _mean(
        variance_parts(draws, comparison.to_baseline[row, metric].by_seed)
        for row in comparison.rows
        if (row, metric) in comparison.to_baseline
        and len(draws := comparison.drawn_differences(row, comparison.baseline, metric) or {}) > 1
    )
