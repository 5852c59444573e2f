"""Reading: a video's frames by their presentation times, and its sound.

Time 0 is the first frame of the picture; the sound is laid on the same axis.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from stav2a.data.io.errors import MediaError, explained

MAX_PIXELS = 8192 * 4320
# Files only, and no playlist formats: a file can't make the reader follow an address.
SAFE = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,wav,flac,mp3,aac",
}
COMPLETE = "Give a complete video file (mp4, mov, webm, mkv, …)."


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds, without decoding it.

    Args:
        width: Of the picture as displayed, in pixels.
        height: Of the picture as displayed, in pixels.
        frame_rate_hz: Average frames a second.
        frames: Number of frames.
        duration_s: From the start of the first frame to the end of the last.
        has_audio: Whether there is a sound stream.
        codec: Of the video, e.g. "h264".
    """

    width: int
    height: int
    frame_rate_hz: float
    frames: int
    duration_s: float
    has_audio: bool
    codec: str


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


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.exists():
        raise MediaError(f"{path}: no such file. Give the path of a video file (mp4, mov, webm, mkv, …).")
    if path.is_dir():
        raise MediaError(f"{path}: a folder, where a video file was expected. Name the files in it.")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: an empty file (0 bytes). {COMPLETE}")
    with explained(path, "not a readable video, or cut off", COMPLETE):
        with av.open(f"file:{path}", options=SAFE, metadata_errors="ignore") as container:
            yield container


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise MediaError(f"{path}: no video stream in it, only {kinds}. {COMPLETE}")
    stream = container.streams.video[0]
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height == 0:
        raise MediaError(f"{path}: the video has no frames. {COMPLETE}")
    if width * height > MAX_PIXELS:
        raise MediaError(f"{path}: {width}×{height} pixels; at most {MAX_PIXELS} are read. Scale it down first.")
    if not stream.average_rate:
        raise MediaError(f"{path}: the video has no frame rate. Re-encode it with one, e.g. ffmpeg -r 25.")
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    # Small pictures decode faster on one thread; worker processes fill the cores anyway.
    stream.codec_context.thread_count = 1 if width * height < 400_000 else 0
    stream.codec_context.thread_type = "AUTO"
    return stream


def _check_complete(path: Path, stream: Any, frames: int) -> None:
    """A file cut off behind its index still opens: compare what came with what the index promised."""
    if frames == 0:
        raise MediaError(f"{path}: the video has no frames. {COMPLETE}")
    if frames < 0.9 * stream.frames - 2:
        raise MediaError(f"{path}: cut off: {frames} of its {stream.frames} frames are there. {COMPLETE}")


def probe(path: Path | str) -> VideoInfo:
    """What is in a video file. Reads every packet, decodes none.

    Raises:
        MediaError: If this is not a video file with frames and a frame rate.
    """
    path = Path(path)
    with _opened(path) as container:
        stream = _video_stream(container, path)
        stamps, end = _timeline(container, stream, path)
        size = (stream.codec_context.width, stream.codec_context.height)
        rate, duration = float(stream.average_rate), float((end - stamps[0]) * stream.time_base)
        codec, has_audio = stream.codec_context.name, bool(container.streams.audio)
    with _opened(path) as container:  # the turn of the picture is only known from a frame
        turned = next(container.decode(video=0)).rotation % 180 != 0
    return VideoInfo(
        width=size[turned],
        height=size[not turned],
        frame_rate_hz=rate,
        frames=len(stamps),
        duration_s=duration,
        has_audio=has_audio,
        codec=codec,
    )


def _stamp(packet_or_frame: Any) -> int | None:
    return packet_or_frame.pts if packet_or_frame.pts is not None else packet_or_frame.dts


def _timeline(container: Any, stream: Any, path: Path) -> tuple[list[int], int]:
    """The presentation times of all frames, ascending, and the end of the last; from packets, without decoding."""
    packets = [p for p in container.demux(stream) if p.size and _stamp(p) is not None and not p.is_discard]
    _check_complete(path, stream, len(packets))
    step = round(1 / stream.average_rate / stream.time_base)
    return sorted(_stamp(p) for p in packets), max(_stamp(p) + (p.duration or step) for p in packets)


def _picture(frame: Any, converter: VideoReformatter) -> np.ndarray:
    """One frame as it is displayed (phones store it turned): (H, W, 3) uint8 RGB.

    One converter serves a whole video: setting one up costs more than converting a small frame.
    """
    array = converter.reformat(frame, format="rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(array, round(frame.rotation / 90))) if frame.rotation else array


def _fit(picture: np.ndarray, size: tuple[int, int] | None, gray: bool = False) -> np.ndarray:
    if gray:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    if size is None or size == picture.shape[:2]:
        return picture
    shrinks = size[0] <= picture.shape[0] and size[1] <= picture.shape[1]
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _nearest(pts_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """For each time, which frame is nearest; of two equally near ones the earlier."""
    return np.searchsorted((pts_s[1:] + pts_s[:-1]) / 2, times_s, side="left")


def frame_count(duration_s: float, frame_rate_hz: float) -> int:
    """How many frames a stretch of time has at a rate; at least one."""
    return max(1, round(duration_s * frame_rate_hz))


def resample_frames(decoded: Decoded, frame_rate_hz: float, size: tuple[int, int], length: int) -> np.ndarray:
    """Frames at another rate and size: the nearest in time, squashed; the last is held beyond the end.

    Shapes:
        decoded.frames (N, H, W, 3) -> (length, h, w, 3)
    """
    chosen = _nearest(decoded.pts_s, np.arange(length) / frame_rate_hz)
    return np.stack([_fit(decoded.frames[index], size) for index in chosen])


def resample_audio(audio: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """(S,) at one rate -> (S * to / from,) at another."""
    if from_hz == to_hz:
        return audio
    import soxr

    return soxr.resample(audio, from_hz, to_hz).astype(np.float32)


def fit_audio(audio: np.ndarray, samples: int) -> np.ndarray:
    """Cut, or pad with silence, to exactly this many samples."""
    return np.pad(audio[:samples], (0, max(0, samples - len(audio)))).astype(np.float32, copy=False)


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
    with _opened(path) as container:
        stream = _video_stream(container, path)
        if not container.streams.audio:
            raise MediaError(f"{path}: no sound stream in it. Training needs clips with sound; leave it out.")
        rate, sound, converter = float(stream.average_rate), _Sound(), VideoReformatter()
        pictures: list[np.ndarray] = []
        times: list[float] = []
        for frame in container.decode(stream, container.streams.audio[0]):
            if isinstance(frame, av.AudioFrame):
                sound.add(frame)
            else:
                pictures.append(_picture(frame, converter))
                times.append(frame.time if frame.pts is not None else len(times) / rate)
        _check_complete(path, stream, len(pictures))
    pts_s = np.asarray(times) - times[0]
    return Decoded(
        frames=np.stack(pictures),
        pts_s=pts_s,
        frame_rate_hz=rate,
        duration_s=float(pts_s[-1]) + 1 / rate,
        audio=sound.since(times[0]),
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
    with _opened(path) as container:
        stream = _video_stream(container, path)
        stamps, end = _timeline(container, stream, path)
        tick = float(stream.time_base)
        pts_s = (np.asarray(stamps) - stamps[0]) * tick
        duration_s = (end - stamps[0]) * tick - start_s if duration_s is None else duration_s
        if frame_rate_hz is None:
            inside = (pts_s > start_s - tick / 2) & (pts_s < start_s + duration_s - tick / 2)
            chosen = np.flatnonzero(inside)
        else:
            ticks = np.arange(frame_count(duration_s, frame_rate_hz)) / frame_rate_hz
            chosen = _nearest(pts_s, start_s + ticks)
        if len(chosen) == 0 or not 0 <= start_s <= pts_s[-1]:
            raise MediaError(
                f"{path}: no frame from {start_s:g} s on for {duration_s:g} s; the video has {pts_s[-1]:.2f} s. "
                "Choose a stretch inside it."
            )
    pictures = _decode_only(path, {stamps[index] for index in chosen}, size, gray)
    return np.stack([pictures[stamps[index]] for index in chosen])


def _decode_only(path: Path, wanted: set[int], size: tuple[int, int] | None, gray: bool) -> dict[int, np.ndarray]:
    """Decode from the key frame before the first wanted stamp to the last wanted one; keep the wanted."""
    pictures: dict[int, np.ndarray] = {}
    converter = VideoReformatter()
    with _opened(path) as container:
        stream = _video_stream(container, path)
        container.seek(min(wanted), stream=stream)
        for frame in container.decode(stream):
            if _stamp(frame) in wanted:
                pictures[_stamp(frame)] = _fit(_picture(frame, converter), size, gray)
            if len(pictures) == len(wanted):
                return pictures
    raise MediaError(f"{path}: damaged: {len(wanted) - len(pictures)} frames can't be decoded. {COMPLETE}")


def read_audio(path: Path | str, sample_rate: int) -> np.ndarray:
    """The sound of a video or audio file: (S,) float32 mono in [-1, 1] at this rate, from time 0 on.

    Raises:
        MediaError: If the file can't be read, or has no sound.
    """
    path = Path(path)
    with _opened(path) as container:
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
