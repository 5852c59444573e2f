"""The report on a listening test: tables in three forms, two CSV files, and MLflow metrics."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

from stav2a.evaluation.published import plain, read_published
from stav2a.experiments.tracking import Tracker
from stav2a.listening.analysis import RESAMPLES, RatingAnalysis, analyse
from stav2a.listening.database import HIGHEST, LOWEST, NAMES, SCALES, Rating
from stav2a.listening.setup import ListeningTest
from stav2a.reports.comparison_tables import BEST
from stav2a.reports.tables import PAPER, Cell, Document, NumberFormat, Table, csv_of
from stav2a.utils.files import write_text
from stav2a.utils.shipped import shipped_root

FILE = "table2_paper.csv"
SOURCE = (
    "Table II of arXiv:2409.08601v2, 6 professional annotators, 20 clips a model; it does not say how its ± "
    "were computed"
)
ENOUGH = {"annotator": 6, "clip": 8}  # for intervals that contain the truth about as often as they say
NUMBERS = NumberFormat(decimals=2)
FILES = ("report.md", "report.csv", "report.tex", "ratings.csv")


class PublishedMean(NamedTuple):
    """A mean of the paper, and half of its 95 % interval."""

    mean: float
    half: float


@functools.cache
def published(system: str) -> dict[str, PublishedMean]:
    """The paper's mean on each scale for a system of this name, whatever its capitals and strokes; or none.

    Example:
        >>> published("sta_v2a")["oq"], published("mine")
        (PublishedMean(mean=92.0, half=1.03), {})
    """
    rows = read_published(shipped_root("ablations") / FILE, rows=["GT"], metrics=NAMES)
    figures = {plain(row): figures for row, figures in rows.items()}.get(plain(system))
    return {scale: PublishedMean(figures[scale], figures[f"{scale}_ci"]) for scale in NAMES if figures}


def means_csv(analysis: RatingAnalysis) -> str:
    """A line for each system and scale, with all digits; what is not known is empty."""
    lines = []
    for (system, scale), figure in analysis.means.items():
        change, paper = figure.difference, published(system).get(scale)
        lines.append(
            {
                "system": system,
                "scale": scale,
                "mean": figure.mean.value,
                "t_half_width": figure.t_half_width,
                "low": figure.mean.low,
                "high": figure.mean.high,
                "ratings": analysis.n,
                "annotators": analysis.annotators,
                "clips": analysis.clips,
                "alpha": analysis.agreement[scale],
                "against": change and analysis.test.systems[0],
                "difference": change and change.value,
                "difference_low": change and change.low,
                "difference_high": change and change.high,
                "paper": paper and paper.mean,
                "paper_half_width": paper and paper.half,
            }
        )
    return csv_of(lines)


def ratings_csv(ratings: Sequence[Rating]) -> str:
    """All ratings with their systems; annotators are numbered, so that the file can be passed on."""
    numbers = {name: i for i, name in enumerate(sorted({each.annotator for each in ratings}), start=1)}
    return csv_of(
        {
            "annotator": numbers[each.annotator],
            "clip": each.clip,
            "system": each.system,
            "scale": each.scale,
            "value": each.value,
            "heard": "yes" if each.played else "no",
            "at": each.at,
        }
        for each in ratings
    )


def tables_of(analysis: RatingAnalysis) -> list[Table]:
    """Means, differences to the first system if there are others, and agreement."""
    first, *others = analysis.test.systems
    means: dict[tuple[str, str], list[Cell]] = {}
    differences, agreement = {}, {}
    for scale in SCALES:
        name, title = scale.name, f"{scale.label} ↑"
        rows = {system: analysis.means[system, name] for system in analysis.test.systems}
        paper = {system: figures[name] for system in rows if (figures := published(system))}
        means[name, title] = []
        for system, row in rows.items():
            cell = NUMBERS.estimate(row.mean, best=analysis.best.get(name) == system)
            half = f" ± {row.t_half_width:.2f}" if math.isfinite(row.t_half_width) else ""
            means[name, title].append(cell._replace(figure=cell.figure + half))
        changes = [change for system in others if (change := rows[system].difference)]
        differences[name, title] = [NUMBERS.estimate(each, signed=True) for each in changes]
        if paper:
            given = [paper.get(system) for system in rows]
            means[name, PAPER] = [
                Cell(f"{each.mean:.2f} ± {each.half:.2f}") if each else Cell() for each in given
            ]
        if first in paper and len(paper) > 1:
            steps = [paper[each].mean - paper[first].mean if each in paper else None for each in others]
            differences[name, PAPER] = [NUMBERS.cell(step, signed=True) for step in steps]
        agreement[name, scale.label] = [NUMBERS.cell(analysis.agreement[name])]

    counts = f"{_counted(analysis.annotators, 'annotator')}, {_counted(analysis.clips, 'clip')}"
    beside = " Beside them the paper's figures." if any(map(published, analysis.test.systems)) else ""
    tables = [
        Table.of(
            "Ratings",
            f"Means on scales from {LOWEST} to {HIGHEST} ± t intervals, and in brackets cluster "
            f"bootstrap intervals, both 95 %. n = {analysis.n} ratings a figure: {counts}. {BEST}{beside}",
            analysis.test.systems,
            means,
        ),
        Table.of(
            f"Differences to {first}",
            "Paired: the same annotators and clips on both sides. 95 % cluster bootstrap intervals.",
            others,
            differences,
        ),
        Table.of(
            "Agreement between annotators",
            "Krippendorff's α (interval scale) of all clips and systems: 1 is perfect, 0 is chance.",
            ["Krippendorff's α"],
            agreement,
        ),
    ]
    return [table for table in tables if not table.cells.empty]


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def notes_of(analysis: RatingAnalysis) -> list[str]:
    """Sentences on how to read the tables."""
    lines = [f"{scale.label}: {scale.title.lower()}. Asked: {scale.question}" for scale in SCALES]
    lines += [
        "± takes all ratings as independent. Ratings by one annotator, or of one clip, are not: these "
        "intervals are too narrow, and are given because papers give them.",
        f"In brackets: {RESAMPLES} draws of annotators and of clips, independently.",
    ]
    for word, count in (("annotator", analysis.annotators), ("clip", analysis.clips)):
        if count == 1:
            lines.append(f"One {word}: the intervals do not cover how much another one would differ.")
        elif count < ENOUGH[word]:
            lines.append(f"{count} {word}s are few: intervals contain the truth less often than their 95 %.")
    pairs = len(analysis.progress) * len(analysis.test.clips)
    if analysis.n < pairs:
        lines.append(
            f"Left out: {pairs - analysis.n} of {pairs} pairs of annotator and clip, which are not rated "
            "through all systems."
        )
    if any(map(published, analysis.test.systems)):
        lines.append(f"The paper's figures: {SOURCE}. Other clips and other annotators than here.")
    return lines


def write_report(test: ListeningTest, tracker: Tracker, width: int) -> str:
    """Write report.md, .csv, .tex and ratings.csv into the folder, and track them.

    Args:
        test: The test.
        tracker: Tracker of files and metrics.
        width: Width of the terminal.

    Returns:
        The tables for a terminal, each annotator's progress, and the paths of the files.

    Raises:
        ListenError: There is nothing to report yet.
    """
    ratings = test.database.ratings()
    analysis = analyse(test, ratings)
    document = Document(tables_of(analysis), {"How to read them": notes_of(analysis)})
    texts = (
        f"# Listening test\n\n{document.markdown()}",
        means_csv(analysis),
        document.latex(),
        ratings_csv(ratings),
    )
    files = dict(zip(FILES, texts, strict=True))
    for name, text in files.items():
        write_text(test.folder / name, text)
        tracker.log_text(text, name)

    metrics = {f"alpha/{scale}": value for scale, value in analysis.agreement.items()}
    for (system, scale), figure in analysis.means.items():
        own = figure.mean
        metrics |= {f"{scale}/{system}": own.value, f"{scale}_t_half_width/{system}": figure.t_half_width}
        if own.low is not None and own.high is not None:
            metrics |= {f"{scale}_low/{system}": own.low, f"{scale}_high/{system}": own.high}
    tracker.log_metrics({k: value for k, value in metrics.items() if math.isfinite(value)}, step=analysis.n)

    progress = [
        f"{name}: {done} of {len(analysis.test.clips)} clips rated through all systems"
        for name, done in analysis.progress.items()
    ]
    places = [str(test.folder / name) for name in files]
    return "\n".join([document.text(width), *progress, "", *places])
