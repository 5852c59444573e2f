"""Listening to one clip, in a worker process: each file is decoded once, for all ears and all crops."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stav2a.data.flow import motion
from stav2a.data.io import MediaError, probe, read_audio, read_video
from stav2a.data.io.opening import opened
from stav2a.evaluate.cache import Cache, content_of
from stav2a.evaluate.folders import Paired
from stav2a.metrics.sounds import Ear, describe

Crop = float | None  # seconds from the start; None is all that the clip's files have in common
SHORTEST = 0.95  # of a crop: who is shorter has no figure in it
SILENCE = 1e-4  # -80 dB


class Sound(NamedTuple):
    """A decoded sound.

    Args:
        audio: (S,) mono in [-1, 1].
        sample_rate: In Hz.
    """

    audio: np.ndarray
    sample_rate: int


class Facts(NamedTuple):
    """What is known of a sound without an ear.

    Args:
        duration_s: How long it is.
        peak: The largest magnitude.
    """

    duration_s: float
    peak: float


@dataclass
class Listened:
    """All that is heard of one clip.

    Args:
        facts: Side -> its sound's facts; a side is `reference` or a system.
        heard: (crop, ear in words, side) -> what the ear made of it.
        flow: Mean motion a frame (L,), or None.
        frame_rate_hz: Of the video.
        faults: Side, or "video" -> why it can't be used.
        waiting: (crop, ear in words, side) -> a sound that an ear of the main process has still to hear.
        contents: Side -> its file's content, see `content_of`.
    """

    facts: dict[str, Facts] = field(default_factory=dict)
    heard: dict[tuple[Crop, str, str], np.ndarray] = field(default_factory=dict)
    flow: np.ndarray | None = None
    frame_rate_hz: float = float("nan")
    faults: dict[str, str] = field(default_factory=dict)
    waiting: dict[tuple[Crop, str, str], Sound] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)

    @property
    def common_s(self) -> float:
        """What all sides have: the shortest duration."""
        return min(facts.duration_s for facts in self.facts.values())

    def lasts(self, crop: Crop) -> bool:
        """Whether the clip is long enough for a crop."""
        return crop is None or self.common_s >= SHORTEST * crop


@dataclass(frozen=True)
class Request:
    """What is asked of every clip.

    Args:
        ears: Those that may listen in a worker.
        torch_ears: Those that may not: their models live in the main process.
        crops: Each gives figures of its own.
        flow: Finds the video's motion; None where nobody asks for it.
    """

    ears: Sequence[Ear]
    torch_ears: Sequence[str]
    crops: Sequence[Crop]
    flow: Any


def listen(request: Request, cache: Cache, clip: Paired) -> Listened:
    """Hear one clip's files, from the cache or now. What can't be read is told in `faults`."""
    found = Listened()
    decoded = {side: _Once(file) for side, file in clip.files.items()}
    for side, file in decoded.items():
        found.contents[side] = file.content
        try:
            found.facts[side] = _facts(file, cache)
        except MediaError as error:
            found.faults[side] = str(error)
    if found.faults:
        return found
    for crop in filter(found.lasts, request.crops):
        duration_s = found.common_s if crop is None else min(crop, found.common_s)
        for side, file in decoded.items():
            _hear(request, cache, found, crop, duration_s, side, file)
    if request.flow is not None and clip.video is not None:
        _watch(clip.video, request.flow, cache, found)
    return found


class _Once:
    """A file that is decoded at the first need of it, and kept while its clip is heard."""

    def __init__(self, file: Path) -> None:
        self.file, self.content = file, content_of(file)
        self._sound: Sound | None = None

    def sound(self) -> Sound:
        if self._sound is None:
            rate = _native_hz(self.file)  # each ear brings it to its own rate, once
            self._sound = Sound(read_audio(self.file, rate), rate)
        return self._sound


def _native_hz(file: Path) -> int:
    with opened(file) as container:
        if not container.streams.audio:
            raise MediaError(f"{file}: no sound stream in it. Give a file with sound.")
        return int(container.streams.audio[0].rate)


def _facts(file: _Once, cache: Cache) -> Facts:
    known = cache.get(file.content, "facts")
    if known is None:
        audio, rate = file.sound()
        known = np.array([len(audio) / rate, np.abs(audio).max(initial=0.0)])
        cache.put(file.content, "facts", known)
    return Facts(float(known[0]), float(known[1]))


def _hear(
    request: Request, cache: Cache, found: Listened, crop: Crop, duration_s: float, side: str, file: _Once
) -> None:
    def cropped() -> Sound:
        audio, rate = file.sound()
        return Sound(audio[: max(1, round(duration_s * rate))], rate)

    for ear in request.ears:
        key = (crop, describe(ear), side)
        known = cache.get(file.content, kept_as(key, duration_s))
        if known is None:
            known = np.asarray(ear(*cropped()))
            cache.put(file.content, kept_as(key, duration_s), known)
        found.heard[key] = known
    for name in request.torch_ears:
        key = (crop, name, side)
        known = cache.get(file.content, kept_as(key, duration_s))
        if known is None:
            found.waiting[key] = cropped()
        else:
            found.heard[key] = known


def kept_as(key: tuple[Crop, str, str], duration_s: float) -> str:
    """All but the file's content that a hearing depends on."""
    return f"{key[1]}; the first {duration_s:.6f} s"


def flow_in_words(flow: Any) -> str:
    """An optical flow as it is used here."""
    return f"{flow.definition} at the native size and rate"


def _watch(video: Path, flow: Any, cache: Cache, found: Listened) -> None:
    """The video's motion, from the cache or now."""
    content, what = content_of(video), flow_in_words(flow)
    known = cache.get(content, what)
    try:
        if known is None:
            means = motion(read_video(video, gray=True), flow=flow)
            known = np.array([probe(video).frame_rate_hz, *means])
            cache.put(content, what, known)
        found.frame_rate_hz, found.flow = float(known[0]), known[1:]
    except MediaError as error:
        found.faults["video"] = str(error)


def listener(request: Request, cache: Cache) -> "partial[Listened]":
    """`listen` with all but the clip given, for worker processes."""
    return partial(listen, request, cache)
