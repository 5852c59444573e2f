"""The two stages of a clip, which both engines call: decoding with filters and labels, then encoding."""

import math
import os
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stav2a.data.filters import Decision
from stav2a.data.manifest import VIDEOS
from stav2a.data.media import ClipNote, Decoded, FrameGrid, MediaError, decode, frame_count
from stav2a.data.mel import log_mels, normalised
from stav2a.data.onsets import onset_frames
from stav2a.data.prepared.shards import DROPPED, FAILED, KEPT, ClipRecord
from stav2a.models.stav2a import VIDEO, as_video
from stav2a.preparation.plan import PreparationPlan
from stav2a.utils.contents import HashedFile, file_hash, file_state
from stav2a.utils.distributed import device_named
from stav2a.utils.errors import exit_code
from stav2a.utils.resampling import fit_audio, resample_audio


@dataclass(frozen=True)
class ClipSettings:
    """Rates and sizes of a prepared clip.

    Args:
        frame_rate_hz: Frame rate of the feature encoder.
        frame_size: Side of the encoder's square frames, in pixels.
        duration_s: Duration of a clip, in seconds.
        latent_frames: Number of latent frames T; onsets are labelled at this rate.
        keep: Tensors of a clip to store, of frames, e_v, temporal_frames, e_tv, mel, spectrogram, latents.
        audio_peak: Peak of the sounds before their mel; see `mel.normalised`.
        temporal_frame_rate_hz: Frame rate of the temporal encoder; None without one.
        temporal_frame_size: Side of that encoder's frames.
    """

    frame_rate_hz: float
    frame_size: int
    duration_s: float
    latent_frames: int
    keep: tuple[str, ...]
    audio_peak: float | None = None
    temporal_frame_rate_hz: float | None = None
    temporal_frame_size: int | None = None

    @property
    def grids(self) -> dict[str, FrameGrid]:
        """Frames to decode, by the encoder that takes them."""
        found = {}
        for slot, names in VIDEO.items():
            rate_hz, size = (getattr(self, f"{names.prefix}{of}") for of in ("frame_rate_hz", "frame_size"))
            if {names.frames, names.symbol} & set(self.keep):
                found[slot] = FrameGrid(rate_hz, size, frame_count(self.duration_s, rate_hz))
        return found


@dataclass(frozen=True)
class Decode:
    """Decode a clip once, and compute all that needs no encoder."""

    plan: PreparationPlan
    videos: Path
    settings: ClipSettings
    detector: Callable[[np.ndarray, int], np.ndarray]
    filters: Mapping[str, Callable[[Decoded], Decision]]  # see the whole clip, at its own size and rate
    front_end: Any

    def __call__(self, position: int) -> ClipRecord:
        """The record of a clip; of one that can't be read, a failed record with the reason."""
        entry = self.plan.entry(position)
        try:
            if entry["fault"]:
                raise MediaError(f"{entry['fault']}.")
            path = find_video(self.videos, entry["file"], entry["id"])
            entry["file"] = path.relative_to(self.videos).as_posix()
            video = HashedFile.of(path) if path.is_file() else None  # `decode` says what else is wrong
            decoded = decode(path, caption=entry["caption"])
            if video:
                video.check_unchanged()
                size, _, mtime_ns, _ = video.state
                entry["video"] = {"size": size, "mtime_ns": mtime_ns, "sha256": video.content}
            return self._record(entry, decoded)
        except MediaError as error:  # named by its path in the folder of videos
            return failed(entry, str(MediaError(error.message, error.place and entry["file"])))
        except Exception as error:  # one clip never stops the others
            unexpected = "" if exit_code(error) is not None else f"unexpected {type(error).__name__}: "
            return failed(entry, f"{unexpected}{error}")

    def _record(self, entry: Mapping[str, Any], decoded: Decoded) -> ClipRecord:
        settings = self.settings
        decisions = {key: data_filter(decoded) for key, data_filter in self.filters.items()}
        dropping = next((each for each in decisions.values() if not each.keep), None)
        rate = self.front_end.sample_rate
        sound = resample_audio(decoded.audio, decoded.sample_rate, rate)
        samples = round(settings.duration_s * rate)
        audio = fit_audio(sound, samples)
        onsets_s = self.detector(audio, rate)
        notes, wanted_s = [*decoded.notes], settings.duration_s
        if not wanted_s - 1e-3 <= decoded.duration_s <= wanted_s + 1e-3:
            kind = "cut to duration" if decoded.duration_s > wanted_s else "extended to duration"
            notes.append(ClipNote(kind, (decoded.duration_s, wanted_s)))
        facts = {
            **entry,
            "status": DROPPED if dropping else KEPT,
            "rule": dropping.rule if dropping else "",
            "reason": dropping.reason if dropping else "",
            "decisions": {key: {**asdict(d), "score": _finite(d.score)} for key, d in decisions.items()},
            "onsets_s": [round(float(time), 6) for time in onsets_s],
            "notes": [asdict(note) for note in notes],
            "width": decoded.frames.shape[2],
            "height": decoded.frames.shape[1],
            "frame_rate_hz": round(float(decoded.frame_rate_hz), 6),
            "duration_s": round(float(decoded.duration_s), 6),
            "sample_rate": decoded.sample_rate,
        }
        if not any(each.keep for each in decisions.values()):
            return ClipRecord(facts, {})
        labels = onset_frames(onsets_s, settings.latent_frames, settings.latent_frames / settings.duration_s)
        tensors = {"onsets": labels.astype(np.uint8)}
        for slot, grid in settings.grids.items():
            tensors[VIDEO[slot].frames] = grid.frames(decoded)  # (L, 3, h, w) uint8
        scaled = fit_audio(normalised(sound, settings.audio_peak), samples)
        if {"mel", "latents"} & set(settings.keep):
            tensors["mel"] = self.front_end(torch.from_numpy(scaled)[None])[0].numpy()  # (1, Tm, M)
        if "spectrogram" in settings.keep:
            tensors["spectrogram"] = log_mels(scaled[None], rate)[0].numpy()  # (1, Tm, 64)
        return ClipRecord(facts, tensors)


@dataclass(frozen=True)
class Encode:
    """Replace frames and mel by features and latents, with the encoders that have weights.

    One clip at a time, on one thread, so that a clip's numbers depend on nothing but the clip. Worker
    processes take the GPUs in turn; a clip for which one has too little memory fails.
    """

    keep: tuple[str, ...]  # as in `ClipSettings`
    encoders: Mapping[str, Any]  # by slot; without one frames or mel stay as they are

    @torch.no_grad()
    def __call__(self, record: ClipRecord) -> ClipRecord:
        tensors, device = dict(record.tensors), device_named("auto")
        try:
            for slot, names in VIDEO.items():
                if names.symbol in self.keep and names.frames in tensors:
                    video = as_video(torch.from_numpy(tensors[names.frames])[None]).to(device)
                    features = self.encoders[slot].to(device)(video)[0]
                    tensors[names.symbol] = to_half(names.symbol, features)
            if "latents" in self.keep and "mel" in tensors:
                mel = torch.from_numpy(tensors["mel"])[None].to(device)
                mean, std = self.encoders["autoencoder"].to(device).encode(mel)
                tensors["latent_mean"] = to_half("latents", mean[0])
                tensors["latent_std"] = to_half("latents", std[0])
        except MediaError as error:
            return failed(record.facts, str(error))
        except torch.OutOfMemoryError as error:
            reason = next(iter(str(error).splitlines()), "out of memory")
            return failed(record.facts, f"{device} has no room for it: {reason} Give fewer --workers.")
        for name in {*(names.frames for names in VIDEO.values()), "mel"} - set(self.keep):
            tensors.pop(name, None)
        return ClipRecord(record.facts, tensors)


@dataclass(frozen=True)
class ClipWork:
    """Both stages, one after the other: the work of a local process."""

    decode: Decode
    encode: Encode

    def __call__(self, position: int) -> ClipRecord:
        return self.encode(self.decode(position))


def is_changed(videos: Path, facts: Mapping[str, Any]) -> bool:
    """True where the video of a prepared clip is there, and is another one now."""
    known = facts.get("video")  # an older version kept nothing of it
    if not known:
        return False
    path = videos / facts["file"]
    try:
        state = file_state(path)
        if state.size == known["size"]:
            return state.mtime_ns != known["mtime_ns"] and file_hash(path) != known["sha256"]
    except OSError:  # it was removed: the prepared clip needs it no more
        return False
    return True


def find_video(videos: Path, file: str, clip: str) -> Path:
    """The file of a clip inside the folder of videos: the given one, else the one named after the clip's id.

    Raises:
        MediaError: There is no such file, or it lies outside the folder.
    """
    asked = [file] if file else [f"{clip}{suffix}" for suffix in VIDEOS]
    forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in asked]
    names = [*asked, *forms]  # file systems and editors differ in the form of accents
    inside = not Path(asked[0]).is_absolute() and ".." not in Path(asked[0]).parts
    found = next((videos / name for name in names if os.path.lexists(videos / name)), None)
    if inside and found is None:
        wanted = file or f"{clip}.mp4 (or {', '.join(VIDEOS[1:4])}, …)"
        raise MediaError(f"no such file: {wanted}. Put it into the folder of videos.")
    real = Path(os.path.realpath(found or videos))  # links followed; a link to itself is left to the reader
    root = os.path.realpath(videos)
    if found and Path(asked[0]).is_absolute() and real.is_relative_to(root):
        raise MediaError(
            f"{names[0]}: a full path. Write it from the folder of videos on: {real.relative_to(root)}."
        )
    if found is None or not inside or not real.is_relative_to(root):
        raise MediaError(f"{names[0]}: leads out of the folder of videos. Copy the file into it.")
    return found


def failed(entry: Mapping[str, Any], reason: str) -> ClipRecord:
    """The record of a clip that failed, the reason on one line."""
    known = ("position", "line", "id", "file", "caption", "caption_row", "split", "label")
    facts = {name: entry[name] for name in known}
    return ClipRecord(facts | {"status": FAILED, "rule": "", "reason": " ".join(reason.split())}, {})


def to_half(name: str, tensor: torch.Tensor) -> np.ndarray:
    """float16, which keeps 11 bits: half the storage, and far below the noise of training.

    Raises:
        MediaError: The tensor is not finite in float16, or all zero.
    """
    half = tensor.cpu().numpy().astype(np.float16)
    if not np.isfinite(half).all() or not half.any():
        raise MediaError(f"its {name} is not finite, or all zero: the encoder does not fit this clip.")
    return half


def _finite(score: float | None) -> float | None:
    return None if score is None or not math.isfinite(score) else float(score)
