"""Preparing clips for training: each file is decoded once, and all that is needed of it is taken then."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from stav2a.data.clip import Clip
from stav2a.data.filters import Decision
from stav2a.data.media import Decoded, MediaError, decode, frame_count, resample_frames
from stav2a.slots import OnsetDetector
from stav2a.utils.files import atomic
from stav2a.utils.parallel import parallel
from stav2a.utils.resampling import fit_audio, resample_audio

SAMPLE_RATE = 16_000  # that of data/mel.py, which imports torch; workers go without it
ARRAYS, TABLE = "arrays.safetensors", "clips.json"
Filters = Mapping[str, Callable[[Decoded], Decision]]


@dataclass(frozen=True)
class DecodedClips:
    """Clips as arrays; row i of everything belongs to clips[i].

    Args:
        clips: Those that could be read.
        frames: (N, L, 3, h, w) uint8 RGB at the encoder's rate and size.
        audio: (N, S) float32 at 16 kHz.
        pseudo_onsets: What the onset detector found, in seconds, a clip.
        decisions: What every filter decided, by the filter's name.
        failed: Why the others could not be read, by their id.
    """

    clips: list[Clip]
    frames: np.ndarray
    audio: np.ndarray
    pseudo_onsets: list[np.ndarray]
    decisions: dict[str, list[Decision]]
    failed: dict[str, str]

    def rows(self, split: str, kept_by: str | None = None) -> np.ndarray:
        """The row numbers of a split, or of those of its clips that a filter keeps."""
        keep = [True] * len(self.clips) if kept_by is None else [d.keep for d in self.decisions[kept_by]]
        return np.array(
            [i for i, clip in enumerate(self.clips) if clip.split == split and keep[i]], dtype=int
        )

    def save(self, folder: Path) -> None:
        """Write to a folder. The table comes last: a folder with a table is whole.

        Raises:
            MediaError: If the folder can't be written to.
        """
        from safetensors.numpy import save_file

        table = {
            "clips": [asdict(clip) | {"video": str(clip.video)} for clip in self.clips],
            "pseudo_onsets": [onsets.tolist() for onsets in self.pseudo_onsets],
            "decisions": {name: [asdict(d) for d in all_] for name, all_ in self.decisions.items()},
            "failed": self.failed,
        }
        with atomic(Path(folder) / ARRAYS) as temporary:
            save_file({"frames": self.frames, "audio": self.audio}, temporary)
        with atomic(Path(folder) / TABLE) as temporary:
            temporary.write_text(json.dumps(table), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "DecodedClips":
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        table = json.loads((Path(folder) / TABLE).read_text(encoding="utf-8"))
        return cls(
            clips=[_clip(**row) for row in table["clips"]],
            pseudo_onsets=[np.array(onsets, dtype=np.float64) for onsets in table["pseudo_onsets"]],
            decisions={name: [Decision(**d) for d in all_] for name, all_ in table["decisions"].items()},
            failed=table["failed"],
            **load_file(Path(folder) / ARRAYS),
        )


def _clip(video: str, onsets_s: list[float] | None, **rest: object) -> Clip:
    onsets = None if onsets_s is None else tuple(onsets_s)
    return Clip(video=Path(video), onsets_s=onsets, **rest)  # type: ignore[arg-type]


def prepare(
    clips: Sequence[Clip],
    *,
    frame_rate_hz: float,
    frame_size: int,
    duration_s: float,
    detector: OnsetDetector,
    filters: Filters,
    workers: int | None = None,
    progress: bool = True,
) -> DecodedClips:
    """Decode all clips, in worker processes, into what encoders, stages and filters need.

    A clip that can't be read is left out and its reason kept; longer clips are cut, shorter ones end in
    a still picture and silence.

    Args:
        clips: Files with picture and sound.
        frame_rate_hz: The encoder's.
        frame_size: The encoder's: frames are squashed to this square.
        duration_s: Of a clip.
        detector: Makes the pseudo-labels.
        filters: By name; each decides on every clip, at the file's own size and rate.
        workers: Processes; by default one a core.
        progress: Show a progress bar.

    Raises:
        MediaError: If not one clip can be read.
    """
    length, samples = frame_count(duration_s, frame_rate_hz), round(duration_s * SAMPLE_RATE)
    work = partial(
        _prepare_one, frame_rate_hz, (frame_size, frame_size), length, samples, detector, dict(filters)
    )
    frames = np.zeros((len(clips), length, 3, frame_size, frame_size), np.uint8)
    audio = np.zeros((len(clips), samples), np.float32)
    whole: list[Clip] = []
    pseudo_onsets: list[np.ndarray] = []
    decisions: dict[str, list[Decision]] = {name: [] for name in filters}
    failed: dict[str, str] = {}
    results = parallel(work, clips, workers=workers, description="preparing clips", progress=progress)
    for clip, result in zip(clips, results, strict=True):
        if isinstance(result, MediaError):
            failed[clip.id] = str(result)
            continue
        frames[len(whole)], audio[len(whole)], onsets, decided = result
        pseudo_onsets.append(onsets)
        for name, decision in decided.items():
            decisions[name].append(decision)
        whole.append(clip)
    if clips and not whole:
        raise MediaError(f"None of {len(clips)} clips can be read. The first: {next(iter(failed.values()))}")
    return DecodedClips(whole, frames[: len(whole)], audio[: len(whole)], pseudo_onsets, decisions, failed)


def _prepare_one(
    frame_rate_hz: float,
    size: tuple[int, int],
    length: int,
    samples: int,
    detector: OnsetDetector,
    filters: Filters,
    clip: Clip,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Decision]] | MediaError:
    """What worker processes run."""
    try:
        decoded = decode(clip.video, caption=clip.caption)
    except MediaError as error:
        return error
    frames = resample_frames(decoded, frame_rate_hz, size, length).transpose(0, 3, 1, 2)
    audio = fit_audio(resample_audio(decoded.audio, decoded.sample_rate, SAMPLE_RATE), samples)
    decided = {name: data_filter(decoded) for name, data_filter in filters.items()}
    return np.ascontiguousarray(frames), audio, detector(audio, SAMPLE_RATE), decided
