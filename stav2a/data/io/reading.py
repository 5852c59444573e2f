"""Reading: a video's frames by their presentation times, and its sound.

Time 0 is the first frame of the picture; the sound is laid on the same axis.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from stav2a.data.io.errors import MediaError
from stav2a.data.io.opening import COMPLETE, check_complete, end_of, opened, stamp, timeline, video_stream
from stav2a.data.io.resampling import fit_picture, frame_count, nearest, resample_audio


@dataclass(frozen=True)
class Decoded:
    """A whole clip in memory, from one pass over its file.

    Args:
        frames: (N, H, W, 3) uint8 RGB, native size and rate.
        pts_s: (N,) presentation times; the first is 0.
        frame_rate_hz: Average frames a second.
        duration_s: Of the picture.
        audio: (S,) float32 mono in [-1, 1], native rate, beginning with the first frame.
        sample_rate: Of `audio`, in Hz.
        caption: For filters that read it.
    """

    frames: np.ndarray
    pts_s: np.ndarray
    frame_rate_hz: float
    duration_s: float
    audio: np.ndarray
    sample_rate: int
    caption: str = ""


def _picture(frame: Any, converter: VideoReformatter) -> np.ndarray:
    """One frame as it is displayed (phones store it turned): (H, W, 3) uint8 RGB.

    One converter serves a whole video: setting one up costs more than converting a small frame.
    """
    array = converter.reformat(frame, format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(array, round(frame.rotation / 90))) if frame.rotation else array


def resample_frames(decoded: Decoded, frame_rate_hz: float, size: tuple[int, int], length: int) -> np.ndarray:
    """Frames at another rate and size: the nearest in time, squashed; the last is held beyond the end.

    Shapes:
        decoded.frames (N, H, W, 3) -> (length, h, w, 3)
    """
    chosen = nearest(decoded.pts_s, np.arange(length) / frame_rate_hz)
    return np.stack([fit_picture(decoded.frames[index], size) for index in chosen])


class _Sound:
    """Collects decoded audio frames and lays them on the picture's time axis."""

    def __init__(self) -> None:
        self.converter = av.AudioResampler(format="fltp")
        self.pieces: list[np.ndarray] = []
        self.start_s = 0.0
        self.sample_rate = 0

    def add(self, frame: Any) -> None:
        if not self.pieces:
            self.start_s, self.sample_rate = frame.time or 0.0, frame.sample_rate
        self.pieces += [piece.to_ndarray().mean(axis=0) for piece in self.converter.resample(frame)]

    def since(self, zero_s: float) -> np.ndarray:
        audio = np.concatenate(self.pieces) if self.pieces else np.zeros(0)
        late = round((self.start_s - zero_s) * self.sample_rate)
        audio = audio[-late:] if late < 0 else np.pad(audio, (late, 0))
        return np.clip(audio, -1, 1).astype(np.float32)


def decode(path: Path | str, caption: str = "") -> Decoded:
    """Everything in a clip with picture and sound, in one pass.

    Raises:
        MediaError: If the file can't be read whole, or has no sound.
    """
    path = Path(path)
    with opened(path) as container:
        stream = video_stream(container, path)
        if not container.streams.audio:
            raise MediaError(f"{path}: no sound stream in it. Training needs clips with sound; leave it out.")
        rate, sound, converter = float(stream.average_rate), _Sound(), VideoReformatter()
        pictures: list[np.ndarray] = []
        times: list[float] = []
        end_s = 0.0
        for packet in container.demux(stream, container.streams.audio[0]):
            if packet.stream is stream and packet.size and stamp(packet) is not None:
                end_s = max(end_s, float(end_of(packet, stream) * stream.time_base))
            for frame in packet.decode():
                if isinstance(frame, av.AudioFrame):
                    sound.add(frame)
                else:
                    pictures.append(_picture(frame, converter))
                    times.append(float(stamp(frame) * stream.time_base))
        start_s = times[0] if times else 0.0
        check_complete(path, container, stream, len(pictures), end_s - start_s)
    pts_s = np.asarray(times) - start_s
    return Decoded(
        frames=np.stack(pictures),
        pts_s=pts_s,
        frame_rate_hz=rate,
        duration_s=end_s - start_s,
        audio=sound.since(start_s),
        sample_rate=sound.sample_rate,
        caption=caption,
    )


def read_video(
    path: Path | str,
    *,
    frame_rate_hz: float | None = None,
    size: int | tuple[int, int] | None = None,
    start_s: float = 0.0,
    duration_s: float | None = None,
    gray: bool = False,
) -> np.ndarray:
    """Frames of a stretch of a video, never holding more than those asked for.

    Args:
        path: A video file.
        frame_rate_hz: Take the frames nearest to the ticks of this rate; by default every frame.
        size: Squash to this (height, width), or square.
        start_s: Where the stretch begins.
        duration_s: How long it is; by default to the end. With a rate, the last frame is held beyond the end.
        gray: Return luminance instead of RGB.

    Shapes:
        (L, H, W, 3) uint8 RGB, or (L, H, W) uint8 if gray

    Raises:
        MediaError: If the file is not a complete video, or the stretch holds no frame.
    """
    path = Path(path)
    size = (size, size) if isinstance(size, int) else size
    with opened(path) as container:
        stream = video_stream(container, path)
        stamps, end = timeline(container, stream, path)
        tick = float(stream.time_base)
        pts_s = (np.asarray(stamps) - stamps[0]) * tick
        duration_s = (end - stamps[0]) * tick - start_s if duration_s is None else duration_s
        if frame_rate_hz is None:
            inside = (pts_s > start_s - tick / 2) & (pts_s < start_s + duration_s - tick / 2)
            chosen = np.flatnonzero(inside)
        else:
            ticks = np.arange(frame_count(duration_s, frame_rate_hz)) / frame_rate_hz
            chosen = nearest(pts_s, start_s + ticks)
        if len(chosen) == 0 or not 0 <= start_s <= pts_s[-1]:
            raise MediaError(
                f"{path}: no frame from {start_s:g} s on for {duration_s:g} s; the last is at "
                f"{pts_s[-1]:.2f} s. Choose a stretch inside the video."
            )
    pictures = _decode_only(path, {stamps[index] for index in chosen}, size, gray)
    return np.stack([pictures[stamps[index]] for index in chosen])


def _decode_only(
    path: Path, wanted: set[int], size: tuple[int, int] | None, gray: bool
) -> dict[int, np.ndarray]:
    """Decode from the key frame before the first wanted stamp to the last wanted one; keep the wanted."""
    pictures: dict[int, np.ndarray] = {}
    converter = VideoReformatter()
    with opened(path) as container:
        stream = video_stream(container, path)
        container.seek(min(wanted), stream=stream)
        for frame in container.decode(stream):
            if stamp(frame) in wanted:
                pictures[stamp(frame)] = fit_picture(_picture(frame, converter), size, gray)
            if len(pictures) == len(wanted):
                return pictures
    raise MediaError(f"{path}: damaged: {len(wanted) - len(pictures)} frames can't be decoded. {COMPLETE}")


def read_audio(path: Path | str, sample_rate: int) -> np.ndarray:
    """The sound of a video or audio file: (S,) float32 mono in [-1, 1] at this rate, from time 0 on.

    Raises:
        MediaError: If the file can't be read, or has no sound.
    """
    path = Path(path)
    with opened(path) as container:
        if not container.streams.audio:
            raise MediaError(f"{path}: no sound stream in it. Give a file with sound.")
        stream, sound = container.streams.audio[0], _Sound()
        for frame in container.decode(stream):
            sound.add(frame)
        zero_s = _start_s(container)
    if not sound.pieces:
        raise MediaError(f"{path}: the sound stream is empty. Give a file with sound.")
    return resample_audio(sound.since(zero_s), sound.sample_rate, sample_rate)


def _start_s(container: Any) -> float:
    """When the picture begins; without one, the sound."""
    stream = (container.streams.video or container.streams.audio)[0]
    return float((stream.start_time or 0) * stream.time_base)
