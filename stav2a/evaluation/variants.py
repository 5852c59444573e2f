"""Several sounds of one video: those with speech or music left out, the others ranked by a metric."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stav2a.data.media import frame_times, probe, read_video
from stav2a.data.media.opening import CLIP
from stav2a.data.optical_flow.motion import ClipFlow, motion
from stav2a.metrics.batches import extract_all
from stav2a.metrics.judges.yamnet import LIKELY, YAMNetWindows
from stav2a.metrics.registered.judged import ClapScore, JudgedMetric
from stav2a.metrics.registered.timing import AVAlign
from stav2a.metrics.score import EvaluationSet, FeatureExtractor, PairedFeatures, VideoFeatures, Watcher
from stav2a.registry import get
from stav2a.registry import load as load_components
from stav2a.utils.errors import StaV2AError, UsageError

# Metrics that need no real sound.
RANKINGS = ("av_align", "desync", "imagebind", "cavp_score", "clap", "production_quality")
TRIES = 4  # sounds that are made for each one asked for, at most, where some are left out


class RejectedError(StaV2AError):
    """All sounds that were made have what is not wanted."""


@dataclass(frozen=True)
class Variant:
    """One sound of a video.

    Args:
        seed: Seed of its noise.
        audio: The sound (S,).
        shares: Share of its windows of 0.96 s in which YAMNet finds speech, or music, by these names.
        score: Figure by which it is ranked; None where there is none.
    """

    seed: int
    audio: np.ndarray
    shares: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None


def draw_variants(
    make: Callable[[int, int], Sequence[np.ndarray]],
    sample_rate: int,
    *,
    count: int = 1,
    seed: int = 0,
    unwanted: Sequence[str] = (),
    judge: YAMNetWindows | None = None,
) -> list[Variant]:
    """Sounds of successive seeds, without those in which a judge finds what is not wanted.

    A sound is left out if a window has a probability above 0.1 of speech, or music. Up to four times as many
    sounds as asked for are made; there may be fewer than asked for.

    Args:
        make: Function from the first seed and a number of sounds to the sounds.
        sample_rate: Their rate in Hz.
        count: Number of sounds asked for.
        seed: The first seed.
        unwanted: Kinds of sound that are not wanted: `speech`, `music`.
        judge: The judge of these; None leaves out nothing.

    Raises:
        RejectedError: No sound is left.
    """
    kept: list[Variant] = []
    after = seed + (count * TRIES if unwanted and judge else count)
    following = seed
    while len(kept) < count and following < after:
        number = min(count - len(kept), after - following)
        for each, audio in enumerate(make(following, number), following):
            windows = judge(audio, sample_rate) if judge else None
            shares = {
                kind: float((windows[kind] > LIKELY).mean()) for kind in unwanted if windows is not None
            }
            if not any(shares.values()):
                kept.append(Variant(each, audio, shares))
        following += number
    if not kept:
        raise RejectedError(
            f"{' or '.join(unwanted)} in each of {following - seed} sounds, of the seeds {seed} to "
            f"{following - 1}: none is written.",
            advice=f"Try another seed, another prompt, or leave out --no-{' and --no-'.join(unwanted)}.",
        )
    return kept


def ranking(name: str, *, prompt: str = "") -> Any:
    """Metric by which variants are ranked.

    Args:
        name: One of `RANKINGS`.
        prompt: Prompt of the sounds.

    Raises:
        UsageError: There is no such one, or it lacks its weights or a prompt.
    """
    if name not in RANKINGS:
        raise UsageError(f"{name!r} ranks no sounds. Expected one of {', '.join(RANKINGS)}.")
    load_components()
    metric = get("metric", name).factory()
    if isinstance(metric, JudgedMetric) and metric.judge.fault:
        raise UsageError(f"sounds can't be ranked by {name}: {metric.judge.fault}.")
    if isinstance(metric, ClapScore) and not prompt:
        raise UsageError(f"{name} compares a sound with its prompt, and there is none. Give a prompt.")
    if isinstance(metric, JudgedMetric):
        metric.judge.prepare()
    return metric


def ranked(
    variants: Sequence[Variant], film: Path, sample_rate: int, *, metric: Any, prompt: str = ""
) -> list[Variant]:
    """The variants with their scores, the best first; those without a score last, in the order of seeds.

    Args:
        variants: Sounds of one video.
        film: The video's file.
        sample_rate: Rate of the sounds in Hz.
        metric: What `ranking` gave.
        prompt: Prompt of the sounds.

    Raises:
        MediaError: The video can't be read, or is too short for the metric.
        MetricError: A sound is not one that metrics take.
    """
    sounds, names = (
        FilmSounds([each.audio for each in variants], sample_rate),
        list(map(str, range(len(variants)))),
    )
    motions: dict[str, Any] = {}
    if isinstance(metric, AVAlign):
        flow = picture_motion(film)
        facts = {"flows": flow.motion, "frame_rate_hz": flow.frame_rate_hz, "frame_times_s": flow.times_s}
        motions = {name: [fact] * len(variants) for name, fact in facts.items()}
    samples = EvaluationSet(
        ids=names,
        sounds=sounds,
        **motions,
        captions=[prompt] * len(variants),
        videos=OneFilm(film, sounds),
    )
    score = metric(samples)
    found = score.per_clip or {}
    scored = [replace(each, score=found.get(name)) for each, name in zip(variants, names, strict=True)]
    sign = -1 if score.higher_is_better else 1
    return sorted(scored, key=lambda each: (each.score is None, sign * (each.score or 0.0)))


@dataclass(frozen=True)
class FilmSounds:
    """Sounds of one video, as `metrics.score.Sounds`; each stands in place of the real one as well.

    Args:
        audios: Sounds (S,), of equal length.
        sample_rate: Their rate in Hz.
    """

    audios: Sequence[np.ndarray]
    sample_rate: int

    @property
    def definition(self) -> str:
        return f"sound at {self.sample_rate} Hz"

    def __len__(self) -> int:
        return len(self.audios)

    def features(self, extractor: FeatureExtractor) -> PairedFeatures:
        found = extract_all(extractor, ((audio, self.sample_rate) for audio in self.audios))
        return PairedFeatures(found, found)

    def duration_s(self, clip: int) -> float:
        return len(self.audios[clip]) / self.sample_rate


@dataclass(frozen=True)
class OneFilm:
    """One film in the place of each of its sounds', as `metrics.score.Videos`.

    Args:
        film: A video file.
        sounds: The sounds.
    """

    film: Path
    sounds: FilmSounds

    def __len__(self) -> int:
        return len(self.sounds)

    def features(self, watcher: Watcher) -> VideoFeatures:
        def times_s(film_s: np.ndarray) -> np.ndarray:
            return watcher.film_times_s(film_s, self.sounds.duration_s(0))

        frames = read_video(self.film, times_s=times_s, fit=watcher.fit, hidden=True)
        return VideoFeatures(dict.fromkeys(range(len(self)), watcher.watched(frames)), {})


def picture_motion(film: Path) -> ClipFlow:
    """Motion of a video's picture by Farneback's optical flow, at its own size if that fits into memory.

    Raises:
        MediaError: The video can't be read, or has fewer than 3 frames.
    """
    info = probe(film, hidden=True)
    width, height = CLIP.fitted((info.width, info.height), info.frames)
    seen: list[np.ndarray] = []

    def every(pts_s: np.ndarray) -> np.ndarray:
        seen.append(pts_s)
        return pts_s

    grey = read_video(film, times_s=every, size=(height, width), gray=True, hidden=True)
    times_s = frame_times(seen[0], info.frame_rate_hz)
    return ClipFlow(info.width / width * motion(grey), info.frame_rate_hz, times_s)
