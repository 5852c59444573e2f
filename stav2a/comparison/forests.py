"""A forest plot for each metric: every row with its interval and its seeds, and the paper's order beside."""

from stav2a.comparison.results import Comparison, Metric
from stav2a.comparison.tables.grids import headed, shortened
from stav2a.comparison.tables.numerals import Numerals, numerals
from stav2a.plots import Mark, forest_png
from stav2a.report import Media

BESIDE = "paper (rank)"


def forests(comparison: Comparison) -> list[Media]:
    """One picture a metric; its label says in words what is seen."""
    return [
        Media(_in_words(comparison, metric), _picture(comparison, metric), "image/png")
        for metric in comparison.metrics
    ]


def _picture(comparison: Comparison, metric: Metric) -> bytes:
    beside = _published(comparison, metric, numerals(comparison, metric))
    return forest_png(
        {row: _mark(comparison, row, metric, beside.get(row, "")) for row in comparison.rows},
        title=headed(metric),
        baseline=comparison.baseline,
        beside=BESIDE if beside else "",
    )


def _mark(comparison: Comparison, row: str, metric: Metric, beside: str) -> Mark | None:
    cell = comparison.cells.get((row, metric.name))
    if cell is None:
        return None
    own = cell.estimate
    parts = list(own.by_seed.values()) if len(own.by_seed) > 1 else []
    sure = cell.to_baseline is not None and cell.to_baseline.estimate.excludes_zero
    return Mark(own.value, own.low, own.high, parts, sure, beside)


def _published(comparison: Comparison, metric: Metric, write: Numerals) -> dict[str, str]:
    """Row -> its published figure, and its place among the rows, the best first."""
    figures = {
        row: comparison.published[row][metric.name]
        for row in comparison.rows
        if metric.name in comparison.published.get(row, {})
    }
    best_first = sorted(figures.values(), reverse=metric.higher_is_better)
    return {
        row: f"{write.published_figure(value)}  ({best_first.index(value) + 1})"
        for row, value in figures.items()
    }


def _in_words(comparison: Comparison, metric: Metric) -> str:
    write = numerals(comparison, metric)
    values = (
        f"{row} {write.figure(comparison.cells[row, metric.name].estimate.value)}"
        for row in comparison.having(metric)
    )
    return f"{shortened(metric.label)} by row: {', '.join(values)}"
