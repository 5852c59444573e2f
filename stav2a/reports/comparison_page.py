"""One page on which rows are compared: tables, plots, and each clip seen and heard through all rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stav2a.evaluation.comparison import NO, NOISE, YES, ComparedMetric, Comparison, ComparisonError
from stav2a.reports.html import Media, render
from stav2a.reports.plots import Curve, Mark, forest_png, panels_png, strip_png
from stav2a.reports.tables import (
    MARKS,
    Grid,
    NumberFormat,
    counted,
    grids,
    headed,
    notes,
    number_format,
    shortened,
)
from stav2a.utils.files import write_text

BESIDE = "paper (rank)"


def forests(comparison: Comparison) -> list[Media]:
    """One picture a metric; its label says in words what is seen."""
    return [
        Media(_in_words(comparison, metric), _picture(comparison, metric), "image/png")
        for metric in comparison.metrics
    ]


def _picture(comparison: Comparison, metric: ComparedMetric) -> bytes:
    beside = _published(comparison, metric, number_format(comparison, metric))
    return forest_png(
        {row: _mark(comparison, row, metric, beside.get(row, "")) for row in comparison.rows},
        title=headed(metric),
        baseline=comparison.baseline,
        beside=BESIDE if beside else "",
    )


def _mark(comparison: Comparison, row: str, metric: ComparedMetric, beside: str) -> Mark | None:
    cell = comparison.cells.get((row, metric.name))
    if cell is None:
        return None
    own = cell.estimate
    parts = list(own.by_seed.values()) if len(own.by_seed) > 1 else []
    sure = cell.to_baseline is not None and cell.to_baseline.estimate.excludes_zero
    return Mark(own.value, own.low, own.high, parts, sure, beside)


def _published(comparison: Comparison, metric: ComparedMetric, write: NumberFormat) -> dict[str, str]:
    """Row -> its published figure, and its place among the rows, the best first."""
    figures = {
        row: comparison.published[row][metric.name]
        for row in comparison.rows
        if metric.name in comparison.published.get(row, {})
    }
    best_first = sorted(figures.values(), reverse=metric.higher_is_better)
    return {
        row: f"{write.published_figure(value)}  ({best_first.index(value) + 1})"
        for row, value in figures.items()
    }


def _in_words(comparison: Comparison, metric: ComparedMetric) -> str:
    write = number_format(comparison, metric)
    values = (
        f"{row} {write.figure(comparison.cells[row, metric.name].estimate.value)}"
        for row in comparison.having(metric)
    )
    return f"{shortened(metric.label)} by row: {', '.join(values)}"


CLASSES = {YES: "yes", NO: "no", NOISE: "noise"}
KINDS = {".mp4": "video/mp4", ".wav": "audio/wav"}
REAL = "real sound"


@dataclass(frozen=True)
class RowClip:
    """What one row made of a clip.

    Args:
        video: The clip with its new sound, a file that browsers play (mp4); without a film, the sound.
        audio: The new sound alone (wav).
        facts: Name -> value, such as its own scores by their labels.
    """

    video: Path
    audio: Path
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ComparedClip:
    """One held-out clip, through all rows.

    Args:
        id: Its name in the dataset.
        caption: What the text encoder read.
        tags: Short words in boxes: the class, "vague caption".
        onsets_s: When its events truly happen; empty where that is not known.
        duration_s: How long it is.
        reference: Its real sound (wav).
        rows: Row -> what it made of it. Rows may be missing.
    """

    id: str
    caption: str
    tags: Sequence[str]
    onsets_s: Sequence[float]
    duration_s: float
    reference: Path
    rows: Mapping[str, RowClip]


@dataclass(frozen=True)
class Card:
    """A sound to play, and its picture.

    Args:
        title: Whose it is.
        player: The film, or the sound.
        picture: Its spectrogram.
        facts: Name -> value.
    """

    title: str
    player: Media
    picture: Media
    facts: Mapping[str, str]


def write_comparison(
    path: Path,
    comparison: Comparison,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    clips: Sequence[ComparedClip] = (),
    curves: Mapping[str, Mapping[str, Curve]] | None = None,
    details: Mapping[str, str | Mapping[str, str]] | None = None,
    tables: Sequence[Grid] | None = None,
    words: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: Where to. The folder exists.
        comparison: As `compare` gives it.
        title: Heading of the page.
        facts: Name -> value under the heading: seeds, scale, device, date.
        clips: What can be seen and heard.
        curves: Loss -> row -> (step, value) pairs.
        details: Heading -> a text or a table, folded: the study, its command, the environment.
        tables: Other tables than the comparison's own.
        words: Other notes than the comparison's own, by heading.

    Returns:
        The path.

    Raises:
        ComparisonError: A clip through a row that is not compared.
        MediaError: A sound that can't be read.
    """
    page = render(
        "comparison.html",
        title=title,
        facts=facts or {},
        comparison=comparison,
        summary=counted(comparison),
        grids=grids(comparison) if tables is None else tables,
        marks=MARKS,
        classes=CLASSES,
        notes=notes(comparison) if words is None else words,
        forests=forests(comparison),
        clips=[(clip, _cards(clip, comparison)) for clip in clips],
        curves=Media("Training curves, a line for each row", panels_png(curves), "image/png")
        if curves
        else None,
        details=details or {},
    )
    write_text(Path(path), page)
    return Path(path)


def _cards(clip: ComparedClip, comparison: Comparison) -> list[Card]:
    """The real sound, then every row's, in the table's order, on one colour scale."""
    if strangers := [name for name in clip.rows if name not in comparison.rows]:
        raise ComparisonError(
            f"clip {clip.id} came through {strangers[0]!r}, which is not a row. "
            f"The rows are: {', '.join(comparison.rows)}."
        )
    names = [name for name in comparison.rows if name in clip.rows]
    mels = {REAL: _mel(clip.reference)} | {name: _mel(clip.rows[name].audio) for name in names}
    loudest = max(float(mel.max()) for mel in mels.values())
    pictures = {
        name: Media(
            f"spectrogram, {name}",
            strip_png(mel, clip.duration_s, clip.onsets_s, loudest),
            "image/png",
        )
        for name, mel in mels.items()
    }
    real = Card(REAL, Media(REAL, clip.reference, "audio/wav"), pictures[REAL], {})
    return [real, *(_made(name, clip.rows[name], pictures[name]) for name in names)]


def _made(name: str, own: RowClip, picture: Media) -> Card:
    facts = {shortened(label): value for label, value in own.facts.items()}
    return Card(name, Media(name, own.video, KINDS[own.video.suffix]), picture, facts)


def _mel(sound: Path) -> np.ndarray:
    """Log-mel magnitudes (T, M) of a sound file."""
    import torch  # takes seconds, and tables need none of it

    from stav2a.data import mel as front_end
    from stav2a.data.media import read_audio

    audio = torch.from_numpy(read_audio(sound, front_end.SAMPLE_RATE))
    return front_end.log_mel(audio[None])[0, 0].numpy()
