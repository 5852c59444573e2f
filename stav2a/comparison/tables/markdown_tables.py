"""For GitHub: intervals in small type under their figures, so that all metrics fit beside one another."""

import re
from collections.abc import Mapping, Sequence

from stav2a.comparison.results import NO, NOISE, YES, Comparison
from stav2a.comparison.tables.grids import Entry, Grid, grids
from stav2a.comparison.tables.notes import counted, notes

MARKS = {YES: "✓ yes", NO: "✗ no", NOISE: "≈ within noise"}


def markdown(comparison: Comparison) -> str:
    """The tables under headings of the second level, and below them what has to be said."""
    return document(grids(comparison), counted(comparison), notes(comparison))


def document(tables: Sequence[Grid], sentences: Sequence[str], notes: Mapping[str, Sequence[str]]) -> str:
    """Tables under their titles, then sentences, then notes under their headings."""
    written = [f"## {_escaped(grid.title)}\n\n{_escaped(grid.caption)}\n\n{_table(grid)}" for grid in tables]
    said = [f"**{_escaped(sentence)}**" for sentence in sentences]
    listed = [
        "\n".join([f"### {heading}\n", *(f"- {_escaped(line)}" for line in lines)])
        for heading, lines in notes.items()
    ]
    return "\n\n".join([*written, *said, *listed]) + "\n"


def _table(grid: Grid) -> str:
    columns = [column for group in grid.groups for column in group]
    rows = [
        _line([f"**{_escaped(name)}**", *(_cell(column.entries[i]) for column in columns)])
        for i, name in enumerate(grid.names)
    ]
    head = _line(["", *(_escaped(column.title) for column in columns)])
    return "\n".join([head, "|:---|" + "---:|" * len(columns), *rows])


def _cell(entry: Entry) -> str:
    figure = f"**{entry.figure}**" if entry.best else entry.figure
    under = MARKS.get(entry.under, entry.under).replace(" ", "&nbsp;")
    return f"{figure}<br><sub>{under}</sub>" if under else figure


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_|<>])", r"\\\1", " ".join(text.split()))
