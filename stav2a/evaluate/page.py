"""The page of an evaluation: all tables and plots, and some clips to see and hear through all systems."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from stav2a.comparison.page import ComparedClip, RowClip, write_comparison
from stav2a.data.io import MediaError, fit_audio, mux, read_audio, write_wav
from stav2a.evaluate.folders import REFERENCE, Paired
from stav2a.evaluate.tables import Tables
from stav2a.metrics.sets import Score

PAGE, CLIPS = "report.html", "clips"
SHOWN = 6
RATE = 44_100


def write_page(folder: Path, tables: Tables, clips: Sequence[Paired]) -> Path:
    """Write the page and the sounds that it plays, all of them inside it.

    Plots and figures of single clips are of the last crop; sounds are played whole.

    Args:
        folder: It exists.
        tables: The figures.
        clips: Where the sounds are.
    """
    crop, comparison = list(tables.comparisons.items())[-1]
    ids = tables.evaluated.ids[crop]
    chosen = {ids[round(place)] for place in np.linspace(0, len(ids) - 1, min(SHOWN, len(ids)))}
    scores = tables.evaluated.scores[crop]
    return write_comparison(
        folder / PAGE,
        comparison,
        title="Evaluation",
        facts={
            "systems": ", ".join(row for row in comparison.rows[1:]),
            "clips": str(len(ids)),
            "seconds": ", ".join(f"{each:g}" if each else "whole" for each in tables.comparisons),
        },
        clips=list(_shown([clip for clip in clips if clip.id in chosen], scores, folder / CLIPS)),
        tables=tables.grids(),
        words=tables.words(),
    )


def _shown(
    clips: Sequence[Paired], scores: Mapping[str, Sequence[Score]], folder: Path
) -> Iterator[ComparedClip]:
    folder.mkdir(exist_ok=True)
    for clip in clips:
        sounds = {side: read_audio(file, RATE) for side, file in clip.files.items()}
        samples = min(map(len, sounds.values()))
        for side, sound in sounds.items():
            write_wav(folder / f"{clip.id}.{side}.wav", fit_audio(sound, samples), RATE)
        yield ComparedClip(
            id=clip.id,
            caption=clip.caption or "",
            tags=(),
            onsets_s=(),
            duration_s=samples / RATE,
            reference=folder / f"{clip.id}.{REFERENCE}.wav",
            rows={
                side: RowClip(
                    _film(clip, side, sounds[side][:samples], folder),
                    folder / f"{clip.id}.{side}.wav",
                    _facts(clip.id, scores[side]),
                )
                for side in sounds
                if side != REFERENCE
            },
        )


def _film(clip: Paired, side: str, sound: np.ndarray, folder: Path) -> Path:
    """The clip's film with a system's sound; the sound alone where there is no film that players show."""
    film = folder / f"{clip.id}.{side}.mp4"
    try:
        if clip.video is not None:
            mux(clip.video, sound, RATE, film)
            return film
    except MediaError:
        pass
    return folder / f"{clip.id}.{side}.wav"


def _facts(clip: str, scores: Sequence[Score]) -> dict[str, str]:
    return {
        score.label: f"{score.per_clip[clip]:.2f}"
        for score in scores
        if score.per_clip and clip in score.per_clip
    }
