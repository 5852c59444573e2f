"""The table of a listening test written down: in four forms, and in MLflow."""

import csv
import functools
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

from stav2a.evaluation.published import plain, read_published
from stav2a.experiments.tracking import Tracker
from stav2a.listening.analysis import RESAMPLES, Analysis, Figure, analyse
from stav2a.listening.database import HIGHEST, LOWEST, NAMES, SCALES, Rating, Scale
from stav2a.listening.setup import ListeningTest
from stav2a.recipe.parsing import shipped_root
from stav2a.reports import tables
from stav2a.reports.tables import NOTHING, PAPER, Column, Grid, NumberFormat, TableCell
from stav2a.utils.files import write_text

FILE = "table2_paper.csv"
SOURCE = (
    "Table II of arXiv:2409.08601v2, 6 professional annotators, 20 clips a model; it does not tell how its ± "
    "were computed"
)


class Published(NamedTuple):
    """A mean, and half of its 95 % interval."""

    mean: float
    half: float


def published(system: str) -> dict[str, Published]:
    """Scale -> the paper's figure for a system of this name, whatever its capitals and strokes; or nothing.

    Example:
        >>> published("sta_v2a")["oq"], published("mine")
        (Published(mean=92.0, half=1.03), {})
    """
    return _table().get(plain(system), {})


@functools.cache
def _table() -> dict[str, dict[str, Published]]:
    rows = read_published(shipped_root("ablations") / FILE, rows=["GT"], metrics=NAMES)
    return {
        plain(row): {scale: Published(figures[scale], figures[f"{scale}_ci"]) for scale in NAMES}
        for row, figures in rows.items()
    }


COLUMNS = (
    "system", "scale", "mean", "t_half_width", "low", "high", "ratings", "annotators", "clips", "alpha",
    "against", "difference", "difference_low", "difference_high", "paper", "paper_half_width",
)  # fmt: skip


def figures_csv(analysis: Analysis) -> str:
    """One line for a system and a scale, with all digits; what there is not is empty."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for (system, scale), figure in analysis.figures.items():
        paper, change = published(system).get(scale), figure.difference
        own = {
            "system": system,
            "scale": scale,
            "mean": figure.estimate.value,
            "t_half_width": _or_empty(figure.half),
            "low": figure.estimate.low,
            "high": figure.estimate.high,
            "ratings": analysis.n,
            "annotators": analysis.annotators,
            "clips": analysis.clips,
            "alpha": _or_empty(analysis.agreement[scale]),
        }
        if change:
            own |= {"against": analysis.systems[0], "difference": change.value}
            own |= {"difference_low": change.low, "difference_high": change.high}
        table.writerow(own | ({"paper": paper.mean, "paper_half_width": paper.half} if paper else {}))
    return text.getvalue()


def ratings_csv(ratings: Sequence[Rating]) -> str:
    """All ratings, unblinded; annotators are numbered, so that the file can be passed on."""
    numbers = {name: i for i, name in enumerate(sorted({each.annotator for each in ratings}), start=1)}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("annotator", "clip", "system", "scale", "value", "heard", "at"))
    for each in ratings:
        heard = "yes" if each.heard else "no"
        table.writerow(
            (numbers[each.annotator], each.clip, each.system, each.scale, each.value, heard, each.at)
        )
    return text.getvalue()


def _or_empty(value: float) -> float | None:
    return value if math.isfinite(value) else None


WRITE = NumberFormat(decimals=2, published=2)


def grids_of(analysis: Analysis) -> list[Grid]:
    """Means, differences to the first system if there are others, and agreement."""
    tables = [_means(analysis), _differences(analysis), _agreement(analysis)]
    return [table for table in tables if table.names]


def notes_of(analysis: Analysis) -> dict[str, list[str]]:
    """Heading -> sentences."""
    return {"How to read them": _notes(analysis)}


def _means(analysis: Analysis) -> Grid:
    beside = " Beside them the paper's figures." if any(map(published, analysis.systems)) else ""
    return Grid(
        title="Ratings",
        caption=f"Means on scales from {LOWEST} to {HIGHEST} ± t intervals, and in brackets cluster "
        f"bootstrap intervals, both 95 %. {_counted(analysis)}. The best of each column is marked.{beside}",
        names=list(analysis.systems),
        groups=[_mean_columns(analysis, scale) for scale in SCALES],
    )


def _mean_columns(analysis: Analysis, scale: Scale) -> list[Column]:
    figures = [analysis.figures[system, scale.name] for system in analysis.systems]
    best = max(figure.estimate.value for figure in figures)
    ours = [
        TableCell(_with_half(figure), WRITE.interval(figure.estimate), figure.estimate.value == best)
        for figure in figures
    ]
    columns = [Column(f"{scale.label} ↑", ours)]
    theirs = [published(system).get(scale.name) for system in analysis.systems]
    if any(theirs):
        columns.append(
            Column(PAPER, [TableCell(f"{p.mean:.2f} ± {p.half:.2f}" if p else NOTHING) for p in theirs])
        )
    return columns


def _with_half(figure: Figure) -> str:
    mean = WRITE.figure(figure.estimate.value)
    return f"{mean} ± {figure.half:.2f}" if math.isfinite(figure.half) else mean


def _differences(analysis: Analysis) -> Grid:
    first, *others = analysis.systems
    groups = []
    for scale in SCALES:
        changes = [analysis.figures[system, scale.name].difference for system in others]
        ours = [
            TableCell(WRITE.change(change.value), WRITE.change_interval(change))
            for change in changes
            if change
        ]
        groups.append([Column(f"{scale.label} ↑", ours), *_published_differences(first, others, scale)])
    return Grid(
        title=f"Differences to {first}",
        caption="Paired: the same annotators and clips on both sides. 95 % cluster bootstrap intervals.",
        names=others,
        groups=groups,
    )


def _published_differences(first: str, others: Sequence[str], scale: Scale) -> list[Column]:
    base = published(first).get(scale.name)
    theirs = [published(system).get(scale.name) for system in others]
    if base is None or not any(theirs):
        return []
    return [
        Column(PAPER, [TableCell(WRITE.published_change(p.mean - base.mean if p else None)) for p in theirs])
    ]


def _agreement(analysis: Analysis) -> Grid:
    return Grid(
        title="Agreement between annotators",
        caption="Krippendorff's α (interval scale) over all clips and systems: 1 is perfect, 0 is chance.",
        names=["Krippendorff's α"],
        groups=[
            [Column(scale.label, [TableCell(WRITE.figure(analysis.agreement[scale.name]))])]
            for scale in SCALES
        ],
    )


def _notes(analysis: Analysis) -> list[str]:
    lines = [f"{scale.label}: {scale.title.lower()}. Asked: {scale.question}" for scale in SCALES]
    lines += [
        "± takes all ratings as independent. Ratings by one annotator, or of one clip, are not: these "
        "intervals are too narrow, and are given because papers give them.",
        f"In brackets: {RESAMPLES} draws of annotators and of clips, independently.",
    ]
    for word, count, enough in (("annotator", analysis.annotators, 6), ("clip", analysis.clips, 8)):
        if count == 1:
            lines.append(f"One {word}: the intervals tell nothing of how much another one would differ.")
        elif count < enough:
            lines.append(f"{count} {word}s are few: intervals hold the truth less often than their 95 %.")
    pairs = len(analysis.progress) * analysis.total
    if analysis.n < pairs:
        lines.append(
            f"Left out: {pairs - analysis.n} of {pairs} pairs of annotator and clip, which are not rated "
            "through all systems."
        )
    if any(map(published, analysis.systems)):
        lines.append(f"The paper's figures: {SOURCE}. Other clips and other annotators than here.")
    return lines


def _counted(analysis: Analysis) -> str:
    """n, and what it is of."""
    annotators = f"{analysis.annotators} {_plural('annotator', analysis.annotators)}"
    clips = f"{analysis.clips} {_plural('clip', analysis.clips)}"
    return f"n = {analysis.n} ratings a figure: {annotators}, {clips}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def write_report(test: ListeningTest, tracker: Tracker, width: int) -> str:
    """Write report.md, .csv, .tex and ratings.csv into the folder, and track them.

    Returns:
        The tables for a terminal this wide, how far everybody is, and where the files are.

    Raises:
        ListenError: There is nothing to report yet.
    """
    ratings = test.database.ratings()
    analysis = analyse(test, ratings)
    grids, notes = grids_of(analysis), notes_of(analysis)
    files = {
        "report.md": f"# Listening test\n\n{tables.markdown_tables_document(grids, (), notes)}",
        "report.csv": figures_csv(analysis),
        "report.tex": tables.latex_tables_document(grids),
        "ratings.csv": ratings_csv(ratings),
    }
    for name, text in files.items():
        write_text(test.folder / name, text)
        tracker.log_text(text, name)
    tracker.log_metrics(_tracked(analysis), step=analysis.n)
    progress = [
        f"{name}: {done} of {analysis.total} clips rated through all systems"
        for name, done in analysis.progress.items()
    ]
    places = [str(test.folder / name) for name in files]
    return "\n".join([tables.document(grids, (), notes, width), *progress, "", *places])


def _tracked(analysis: Analysis) -> dict[str, float]:
    found = {f"alpha/{scale}": value for scale, value in analysis.agreement.items()}
    for (system, scale), figure in analysis.figures.items():
        own = figure.estimate
        found |= {f"{scale}/{system}": own.value, f"{scale}_t_half_width/{system}": figure.half}
        if own.low is not None and own.high is not None:
            found |= {f"{scale}_low/{system}": own.low, f"{scale}_high/{system}": own.high}
    return {name: value for name, value in found.items() if math.isfinite(value)}
