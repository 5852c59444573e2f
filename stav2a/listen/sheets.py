"""The tables of a listening test, and what has to be said under them."""

import math
from collections.abc import Sequence

from stav2a.comparison.tables.grids import PAPER, Column, Entry, Grid
from stav2a.comparison.tables.numerals import NOTHING, Numerals
from stav2a.listen.analysis import Analysis, Figure
from stav2a.listen.published import SOURCE, published
from stav2a.listen.scales import HIGHEST, LOWEST, SCALES, Scale
from stav2a.listen.statistics import RESAMPLES

WRITE = Numerals(decimals=2, published=2)


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
        Entry(_with_half(figure), WRITE.interval(figure.estimate), figure.estimate.value == best)
        for figure in figures
    ]
    columns = [Column(f"{scale.label} ↑", ours)]
    theirs = [published(system).get(scale.name) for system in analysis.systems]
    if any(theirs):
        columns.append(
            Column(PAPER, [Entry(f"{p.mean:.2f} ± {p.half:.2f}" if p else NOTHING) for p in theirs])
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
            Entry(WRITE.change(change.value), WRITE.change_interval(change)) for change in changes if change
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
    return [Column(PAPER, [Entry(WRITE.published_change(p.mean - base.mean if p else None)) for p in theirs])]


def _agreement(analysis: Analysis) -> Grid:
    return Grid(
        title="Agreement between annotators",
        caption="Krippendorff's α (interval scale) over all clips and systems: 1 is perfect, 0 is chance.",
        names=["Krippendorff's α"],
        groups=[
            [Column(scale.label, [Entry(WRITE.figure(analysis.agreement[scale.name]))])] for scale in SCALES
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
