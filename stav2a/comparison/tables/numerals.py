"""Numbers in words: as many digits as say something, and the same in a whole column."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stav2a.comparison.results import Comparison, Metric
from stav2a.comparison.statistics import Estimate

MINUS = "−"
NOTHING = "–"


@dataclass(frozen=True)
class Numerals:
    """How the numbers of one metric are written.

    Args:
        decimals: Of our figures.
        published: Of the published ones: as many as they came with.
    """

    decimals: int
    published: int

    def figure(self, value: float) -> str:
        """Of ours: 0.945."""
        return _plain(value, self.decimals)

    def interval(self, estimate: Estimate) -> str:
        """Of ours: [0.921, 0.965]; nothing where it is not known."""
        return _interval(estimate, self.figure)

    def change(self, value: float) -> str:
        """A difference of ours: +0.023."""
        return _signed(value, self.decimals)

    def change_interval(self, estimate: Estimate) -> str:
        """Of a difference of ours: [−0.012, +0.058]."""
        return _interval(estimate, self.change)

    def published_figure(self, value: float | None) -> str:
        """0.669, or a dash."""
        return NOTHING if value is None else _plain(value, self.published)

    def published_change(self, value: float | None) -> str:
        """−0.171, or a dash."""
        return NOTHING if value is None else _signed(value, self.published)


def numerals(comparison: Comparison, metric: Metric) -> Numerals:
    """Three decimals below 10, two from there on, one from 1000 on."""
    ours = [abs(comparison.cells[row, metric.name].estimate.value) for row in comparison.having(metric)]
    theirs = [figures.get(metric.name) for figures in comparison.published.values()]
    largest = max(ours, default=0.0)
    return Numerals(
        decimals=3 if largest < 10 else 2 if largest < 1000 else 1,
        published=_decimals(value for value in theirs if value is not None),
    )


def _decimals(values: Iterable[float]) -> int:
    return max((len(f"{value:g}".partition(".")[2]) for value in values), default=0)


def _plain(value: float, decimals: int) -> str:
    if not math.isfinite(value):
        return NOTHING
    text = f"{value:.{decimals}f}"
    return text.replace("-", MINUS) if float(text) else text.lstrip("-")


def _signed(value: float, decimals: int) -> str:
    text = _plain(value, decimals)
    return f"+{text}" if math.isfinite(value) and round(value, decimals) > 0 else text


def _interval(estimate: Estimate, write: Callable[[float], str]) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{write(estimate.low)}, {write(estimate.high)}]"
