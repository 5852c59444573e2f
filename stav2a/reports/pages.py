"""Pages of results: tables, plots, and clips to play; and the samples of a run as files."""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stav2a.data.clip import file_stem
from stav2a.data.media import mux, read_audio, write_wav
from stav2a.data.mel import SAMPLE_RATE, log_mels
from stav2a.evaluation.comparison import Comparison, ComparisonError
from stav2a.evaluation.factorial import Effect, FactorialEffects
from stav2a.evaluation.samples import Generated
from stav2a.metrics.score import FeatureExtractor, Score, describe
from stav2a.reports.comparison_tables import MEASURED, READING, TRAINING, number_formats, titled
from stav2a.reports.effect_tables import TIMES, effect_name
from stav2a.reports.html import Media, render
from stav2a.reports.plots import (
    InteractionPanel,
    Mark,
    Panels,
    PlanePoint,
    compare_png,
    curves_png,
    forest_png,
    interactions_png,
    plane_png,
    strip_png,
)
from stav2a.reports.tables import MARKS, Document
from stav2a.utils.files import write_bytes, write_json, write_text

KINDS = {".mp4": "video/mp4", ".wav": "audio/wav"}
BAR_WIDTH = 150  # of a score's picture, in its own units


@dataclass(frozen=True)
class RowClip:
    """One row's sound for a clip.

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
    """One clip, with its real sound and the sounds of all rows.

    Args:
        id: Name in the dataset.
        caption: Text that the sounds were generated from.
        tags: Short words in boxes: the class, "vague caption".
        onsets_s: Times of the true events; empty where they are not known.
        duration_s: Duration in seconds.
        reference: Real sound (wav).
        rows: Row -> sound of the row. Rows may be missing.
    """

    id: str
    caption: str
    tags: Sequence[str]
    onsets_s: Sequence[float]
    duration_s: float
    reference: Path
    rows: Mapping[str, RowClip]


def write_samples(made: Generated, folder: Path, *, count: int) -> None:
    """Write the first clips' sounds, alone and with their pictures, and clips.json that describes them."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for clip, audio, reference in zip(made.clips[:count], made.audio, made.references, strict=False):
        name = file_stem(clip.id)
        write_wav(folder / f"{name}.wav", audio, made.sample_rate)
        write_wav(folder / f"{name}.reference.wav", reference, made.sample_rate)
        mux(clip.video, audio, made.sample_rate, folder / f"{name}.mp4", reencode=True)
        ours, theirs = (log_mels(sound[None], made.sample_rate)[0, 0].numpy() for sound in (audio, reference))
        seconds = len(audio) / made.sample_rate
        picture = compare_png({"generated": ours, "reference": theirs}, seconds, clip.onsets_s)
        write_bytes(folder / f"{name}.png", picture)
        clips.append(
            {
                "id": clip.id,
                "caption": clip.caption,
                "label": clip.label,
                "vague": bool(clip.vague),
                "onsets_s": None if clip.onsets_s is None else list(clip.onsets_s),
                "duration_s": seconds,
            }
        )
    write_json(folder / "clips.json", clips)


def sample_clips(
    folders: Mapping[str, Path], scores: Mapping[str, Sequence[Score]], metrics: Collection[str]
) -> list[ComparedClip]:
    """Clips of the first row's samples, through all rows that have them.

    Args:
        folders: Row -> folder that `write_samples` wrote.
        scores: Row -> its scores.
        metrics: Names of the scores that are shown of each clip.
    """
    described = {
        row: {clip["id"]: clip for clip in json.loads((folder / "clips.json").read_text(encoding="utf-8"))}
        for row, folder in folders.items()
    }
    return [
        ComparedClip(
            id=clip_id,
            caption=clip["caption"],
            tags=[tag for tag in (clip["label"], "vague caption" if clip["vague"] else None) if tag],
            onsets_s=clip["onsets_s"] or (),
            duration_s=clip["duration_s"],
            reference=folders[first] / f"{name}.reference.wav",
            rows={
                row: RowClip(
                    folder / f"{name}.mp4",
                    folder / f"{name}.wav",
                    clip_facts(clip_id, [score for score in scores[row] if score.name in metrics]),
                )
                for row, folder in folders.items()
                if clip_id in described[row]
            },
        )
        for first in list(folders)[:1]
        for clip_id, clip in described[first].items()
        for name in [file_stem(clip_id)]
    ]


def clip_facts(clip: str, scores: Sequence[Score]) -> dict[str, str]:
    """A clip's own scores, by label; one of several sounds says so, as the clip's player has the first."""

    def label(score: Score) -> str:
        return score.label if score.samplings == 1 else f"{score.label}, mean of {score.samplings} sounds"

    values = {label(score): score.per_clip.get(clip) for score in scores if score.per_clip}
    return {label: f"{value:.2f}" for label, value in values.items() if value is not None}


def write_page(
    path: Path,
    document: Document,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    scores: Sequence[Score] = (),
    comparison: Comparison | None = None,
    effects: FactorialEffects | None = None,
    plane: Media | None = None,
    clips: Sequence[ComparedClip] = (),
    detector: FeatureExtractor | None = None,
    curves: Panels | None = None,
    details: Mapping[str, str | Mapping[str, str]] | None = None,
) -> Path:
    """Write a page of results, whole or not at all.

    Args:
        path: The file. Its folder exists.
        document: Tables and notes.
        title: Heading of the page.
        facts: Name -> value under the heading: recipe, seed, scale, device, date.
        scores: Scores of a run, to be drawn as bars beside the first table's rows.
        comparison: Rows, to be drawn as a plot of each metric.
        effects: Effects of factors on the rows, to be drawn as plots of each metric.
        plane: Picture of `plane_picture`, above those of each metric.
        clips: Clips to play.
        detector: Onset detector whose onsets are marked in the clips' sounds.
        curves: Training curves, see `plots.curves_png`.
        details: Heading -> a text or a table, folded: the recipe, its lineage, the environment.

    Raises:
        ReportError: A media kind that no browser plays.
        ComparisonError: A clip through a row that is not compared.
        MediaError: A sound that can't be read.
    """
    page = render(
        "report.html",
        title=title,
        facts=facts or {},
        document=document,
        marks=MARKS,
        bars={titled(score): bar for score in scores if (bar := _bar(score))},
        comparison=comparison,
        effects=[_main_effects(comparison, effects), _interactions(comparison, effects)]
        if comparison and effects
        else [],
        plane=plane,
        pictures=[_forest(comparison, each.score) for each in comparison.metrics] if comparison else [],
        clips=[(clip, list(_cards(clip, comparison, detector))) for clip in clips],
        detector=describe(detector) if detector else "",
        folded=(READING, MEASURED),
        curves=Media("Training curves", curves_png(curves), "image/png") if curves else None,
        details=details or {},
    )
    write_text(path, page)
    return path


def _cards(
    clip: ComparedClip, comparison: Comparison | None, detector: FeatureExtractor | None
) -> Iterator[tuple[Media, Media, Mapping[str, str]]]:
    """Player, spectrogram and facts of the real sound, then of every row in the table's order.

    The spectrograms are on one colour scale.
    """
    unknown = [name for name in clip.rows if comparison and name not in comparison.rows]
    if comparison and unknown:
        raise ComparisonError(
            f"clip {clip.id} came through {unknown[0]!r}, which is not a row.",
            advice=f"The rows are: {', '.join(comparison.rows)}.",
        )
    order = comparison.rows if comparison else list(clip.rows)
    rows = {"real sound": RowClip(clip.reference, clip.reference)}
    rows |= {name: clip.rows[name] for name in order if name in clip.rows}
    mels, detected = {}, {}
    for name, row in rows.items():
        sound = read_audio(row.audio, SAMPLE_RATE)
        mels[name] = log_mels(sound[None], SAMPLE_RATE)[0, 0].numpy()
        detected[name] = detector(sound, SAMPLE_RATE) if detector else None
    loudest = max(float(mel.max()) for mel in mels.values())
    for name, row in rows.items():
        player = Media(name, row.video, KINDS.get(row.video.suffix, row.video.suffix))
        picture = strip_png(mels[name], clip.duration_s, clip.onsets_s, loudest, detected[name])
        yield player, Media(f"spectrogram, {name}", picture, "image/png"), row.facts


def _bar(score: Score) -> dict[str, float] | None:
    """Positions of value, interval and chance on a line of BAR_WIDTH, from 0 to 1 or to the largest."""
    places = {"value": score.value, "low": score.low, "high": score.high, "chance": score.chance}
    known = {name: place for name, place in places.items() if place is not None}
    if score.low is None or score.high is None or not all(map(math.isfinite, known.values())):
        return None
    start, most = min(0.0, *known.values()), max(known.values())
    end = 1.0 if most <= 1 else 1.15 * most
    return {name: round(BAR_WIDTH * (place - start) / (end - start), 1) for name, place in known.items()}


def _forest(comparison: Comparison, score: Score) -> Media:
    """Forest plot of one metric, with its figures as its description."""
    name = score.name
    ours, theirs = number_formats(comparison, name)
    by_row = comparison.published
    published = {row: by_row[row][name] for row in comparison.rows if name in by_row.get(row, {})}
    best_first = sorted(published.values(), reverse=score.higher_is_better)
    marks: dict[str, Mark | None] = dict.fromkeys(comparison.rows)
    for row in comparison.rows:
        if own := comparison.estimates.get((row, name)):
            difference, beside = comparison.to_baseline.get((row, name)), ""
            if row in published:
                beside = f"{theirs.figure(published[row])}  ({best_first.index(published[row]) + 1})"
            marks[row] = Mark(
                own.value,
                own.low,
                own.high,
                parts=list(own.by_seed.values()) if len(own.by_seed) > 1 else [],
                sure=difference is not None and difference.excludes_zero,
                beside=beside,
            )
    heading = "paper (rank)" if published else ""
    picture = forest_png(
        marks, title=titled(score), label=score.label, baseline=comparison.baseline, beside=heading
    )
    values = [f"{row} {ours.figure(value)}" for row, value in comparison.values(name).items()]
    return Media(f"{score.label} by row: {', '.join(values)}", picture, "image/png")


def plane_picture(
    comparison: Comparison, plane: Sequence[str], costs: Mapping[str, Mapping[str, float]]
) -> Media | None:
    """Rows in the plane of two metrics, the area of a dot by the seconds of training.

    None where the study names no plane, or no row has both metrics.
    """
    scores = {metric.score.name: metric.score for metric in comparison.metrics}
    if not plane or not set(plane) <= set(scores):
        return None
    across, up = (scores[name] for name in plane)
    points = {}
    for row in comparison.rows:
        found = [each for name in plane if (each := comparison.estimates.get((row, name)))]
        if len(found) == len(plane):
            x, y = (Mark(each.value, each.low, each.high) for each in found)
            points[row] = PlanePoint(x, y, costs.get(row, {}).get(TRAINING))
    if not points:
        return None
    picture = plane_png(points, across=titled(across), up=titled(up), baseline=comparison.baseline)
    told = f"{up.label} against {across.label} of {', '.join(points)}; the table has the figures"
    return Media(told, picture, "image/png")


def _main_effects(comparison: Comparison, effects: FactorialEffects) -> list[Media]:
    """Forest plot of the main effects on each metric, with their figures as its description."""
    pictures = []
    for score in (metric.score for metric in comparison.metrics):
        ours, _ = number_formats(comparison, score.name)
        mains = [each for each in effects.mains[score.name] if not each.is_baseline]
        marks = {effect_name(each): _effect_mark(each) for each in mains}
        label = f"{score.label}, difference to the baseline's level"
        picture = forest_png(
            marks, title=f"Main effects: {titled(score)}", label=label, line=0.0, least=ours.span
        )
        values = [f"{name} {ours.figure(mark.value, signed=True)}" for name, mark in marks.items() if mark]
        pictures.append(Media(f"Main effects on {score.label}: {', '.join(values)}", picture, "image/png"))
    return pictures


def _effect_mark(effect: Effect) -> Mark | None:
    if (own := effect.difference) is None:
        return None
    parts = list(own.by_seed.values()) if len(own.by_seed) > 1 else []
    return Mark(own.value, own.low, own.high, parts=parts, sure=own.excludes_zero)


def _interactions(comparison: Comparison, effects: FactorialEffects) -> list[Media]:
    """Interaction plots of all pairs of factors for each metric; none of a single factor."""
    pictures = []
    for score in (metric.score for metric in comparison.metrics):
        ours, _ = number_formats(comparison, score.name)
        cells: dict[tuple[str, ...], list[Effect]] = {}
        for each in effects.interactions[score.name]:
            cells.setdefault(tuple(each.levels), []).append(each)
        if panels := [_panel(effects, found) for found in cells.values()]:
            picture = interactions_png(
                panels, title=f"Interactions: {titled(score)}", label=score.label, least=ours.span
            )
            told = f"Interactions on {score.label}: means of pairs of levels; the table has the figures"
            pictures.append(Media(told, picture, "image/png"))
    return pictures


def _panel(effects: FactorialEffects, cells: Sequence[Effect]) -> InteractionPanel:
    """Panel of one pair of factors: the one with more levels on the axis."""
    axis, other = sorted(cells[0].levels, key=lambda factor: -len(effects.factors[factor]))
    means = {(each.levels[axis], each.levels[other]): each.mean for each in cells}
    ticks = effects.factors[axis]
    lines = {
        level: [mean.value if (mean := means[tick, level]) else None for tick in ticks]
        for level in effects.factors[other]
    }
    sure = any(each.difference and each.difference.excludes_zero for each in cells)
    return InteractionPanel(f"{'● ' if sure else ''}{axis} {TIMES} {other}", ticks, lines)
