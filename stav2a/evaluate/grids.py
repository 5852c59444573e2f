"""Tables of an evaluation: the layout of the paper's Table I, and what chance leaves of a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from stav2a.comparison.results import Comparison
from stav2a.comparison.tables.grids import Column, Entry, Grid, grids, shortened
from stav2a.comparison.tables.numerals import MINUS, NOTHING
from stav2a.evaluate.listening import Crop
from stav2a.evaluate.scoring import REAL
from stav2a.metrics.sets import Score

Rows = Mapping[str, Sequence[Score]]


def compared(comparison: Comparison) -> list[Grid]:
    """The comparison's own tables; the best of a column is the best system, for real sound is no rival."""
    figures, *differences = grids(comparison)
    systems = replace(comparison, rows=[row for row in comparison.rows if row != REAL])
    groups = [
        [_best_marked(ours, figures.names, systems.best(metric)), *theirs]
        for (ours, *theirs), metric in zip(figures.groups, comparison.metrics, strict=True)
    ]
    caption = figures.caption.replace("the best of each column is", "the best system of each column is")
    return [replace(figures, groups=groups, caption=caption), *differences]


def table_one(comparisons: Mapping[Crop, Comparison]) -> Grid:
    """Systems by crops, by metrics: a crop's rows below one another's."""
    first = {crop: compared(comparison)[0] for crop, comparison in comparisons.items()}
    tables = list(first.values())
    headings = dict.fromkeys(group[0].title for grid in tables for group in grid.groups)
    seconds = [Entry(crop_in_figures(crop)) for crop, grid in first.items() for _ in grid.names]
    return Grid(
        title="Systems by durations by metrics",
        caption="The layout of the paper's Table I; the best system of each duration is marked.",
        names=[name for grid in first.values() for name in grid.names],
        groups=[
            [Column("seconds", seconds)],
            *(_joined(list(first.values()), titles) for titles in headings),
        ],
    )


def chance(rows: Rows) -> list[Grid]:
    """What the figures would be by chance, and what is left of them; none if no metric has a chance level.

    Args:
        rows: System -> its scores.
    """
    metrics = {score.name: score for scores in rows.values() for score in scores if score.chance is not None}
    names = [name for name in rows if any(_named(rows[name], metric) for metric in metrics)]
    if not names:
        return []
    return [
        Grid(
            title="Against chance",
            caption="By chance: each sound with what other clips have. Corrected: 0 is chance, 1 perfect.",
            names=names,
            groups=[
                [
                    Column(
                        f"{shortened(score.label)}, by chance", [_by_chance(rows[row], name) for row in names]
                    ),
                    Column("corrected ↑", [_corrected(rows[row], name) for row in names]),
                ]
                for name, score in metrics.items()
            ],
        )
    ]


def crop_in_figures(crop: Crop) -> str:
    """`4`, or `whole`."""
    return "whole" if crop is None else f"{crop:g}"


def _best_marked(column: Column, names: Sequence[str], best: str | None) -> Column:
    entries = [replace(entry, best=name == best) for name, entry in zip(names, column.entries, strict=True)]
    return replace(column, entries=entries)


def _joined(tables: Sequence[Grid], heading: str) -> list[Column]:
    """One metric's columns, of all tables: its figures, and the paper's if any table has them."""
    groups = [next((g for g in grid.groups if g[0].title == heading), ()) for grid in tables]
    titles = max((tuple(column.title for column in group) for group in groups), key=len)
    columns = []
    for place, title in enumerate(titles):
        entries: list[Entry] = []
        for grid, group in zip(tables, groups, strict=True):
            entries += group[place].entries if place < len(group) else [Entry(NOTHING)] * len(grid.names)
        columns.append(Column(title, entries))
    return columns


def _named(scores: Sequence[Score], metric: str) -> Score | None:
    return next((score for score in scores if score.name == metric and score.chance is not None), None)


def _by_chance(scores: Sequence[Score], metric: str) -> Entry:
    score = _named(scores, metric)
    return Entry(_three(score.chance if score else None))


def _corrected(scores: Sequence[Score], metric: str) -> Entry:
    score = _named(scores, metric)
    if score is None or score.corrected is None:
        return Entry(NOTHING)
    known = score.corrected_low is not None
    interval = f"[{_three(score.corrected_low)}, {_three(score.corrected_high)}]" if known else ""
    return Entry(_three(score.corrected), interval)


def _three(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}".replace("-", MINUS)
