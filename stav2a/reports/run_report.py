"""Samples of a run to hear and to see: wav, mp4, spectrograms, and the report that shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stav2a.data import mel as front_end
from stav2a.data.clip import Clip
from stav2a.data.media import mux, write_wav
from stav2a.evaluation.samples import Generated, log_mels
from stav2a.metrics.score import Score
from stav2a.reports.html import Media, render
from stav2a.reports.plots import compare_png
from stav2a.utils.files import write_bytes, write_json, write_text


@dataclass(frozen=True)
class ReportClip:
    """One clip, to see and to hear.

    Args:
        id: Its name in the dataset.
        caption: What the text encoder read.
        tags: Short words in boxes: the class, "vague caption".
        facts: Name -> value, such as its own scores.
        media: Films, sounds and pictures, in the order they are shown.
    """

    id: str
    caption: str
    tags: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    media: Sequence[Media] = ()


def write_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    scores: Sequence[Score] = (),
    notes: Sequence[str] = (),
    clips: Sequence[ReportClip] = (),
    curves: bytes | None = None,
    details: Mapping[str, str | Mapping[str, str]] | None = None,
) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: Where to. The folder exists.
        title: Heading of the page.
        facts: Name -> value under the heading: recipe, seed, scale, commit.
        scores: Rows of the table, as `evaluate` gives them.
        notes: Sentences under the table, such as which classifier was used.
        clips: What can be seen and heard.
        curves: Training curves as PNG, see `plots.curves_png`.
        details: Heading -> a text or a table, folded: the recipe's snapshot, its lineage, the environment.

    Returns:
        The path.

    Raises:
        ReportError: A media kind that no browser plays.
    """
    page = render(
        "report.html",
        title=title,
        facts=facts or {},
        scores=scores,
        notes=notes,
        clips=clips,
        curves=Media("Training curves", curves, "image/png") if curves else None,
        details=details or {},
    )
    write_text(Path(path), page)
    return Path(path)


SHOWN = ("aa_align", "av_align", "onset_f1")


def write_samples(made: Generated, folder: Path, *, count: int) -> list[str]:
    """Write the first clips' sounds, alone and with their pictures, and clips.json that tells of them.

    Returns:
        The clips' ids.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for clip, audio, reference in zip(made.clips[:count], made.audio, made.references, strict=False):
        write_wav(folder / f"{clip.id}.wav", audio, front_end.SAMPLE_RATE)
        write_wav(folder / f"{clip.id}.reference.wav", reference, front_end.SAMPLE_RATE)
        mux(clip.video, audio, front_end.SAMPLE_RATE, folder / f"{clip.id}.mp4")
        write_bytes(folder / f"{clip.id}.png", _picture(clip, audio, reference))
    write_json(folder / "clips.json", [_told(clip, made) for clip in made.clips[:count]])
    return [clip.id for clip in made.clips[:count]]


def report_clips(made: Generated, folder: Path, scores: Sequence[Score], *, count: int) -> list[ReportClip]:
    """The written samples, as the report shows them."""
    return [
        ReportClip(
            id=clip.id,
            caption=clip.caption,
            tags=[tag for tag in (clip.label, "vague caption" if clip.vague else None) if tag],
            facts=_own_scores(clip.id, scores),
            media=[
                Media("generated", folder / f"{clip.id}.mp4", "video/mp4"),
                Media("reference", folder / f"{clip.id}.reference.wav", "audio/wav"),
                Media("spectrograms", folder / f"{clip.id}.png", "image/png"),
            ],
        )
        for clip in made.clips[:count]
    ]


def _told(clip: Clip, made: Generated) -> dict[str, Any]:
    """What a page needs to know of a clip."""
    return {
        "id": clip.id,
        "caption": clip.caption,
        "label": clip.label,
        "vague": bool(clip.vague),
        "onsets_s": None if clip.onsets_s is None else list(clip.onsets_s),
        "duration_s": made.audio.shape[-1] / front_end.SAMPLE_RATE,
    }


def _own_scores(clip: str, scores: Sequence[Score]) -> Mapping[str, str]:
    return {
        score.label: f"{score.per_clip[clip]:.2f}"
        for score in scores
        if score.name in SHOWN and score.per_clip and clip in score.per_clip
    }


def _picture(clip: Clip, audio: Any, reference: Any) -> bytes:
    ours, theirs = (log_mels(sound[None])[0, 0].numpy() for sound in (audio, reference))
    seconds = len(audio) / front_end.SAMPLE_RATE
    return compare_png({"generated": ours, "reference": theirs}, seconds, clip.onsets_s)
