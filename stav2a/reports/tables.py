"""One table for all figures: strings in a data frame, written for a terminal, in Markdown and in LaTeX."""

import functools
import io
import math
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable

from stav2a.evaluation.comparison import NO, NOISE, SMALL, YES, Estimate

MINUS, NOTHING = "−", "–"
PAPER = "paper"  # title of published figures
WIDTH = 110  # of a terminal, in characters
LONG_TITLE = 12  # characters
MARKS = {YES: "✓ yes", NO: "✗ no", NOISE: "≈ within noise", SMALL: "too small"}


class Cell(NamedTuple):
    """One place of a table.

    Args:
        figure: The figure, such as 0.945 or +0.023.
        interval: Interval of the figure, such as [0.921, 0.965]; may be empty.
        best: True if it is the best of its column, and known to be.
        verdict: Agreement of its sign with the published one; may be empty.
    """

    figure: str = NOTHING
    interval: str = ""
    best: bool = False
    verdict: str = ""


@dataclass(frozen=True)
class NumberFormat:
    """Format of numbers that are compared with one another.

    Args:
        decimals: Digits behind the point.
    """

    decimals: int = 3

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "NumberFormat":
        """Three decimals where the largest magnitude is below 10, two below 1000, else one."""
        largest = max((abs(value) for value in values if value is not None), default=0.0)
        return cls(3 if largest < 10 else 2 if largest < 1000 else 1)

    @classmethod
    def as_given(cls, values: Iterable[float]) -> "NumberFormat":
        """As many decimals as the values have."""
        return cls(max((len(f"{value:g}".partition(".")[2]) for value in values), default=0))

    @property
    def span(self) -> float:
        """Ten of the last digit: less is too little for an axis."""
        return 10.0 ** (1 - self.decimals)

    def figure(self, value: float | None, *, signed: bool = False) -> str:
        """A number, such as 0.945; signed, +0.945; a dash where there is none."""
        if value is None or not math.isfinite(value):
            return NOTHING
        text = f"{abs(value):.{self.decimals}f}"
        if not float(text):
            return text
        return MINUS + text if value < 0 else "+" + text if signed else text

    def cell(
        self,
        value: float | None,
        low: float | None = None,
        high: float | None = None,
        *,
        signed: bool = False,
        best: bool = False,
    ) -> Cell:
        """A number with its interval, where there is one."""
        interval = ""
        if low is not None and high is not None:
            interval = f"[{self.figure(low, signed=signed)}, {self.figure(high, signed=signed)}]"
        return Cell(self.figure(value, signed=signed), interval, best)

    def estimate(self, found: Estimate | None, *, signed: bool = False, best: bool = False) -> Cell:
        """An estimate with its interval; an empty cell where there is none."""
        return self.cell(found.value, found.low, found.high, signed=signed, best=best) if found else Cell()


@dataclass(frozen=True)
class Table:
    """A table of cells.

    Args:
        title: Heading; a terminal shows it together with a caption.
        caption: Remark on how to read it; may be empty.
        cells: Data frame of `Cell`; its rows are named, its columns are pairs of a group and a title. Groups,
            such as a metric and the published figures beside it, are kept together.
    """

    title: str
    caption: str
    cells: pd.DataFrame

    @classmethod
    def of(
        cls, title: str, caption: str, rows: Sequence[str], columns: Mapping[tuple[str, str], Sequence[Cell]]
    ) -> "Table":
        """A table from its columns: group and title -> one cell a row."""
        return cls(title, caption, pd.DataFrame(columns, index=rows))

    @property
    def titles(self) -> list[str]:
        """Titles of the columns."""
        return list(self.cells.columns.get_level_values(1))

    @property
    def begins(self) -> list[bool]:
        """True for each column that begins a group."""
        return list(~self.cells.columns.get_level_values(0).duplicated())

    def rows(self) -> Iterator[tuple[str, list[Cell]]]:
        """Each row's name and cells."""
        for name, *cells in self.cells.itertuples(name=None):
            yield name, cells

    def text(self, width: int = WIDTH) -> str:
        """The table for a terminal: as many groups side by side as fit. The best of a column has a star."""
        blocks: list[list[str]] = [[]]
        for group in dict.fromkeys(self.cells.columns.get_level_values(0)):
            wider = self._block([*blocks[-1], group])
            if blocks[-1] and max(map(len, wider.splitlines())) > width:
                blocks.append([])
            blocks[-1].append(group)
        return "\n\n".join(map(self._block, blocks))

    def _block(self, groups: Sequence[str]) -> str:
        shown = self.cells[list(groups)]
        columns = [_aligned(shown[column]) for column in shown]
        rows = [[str(name), *cells] for name, *cells in zip(shown.index, *columns, strict=True)]
        left = [0, *(i for i, column in enumerate(shown, start=1) if any(map(_beside, shown[column])))]
        return grid(["", *(title for _, title in shown)], rows, left=left)

    def markdown(self) -> str:
        """The table in Markdown, intervals below their figures."""
        lines = [["", *map(_escaped, self.titles)]]
        lines += [[f"**{_escaped(name)}**", *map(_markdown, cells)] for name, cells in self.rows()]
        head, *rows = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([head, "|:---|" + "---:|" * len(self.titles), *rows])

    def latex(self) -> str:
        """The table as a `table*` float, intervals in lines of their own."""
        label = "".join(c if c.isalnum() else "-" for c in self.title.lower())
        lines = [
            r"\begin{table*}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{_latex(f'{self.title}. {self.caption}')}}}\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{l{'r' * len(self.titles)}}}",
            r"\toprule",
            _latex_line(["", *map(_latex, self.titles)]),
            r"\midrule",
        ]
        for name, cells in self.rows():
            figures = [rf"\textbf{{{_latex(c.figure)}}}" if c.best else _latex(c.figure) for c in cells]
            lines.append(_latex_line([_latex(name), *figures]))
            if any(map(_beside, cells)):
                below = [rf"{{\tiny {_latex(_beside(c))}}}" if _beside(c) else "" for c in cells]
                lines.append(_latex_line(["", *below]))
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table*}", ""])


def grid(titles: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> str:
    """Rows of strings in columns, under their titles and a rule, for a terminal.

    Args:
        titles: One title a column; a long one wraps rather than make its column wider.
        rows: Rows of strings.
        left: Columns that begin at the left; the others end at the right.

    Example:
        >>> print(grid(["block", "parameters"], [["unet", "0.5 M"], ["text_encoder", "1.2 M"]]))
        block         parameters
        ────────────────────────
        unet               0.5 M
        text_encoder       1.2 M
    """
    table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    for place, title in enumerate(titles):
        words = [*title.split(), title[:LONG_TITLE], " "]
        widest = max(map(cell_len, [*words, *(row[place] for row in rows)]))
        justify: Literal["left", "right"] = "left" if place in left else "right"
        table.add_column(title, justify=justify, max_width=widest, vertical="bottom")
    for row in rows:
        table.add_row(*row)
    file = io.StringIO()
    console = Console(
        file=file,
        width=10_000,
        color_system=None,
        force_jupyter=False,  # in a notebook Rich would print there, and not to the file
        markup=False,
        highlight=False,
        emoji=False,
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _beside(cell: Cell) -> str:
    return cell.interval or cell.verdict


def _aligned(cells: Iterable[Cell]) -> list[str]:
    """A column's texts: figures end alike, intervals begin alike."""
    figures = [f"*{cell.figure}" if cell.best else cell.figure for cell in cells]
    width = max(map(len, figures), default=0)
    return [
        f"{figure:>{width}} {_beside(cell)}".rstrip() for figure, cell in zip(figures, cells, strict=True)
    ]


def _markdown(cell: Cell) -> str:
    figure = f"**{cell.figure}**" if cell.best else cell.figure
    below = (cell.interval or MARKS.get(cell.verdict, "")).replace(" ", "&nbsp;")
    return f"{figure}<br><sub>{below}</sub>" if below else figure


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_|<>])", r"\\\1", " ".join(text.split()))


_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "−": "$-$", "–": "--", "≈": r"$\approx$",
    "±": r"$\pm$", "×": r"$\times$", "α": r"$\alpha$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)


def _latex_line(cells: Iterable[str]) -> str:
    return " & ".join(cells).strip() + r" \\"


@dataclass(frozen=True)
class Document:
    """Tables and notes that belong together, written in one way everywhere.

    Args:
        tables: The tables.
        notes: Heading -> sentences below the tables; empty headings are left out.
        summary: Sentences between tables and notes.
    """

    tables: Sequence[Table]
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    summary: Sequence[str] = ()

    def text(self, width: int = WIDTH) -> str:
        """The document for a terminal of that width; a single column may be wider."""
        wrap = functools.partial(textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False)
        parts = []
        for table in self.tables:
            head = [wrap(table.title), wrap(table.caption), ""] if table.caption else []
            parts.append("\n".join([*head, table.text(width)]))
        parts += map(wrap, self.summary)
        for heading, lines in self.notes.items():
            listed = [wrap(line, initial_indent="  - ", subsequent_indent="    ") for line in lines]
            parts += ["\n".join([f"{heading}:", *listed])] if lines else []
        return "\n\n".join(parts) + "\n"

    def markdown(self) -> str:
        """The document in Markdown, tables under headings of the second level."""
        parts = [
            f"## {_escaped(table.title)}\n\n{_escaped(table.caption)}\n\n{table.markdown()}"
            for table in self.tables
        ]
        parts += [f"**{_escaped(sentence)}**" for sentence in self.summary]
        for heading, lines in self.notes.items():
            listed = [f"- {_escaped(line)}" for line in lines]
            parts += ["\n".join([f"### {heading}\n", *listed])] if lines else []
        return "\n\n".join(parts) + "\n"

    def latex(self) -> str:
        """The tables in LaTeX, without the notes. They need the package booktabs and nothing else."""
        return "\n".join(["% \\usepackage{booktabs}", *(table.latex() for table in self.tables)])


def csv_of(records: Iterable[Mapping[str, object]], columns: Sequence[str] | None = None) -> str:
    """A CSV of records with all digits, in these columns or in their own; None, NaN and gaps are empty."""
    # As objects: integers in columns with gaps stay integers.
    return pd.DataFrame(list(records), columns=columns, dtype=object).to_csv(index=False, lineterminator="\n")
