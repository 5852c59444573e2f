"""The three tables of a comparison, before they are set in a format of their own."""

import csv as writer
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from stav2a.evaluation.comparison import (
    NO,
    NOISE,
    UNKNOWN,
    YES,
    ComparedMetric,
    Comparison,
    Difference,
    Estimate,
)
from stav2a.metrics.score import MetricError, Score

COLUMNS = ("metric", "value", "95 % interval", "chance", "corrected", "n")
STYLES = ("text", "markdown")
_NAMED = 8  # ids named in a note; JSON has them all


def table(scores: Sequence[Score], style: str = "text") -> str:
    """A table of the scores, and under it what each is, what was left out, and what could not be measured.

    Args:
        scores: As `evaluate` gives them.
        style: `text` for a terminal, or `markdown`.

    Raises:
        MetricError: Another style.
    """
    if style not in STYLES:
        raise MetricError(f"style was {style!r}. Write one of: {', '.join(STYLES)}.")
    measured = [score for score in scores if score.unavailable is None]
    rows = [COLUMNS, *(_row(score) for score in measured)]
    grid = _text_grid(rows) if style == "text" else _markdown_grid(rows)
    notes = {
        "Definitions": [f"{score.label}: {score.definition}." for score in measured],
        "Beside them": [f"{score.label}: {_details(score.details)}." for score in measured if score.details],
        "Left out": [line for score in measured for line in _left_out(score)],
        "Not measured": [f"{score.label}: {score.unavailable}" for score in scores if score.unavailable],
    }
    mark = "{}:" if style == "text" else "**{}**\n"
    listed = [
        "\n".join(
            [mark.format(title), *(f"  - {line}" if style == "text" else f"- {line}" for line in lines)]
        )
        for title, lines in notes.items()
        if lines
    ]
    return "\n\n".join([grid, *listed]) + "\n"


def _row(score: Score) -> tuple[str, ...]:
    corrected = _figure(score.corrected)
    if score.corrected_low is not None:
        corrected += f" [{_range(score.corrected_low, score.corrected_high)}]"
    return (
        f"{score.label} {'↑' if score.higher_is_better else '↓'}",
        _figure(score.value),
        _range(score.low, score.high),
        _figure(score.chance),
        corrected,
        str(score.n),
    )


def _figure(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def _range(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{_figure(low)} … {_figure(high)}"


def _details(details: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_figure(value)}" for name, value in details.items())


def _left_out(score: Score) -> list[str]:
    """One line a reason: how many clips, and which."""
    by_reason: dict[str, list[str]] = {}
    for clip, reason in score.left_out.items():
        by_reason.setdefault(reason, []).append(clip)
    total = score.n + len(score.left_out)
    return [
        f"{score.label}: {len(clips)} of {total} clips, {reason.rstrip('.')} ({_named(clips)})"
        for reason, clips in by_reason.items()
    ]


def _named(clips: Sequence[str]) -> str:
    more = f", and {len(clips) - _NAMED} more" if len(clips) > _NAMED else ""
    return ", ".join(clips[:_NAMED]) + more


def _text_grid(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(_cell(text, width, i) for i, (text, width) in enumerate(zip(row, widths, strict=True)))
             for row in rows]  # fmt: skip
    return "\n".join(line.rstrip() for line in [lines[0], "─" * len(lines[0]), *lines[1:]])


def _cell(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def _markdown_grid(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows]
    return "\n".join([head, "|---|" + "---:|" * (len(rows[0]) - 1), *body])


MINUS = "−"
NOTHING = "–"


@dataclass(frozen=True)
class NumberFormat:
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


def number_format(comparison: Comparison, metric: ComparedMetric) -> NumberFormat:
    """Three decimals below 10, two from there on, one from 1000 on."""
    ours = [abs(comparison.cells[row, metric.name].estimate.value) for row in comparison.having(metric)]
    theirs = [figures.get(metric.name) for figures in comparison.published.values()]
    largest = max(ours, default=0.0)
    return NumberFormat(
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


PAPER, PAPER_SIGN = "paper", "paper, same sign?"


@dataclass(frozen=True)
class TableCell:
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
    entries: Sequence[TableCell]


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


def headed(metric: ComparedMetric) -> str:
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


def _figure_columns(comparison: Comparison, metric: ComparedMetric) -> list[Column]:
    write, best = number_format(comparison, metric), comparison.best(metric)
    ours = []
    for row in comparison.rows:
        cell = comparison.cells.get((row, metric.name))
        ours.append(
            TableCell(write.figure(cell.estimate.value), write.interval(cell.estimate), row == best)
            if cell
            else TableCell(NOTHING)
        )
    theirs = [comparison.published.get(row, {}).get(metric.name) for row in comparison.rows]
    columns = [Column(headed(metric), ours)]
    if any(value is not None for value in theirs):
        columns.append(Column(PAPER, [TableCell(write.published_figure(value)) for value in theirs]))
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
            groups.append(_difference_columns(metric, differences, number_format(comparison, metric)))
    return groups


def _difference_columns(
    metric: ComparedMetric, differences: Sequence[Difference | None], write: NumberFormat
) -> list[Column]:
    ours, theirs = [], []
    for each in differences:
        if each is None:
            ours.append(TableCell(NOTHING))
            theirs.append(TableCell(NOTHING))
            continue
        ours.append(TableCell(write.change(each.estimate.value), write.change_interval(each.estimate)))
        agrees = "" if each.verdict == UNKNOWN else each.verdict
        theirs.append(TableCell(write.published_change(each.published), agrees))
    known = any(each and each.published is not None for each in differences)
    return [Column(headed(metric), ours), *([Column(PAPER_SIGN, theirs)] if known else [])]


def _any_published(comparison: Comparison) -> bool:
    return any(cell.published is not None for cell in comparison.cells.values())


_NOTES_NAMED = 5  # clips named in a note; the scores have them all
_FEW = 5  # seeds


def notes(comparison: Comparison) -> dict[str, list[str]]:
    """Heading -> sentences; headings without any are left out."""
    listed = {
        "How to read them": _reading(comparison),
        "What was measured": [_measured(metric) for metric in comparison.metrics],
        "Left out": [line for metric in comparison.metrics for line in _notes_left_out(metric)],
        "Missing": [*_missing(comparison), *_without_interval(comparison)],
    }
    return {heading: lines for heading, lines in listed.items() if lines}


def counted(comparison: Comparison) -> list[str]:
    """How often the paper's sign is ours: a sentence on the baseline, one on the steps, if it has figures."""
    kinds = {"to_baseline": f"differences to {comparison.baseline}"}
    if comparison.other_steps:
        kinds["to_step"] = "steps"
    tallies = {what: comparison.tally(kind) for kind, what in kinds.items()}
    return [
        f"Of {total} {what}: {tally[YES]} with the paper's sign, {tally[NO]} with the other one, "
        f"{tally[NOISE]} within noise."
        for what, tally in tallies.items()
        if (total := sum(tally.values()))
    ]


def _reading(comparison: Comparison) -> list[str]:
    if not comparison.metrics:
        return ["There is nothing to compare yet."]
    lines = [_interval_in_words(comparison)]
    if comparison.differences("to_baseline"):
        lines.append("Differences are paired: the same seeds and the same draws of clips on both sides.")
    if counted(comparison):
        lines += [
            "Same sign as the paper's: yes or no where our interval excludes 0, else within noise.",
            "Each interval stands for itself: one in twenty excludes 0 where there is nothing but noise.",
        ]
    return lines


def _interval_in_words(comparison: Comparison) -> str:
    counts = sorted({len(seeds) for seeds in comparison.seeds.values() if seeds})
    how = f"In brackets: 95 % bootstrap intervals, {comparison.resamples} draws"
    if counts == [1]:
        return (
            f"{how} of clips. There is one seed, so that they don't tell how much another training would "
            "differ."
        )
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    crossed = f"{how} of seeds and of clips ({seeds} seeds, all scored on the same clips)."
    if counts[-1] >= _FEW:
        return crossed
    return (
        f"{crossed} So few seeds tell only roughly how much trainings differ: where they differ more than "
        "clips do, an interval holds the truth less often than its 95 %."
    )


def _measured(metric: ComparedMetric) -> str:
    further = [f"{metric.clips} clips"]
    if metric.chance:
        low, high = (f"{level:.3f}" for level in metric.chance)
        further.append(f"by chance {low}" if low == high else f"by chance {low} to {high}")
    further += [f"{name} {value:.4g}" for name, value in metric.beside.items()]
    better = "Higher" if metric.higher_is_better else "Lower"
    return f"{metric.label}: {metric.measure}. {better} is better; {'; '.join(further)}."


def _notes_left_out(metric: ComparedMetric) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for clip, reason in metric.left_out.items():
        by_reason.setdefault(reason, []).append(clip)
    total = metric.clips + len(metric.left_out)
    return [
        f"{shortened(metric.label)}: {len(clips)} of {total} clips, {reason}: {_notes_named(clips)}."
        for reason, clips in by_reason.items()
    ]


def _missing(comparison: Comparison) -> list[str]:
    silent = [row for row in comparison.rows if not comparison.seeds[row] and row not in comparison.missing]
    return [
        *(line for row, seeds in comparison.missing.items() for line in _missing_seeds(row, seeds)),
        *(f"{row}: no scores." for row in silent),
        *(f"{metric}: {_sentence(reason)}" for metric, reason in comparison.absent.items()),
        *(f"{row}, {metric}: {_sentence(reason)}" for (row, metric), reason in comparison.lacking.items()),
    ]


def _missing_seeds(row: str, reasons: Mapping[int, str]) -> list[str]:
    """One line a reason."""
    by_reason: dict[str, list[int]] = {}
    for seed, reason in sorted(reasons.items()):
        by_reason.setdefault(reason, []).append(seed)
    return [
        f"{row}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}: {_sentence(reason)}"
        for reason, seeds in by_reason.items()
    ]


def _without_interval(comparison: Comparison) -> list[str]:
    return [
        f"{shortened(metric.label)}: no interval. There is one clip, or the scores were kept without their "
        "bootstrap replicates; evaluate again."
        for metric in comparison.metrics
        if not metric.drawn
    ]


def _notes_named(clips: Sequence[str]) -> str:
    more = f" and {len(clips) - _NOTES_NAMED} more" if len(clips) > _NOTES_NAMED else ""
    return ", ".join(clips[:_NOTES_NAMED]) + more


def _sentence(text: str) -> str:
    return text.strip().rstrip(".") + "."


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


MARKS = {YES: "✓ yes", NO: "✗ no", NOISE: "≈ within noise"}


def markdown(comparison: Comparison) -> str:
    """The tables under headings of the second level, and below them what has to be said."""
    return markdown_tables_document(grids(comparison), counted(comparison), notes(comparison))


def markdown_tables_document(
    tables: Sequence[Grid], sentences: Sequence[str], notes: Mapping[str, Sequence[str]]
) -> str:
    """Tables under their titles, then sentences, then notes under their headings."""
    written = [
        f"## {_escaped(grid.title)}\n\n{_escaped(grid.caption)}\n\n{_markdown_tables_table(grid)}"
        for grid in tables
    ]
    said = [f"**{_escaped(sentence)}**" for sentence in sentences]
    listed = [
        "\n".join([f"### {heading}\n", *(f"- {_escaped(line)}" for line in lines)])
        for heading, lines in notes.items()
    ]
    return "\n\n".join([*written, *said, *listed]) + "\n"


def _markdown_tables_table(grid: Grid) -> str:
    columns = [column for group in grid.groups for column in group]
    rows = [
        _line([f"**{_escaped(name)}**", *(_markdown_tables_cell(column.entries[i]) for column in columns)])
        for i, name in enumerate(grid.names)
    ]
    head = _line(["", *(_escaped(column.title) for column in columns)])
    return "\n".join([head, "|:---|" + "---:|" * len(columns), *rows])


def _markdown_tables_cell(entry: TableCell) -> str:
    figure = f"**{entry.figure}**" if entry.best else entry.figure
    under = MARKS.get(entry.under, entry.under).replace(" ", "&nbsp;")
    return f"{figure}<br><sub>{under}</sub>" if under else figure


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_|<>])", r"\\\1", " ".join(text.split()))


_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "−": "$-$", "–": "--", "≈": r"$\approx$",
    "±": r"$\pm$", "×": r"$\times$", "α": r"$\alpha$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip


def latex(comparison: Comparison) -> str:
    """The tables as `table*` floats. They need the package booktabs and nothing else."""
    return latex_tables_document(grids(comparison))


def latex_tables_document(tables: Sequence[Grid]) -> str:
    """Each table as a float; notes are left to the paper's own words."""
    return "\n".join(["% \\usepackage{booktabs}", *(_float(grid) for grid in tables)])


def _float(grid: Grid) -> str:
    columns = [column for group in grid.groups for column in group]
    label = "".join(c if c.isalnum() else "-" for c in grid.title.lower())
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{_latex_tables_escaped(f'{grid.title}. {grid.caption}')}}}\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
            r"\toprule",
            _latex_tables_line(["", *(_latex_tables_escaped(column.title) for column in columns)]),
            r"\midrule",
            *(_latex_tables_row(name, columns, i) for i, name in enumerate(grid.names)),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
            "",
        ]
    )


def _latex_tables_row(name: str, columns: Sequence[Column], i: int) -> str:
    entries = [column.entries[i] for column in columns]
    lines = [_latex_tables_line([_latex_tables_escaped(name), *map(_latex_tables_figure, entries)])]
    if any(entry.under for entry in entries):
        lines.append(_latex_tables_line(["", *map(_under, entries)]))
    return "\n".join(lines)


def _latex_tables_line(cells: Sequence[str]) -> str:
    return " & ".join(cells).strip() + r" \\"


def _latex_tables_figure(entry: TableCell) -> str:
    figure = _latex_tables_escaped(entry.figure)
    return rf"\textbf{{{figure}}}" if entry.best else figure


def _under(entry: TableCell) -> str:
    return rf"{{\tiny {_latex_tables_escaped(entry.under)}}}" if entry.under else ""


def _latex_tables_escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)


LONG_TABLE_COLUMNS = (
    "row", "metric", "direction", "value", "low", "high", "seeds", "clips",
    "baseline", "difference", "difference_low", "difference_high",
    "builds_on", "step", "step_low", "step_high",
    "published", "published_difference", "sign_as_published", "published_step", "step_sign_as_published",
)  # fmt: skip


def csv(comparison: Comparison) -> str:
    """One line for a row and a metric; what there is not is empty. Seeds are separated by spaces."""
    text = io.StringIO()
    table = writer.DictWriter(text, LONG_TABLE_COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in comparison.rows:
        for metric in comparison.metrics:
            table.writerow(_long_table_line(comparison, row, metric))
    return text.getvalue()


def _long_table_line(comparison: Comparison, row: str, metric: ComparedMetric) -> dict[str, object]:
    return {
        "row": row,
        "metric": metric.name,
        "direction": "higher" if metric.higher_is_better else "lower",
        **_long_table_measured(comparison, row, metric),
        "baseline": comparison.baseline,
        **_difference("difference", comparison.difference(row, metric, "to_baseline")),
        "builds_on": comparison.builds_on.get(row),
        **_difference("step", comparison.difference(row, metric, "to_step")),
        "published": comparison.published.get(row, {}).get(metric.name),
        **_published("difference", comparison.difference(row, metric, "to_baseline"), "sign_as_published"),
        **_published("step", comparison.difference(row, metric, "to_step"), "step_sign_as_published"),
    }


def _long_table_measured(comparison: Comparison, row: str, metric: ComparedMetric) -> dict[str, object]:
    cell = comparison.cells.get((row, metric.name))
    if cell is None:
        return {}
    own = cell.estimate
    seeds = " ".join(map(str, own.by_seed))
    return {"value": own.value, "low": own.low, "high": own.high, "seeds": seeds, "clips": metric.clips}


def _difference(name: str, difference: Difference | None) -> dict[str, object]:
    if difference is None:
        return {}
    own = difference.estimate
    return {name: own.value, f"{name}_low": own.low, f"{name}_high": own.high}


def _published(name: str, difference: Difference | None, sign: str) -> dict[str, object]:
    if difference is None:
        return {}
    verdict = "" if difference.verdict == UNKNOWN else difference.verdict
    return {f"published_{name}": difference.published, sign: verdict}
