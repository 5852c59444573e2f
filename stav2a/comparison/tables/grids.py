"""The three tables of a comparison, before they are set in a format of their own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stav2a.comparison.results import UNKNOWN, Comparison, Difference, Metric
from stav2a.comparison.tables.numerals import MINUS, NOTHING, Numerals, numerals

PAPER, PAPER_SIGN = "paper", "paper, same sign?"


@dataclass(frozen=True)
class Entry:
    """What stands in one place: a figure, and smaller, what is to be known of it.

    Args:
        figure: Such as 0.945, +0.023 or a dash.
        under: Its interval, or whether the paper's sign is ours; may be empty.
        best: Whether it is the best of its column.
    """

    figure: str
    under: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A metric's own figures, or the paper's beside them.

    Args:
        title: The metric with its arrow, or whose the figures are.
        entries: One a row.
    """

    title: str
    entries: Sequence[Entry]


@dataclass(frozen=True)
class Grid:
    """One table.

    Args:
        title: Its heading.
        caption: How to read it.
        names: The rows' names.
        groups: For each metric its column, and the paper's where there is one.
    """

    title: str
    caption: str
    names: Sequence[str]
    groups: Sequence[Sequence[Column]]


def grids(comparison: Comparison) -> list[Grid]:
    """Rows by metrics, their differences to the baseline, and step by step; those that tell anything."""
    tables = [_figures(comparison), _to_baseline(comparison)]
    if comparison.other_steps:
        tables.append(_step_by_step(comparison))
    return [grid for grid in tables if grid.groups and grid.names]


def shortened(label: str) -> str:
    """A metric's label for where there is little room; its classifier is left to the definitions.

    Example:
        >>> shortened("KL (struck_objects classifier)"), shortened("AA-Align (released)")
        ('KL', 'AA-Align (released)')
    """
    return re.sub(r" \([^()]* classifier\)$", "", label)


def headed(metric: Metric) -> str:
    """The short label with its arrow."""
    return f"{shortened(metric.label)} {metric.arrow}"


def _figures(comparison: Comparison) -> Grid:
    beside = " Beside them the paper's figures." if _any_published(comparison) else ""
    what = "Means over seeds, with" if comparison.several_seeds else "Figures with their"
    return Grid(
        title="Metrics",
        caption=f"{what} 95 % intervals; the best of each column is marked.{beside}",
        names=list(comparison.rows),
        groups=[_figure_columns(comparison, metric) for metric in comparison.metrics],
    )


def _figure_columns(comparison: Comparison, metric: Metric) -> list[Column]:
    write, best = numerals(comparison, metric), comparison.best(metric)
    ours = []
    for row in comparison.rows:
        cell = comparison.cells.get((row, metric.name))
        ours.append(
            Entry(write.figure(cell.estimate.value), write.interval(cell.estimate), row == best)
            if cell
            else Entry(NOTHING)
        )
    theirs = [comparison.published.get(row, {}).get(metric.name) for row in comparison.rows]
    columns = [Column(headed(metric), ours)]
    if any(value is not None for value in theirs):
        columns.append(Column(PAPER, [Entry(write.published_figure(value)) for value in theirs]))
    return columns


def _to_baseline(comparison: Comparison) -> Grid:
    rows = [row for row in comparison.rows if row != comparison.baseline]
    return Grid(
        title=f"Differences to {comparison.baseline}",
        caption=_difference_caption(comparison),
        names=rows,
        groups=_difference_groups(comparison, rows, "to_baseline"),
    )


def _step_by_step(comparison: Comparison) -> Grid:
    rows = [row for row in comparison.rows if row in comparison.builds_on]
    return Grid(
        title="Step by step",
        caption=f"Each row less the row it builds on. {_difference_caption(comparison)}",
        names=[f"{row} {MINUS} {comparison.builds_on[row]}" for row in rows],
        groups=_difference_groups(comparison, rows, "to_step"),
    )


def _difference_caption(comparison: Comparison) -> str:
    ours = "Paired differences with 95 % intervals."
    if not _any_published(comparison):
        return ours
    return f"{ours} Beside them the paper's, and whether ours has the same sign."


def _difference_groups(comparison: Comparison, rows: Sequence[str], kind: str) -> list[list[Column]]:
    groups = []
    for metric in comparison.metrics:
        differences = [comparison.difference(row, metric, kind) for row in rows]
        if any(differences):
            groups.append(_difference_columns(metric, differences, numerals(comparison, metric)))
    return groups


def _difference_columns(
    metric: Metric, differences: Sequence[Difference | None], write: Numerals
) -> list[Column]:
    ours, theirs = [], []
    for each in differences:
        if each is None:
            ours.append(Entry(NOTHING))
            theirs.append(Entry(NOTHING))
            continue
        ours.append(Entry(write.change(each.estimate.value), write.change_interval(each.estimate)))
        agrees = "" if each.verdict == UNKNOWN else each.verdict
        theirs.append(Entry(write.published_change(each.published), agrees))
    known = any(each and each.published is not None for each in differences)
    return [Column(headed(metric), ours), *([Column(PAPER_SIGN, theirs)] if known else [])]


def _any_published(comparison: Comparison) -> bool:
    return any(cell.published is not None for cell in comparison.cells.values())
