"""For a paper: booktabs, one float a table, intervals in small type under their figures."""

from collections.abc import Sequence

from stav2a.comparison.results import Comparison
from stav2a.comparison.tables.grids import Column, Entry, Grid, grids

_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "−": "$-$", "–": "--", "≈": r"$\approx$",
    "±": r"$\pm$", "×": r"$\times$", "α": r"$\alpha$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip


def latex(comparison: Comparison) -> str:
    """The tables as `table*` floats. They need the package booktabs and nothing else."""
    return document(grids(comparison))


def document(tables: Sequence[Grid]) -> str:
    """Each table as a float; notes are left to the paper's own words."""
    return "\n".join(["% \\usepackage{booktabs}", *(_float(grid) for grid in tables)])


def _float(grid: Grid) -> str:
    columns = [column for group in grid.groups for column in group]
    label = "".join(c if c.isalnum() else "-" for c in grid.title.lower())
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{_escaped(grid.title)}. {_escaped(grid.caption)}}}\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
            r"\toprule",
            _line(["", *(_escaped(column.title) for column in columns)]),
            r"\midrule",
            *(_row(name, columns, i) for i, name in enumerate(grid.names)),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
            "",
        ]
    )


def _row(name: str, columns: Sequence[Column], i: int) -> str:
    entries = [column.entries[i] for column in columns]
    lines = [_line([_escaped(name), *map(_figure, entries)])]
    if any(entry.under for entry in entries):
        lines.append(_line(["", *map(_under, entries)]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells).strip() + r" \\"


def _figure(entry: Entry) -> str:
    figure = _escaped(entry.figure)
    return rf"\textbf{{{figure}}}" if entry.best else figure


def _under(entry: Entry) -> str:
    return rf"{{\tiny {_escaped(entry.under)}}}" if entry.under else ""


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
