"""For a terminal: as many metrics side by side as it is wide, the others below."""

from collections.abc import Iterator, Mapping, Sequence

from stav2a.comparison.results import Comparison
from stav2a.comparison.tables.grids import Column, Grid, grids
from stav2a.comparison.tables.notes import counted, notes

_GAP = "  "
_WIDE_GAP = "    "  # between metrics

Groups = Sequence[Sequence[Column]]


def text(comparison: Comparison, width: int = 110) -> str:
    """The tables, and below them what has to be said. The best of a column has a star.

    Args:
        comparison: As `compare` gives it.
        width: Of the terminal, in characters; a single metric may be wider.
    """
    return document(grids(comparison), counted(comparison), notes(comparison), width)


def document(
    tables: Sequence[Grid], sentences: Sequence[str], notes: Mapping[str, Sequence[str]], width: int = 110
) -> str:
    """Tables under their titles, then sentences, then notes under their headings."""
    written = [f"{grid.title}\n{grid.caption}\n\n{_table(grid, width)}" for grid in tables]
    listed = [
        "\n".join([f"{heading}:", *(f"  - {line}" for line in lines)]) for heading, lines in notes.items()
    ]
    return "\n\n".join([*written, *sentences, *listed]) + "\n"


def _table(grid: Grid, width: int) -> str:
    return "\n\n".join(_block(grid.names, groups) for groups in _packed(grid, width))


def _packed(grid: Grid, width: int) -> Iterator[Groups]:
    """The metrics, as many at a time as fit."""
    block: list[Sequence[Column]] = []
    for group in grid.groups:
        if block and len(_lines(grid.names, [*block, group])[0]) > width:
            yield block
            block = []
        block.append(group)
    yield block


def _block(names: Sequence[str], groups: Groups) -> str:
    head, *body = _lines(names, groups)
    return "\n".join(line.rstrip() for line in [head, "─" * len(head), *body])


def _lines(names: Sequence[str], groups: Groups) -> list[str]:
    width = max(map(len, names))
    lines = [name.ljust(width) for name in ["", *names]]
    for group in groups:
        for i, column in enumerate(group):
            gap = _GAP if i else _WIDE_GAP
            lines = [f"{line}{gap}{cell}" for line, cell in zip(lines, _cells(column), strict=True)]
    return lines


def _cells(column: Column) -> list[str]:
    """The title and the entries in one width: figures end alike, what is under them begins alike."""
    figures = [f"*{entry.figure}" if entry.best else entry.figure for entry in column.entries]
    left, right = max(map(len, figures)), max(len(entry.under) for entry in column.entries)
    cells = [
        f"{figure.rjust(left)} {entry.under.ljust(right)}" if right else figure.rjust(left)
        for figure, entry in zip(figures, column.entries, strict=True)
    ]
    width = max(len(column.title), len(cells[0]))
    return [column.title.ljust(width) if right else column.title.rjust(width)] + [
        cell.ljust(width) if right else cell.rjust(width) for cell in cells
    ]
