"""Decoding a whole clip, picture and sound, in one pass.

Time 0 is the clip's first frame; the sound is laid on the same axis, and what is unusual is noted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from stav2a.data.media.audio import AudioCollector
from stav2a.data.media.clip_notes import ClipNote
from stav2a.data.media.opening import (
    CLIP,
    COMPLETE,
    ClipLimits,
    MediaError,
    opened,
    stamp,
    timeline,
    video_stream,
)

LOST = 0.1  # of a clip's frames may be missing or damaged


def picture(frame: Any, converter: VideoReformatter, size: tuple[int, int] | None = None) -> np.ndarray:
    """One frame as it is displayed (phones store it turned): (H, W, 3) uint8 RGB.

    One converter serves a whole video: setting one up costs more than converting a small frame. `size` is
    the (width, height) as stored to which it is reduced.
    """
    if size is None or size == (frame.width, frame.height):
        array = converter.reformat(frame, format="rgb24").to_ndarray()
    else:
        array = converter.reformat(
            frame, width=size[0], height=size[1], format="rgb24", interpolation="AREA"
        ).to_ndarray()
    return np.ascontiguousarray(np.rot90(array, round(frame.rotation / 90))) if frame.rotation else array


def is_regular(pts_s: np.ndarray, frame_rate_hz: float) -> bool:
    """Whether frame i is at i / frame_rate_hz seconds, within half a frame."""
    ticks = np.arange(len(pts_s)) / frame_rate_hz
    return bool(np.abs(pts_s - ticks).max() <= 0.5 / frame_rate_hz)


class FrameCollector:
    """Collects the decoded frames of a clip.

    Args:
        path: For messages.
        size: Width and height as the header has them.
        fitted: To which every frame is reduced.
        expected: How many frames the file's packets hold.
    """

    def __init__(self, path: Path, size: tuple[int, int], fitted: tuple[int, int], expected: int) -> None:
        self.path, self.size, self.fitted, self.expected = path, size, fitted, expected
        self._frames = np.zeros((0, 0, 0, 3), np.uint8)
        self.stamps: list[int | None] = []
        self.damaged, self.turn = 0, 0
        self.converter = VideoReformatter()

    def add(self, frame: Any) -> None:
        """Take one decoded frame.

        Raises:
            MediaError: It has not the size of the others, or there are more than the file's packets hold.
        """
        if (frame.width, frame.height) != self.size:
            raise MediaError(
                f"its picture changes from {_by(self.size)} to {frame.width}×{frame.height} on "
                "the way. Re-encode it at one size.",
                self.path,
            )
        if len(self.stamps) == self.expected:
            raise MediaError(
                f"more frames than the {self.expected} that its packets hold. Leave it out.", self.path
            )
        shown = picture(frame, self.converter, self.fitted)
        if not self.stamps:  # one array for all: to stack them at the end would take twice the memory
            self._frames = np.empty((self.expected, *shown.shape), np.uint8)
        self._frames[len(self.stamps)] = shown
        self.stamps.append(stamp(frame))
        self.damaged += frame.is_corrupt
        self.turn = frame.rotation

    @property
    def frames(self) -> np.ndarray:
        """(N, H, W, 3) uint8 RGB."""
        return self._frames[: len(self.stamps)]

    def timed(self, tick_s: Any, frame_rate_hz: float) -> tuple[float, np.ndarray, list[ClipNote]]:
        """The time of the first frame, those of all relative to it (N,), and what was unusual.

        Raises:
            MediaError: Too many frames are missing or damaged.
        """
        lost = max(0, self.expected - len(self.stamps)) + self.damaged
        if lost > LOST * self.expected:
            raise MediaError(
                f"damaged: {lost} of {self.expected} frames can't be decoded. {COMPLETE}", self.path
            )
        notes = [ClipNote("damaged frames", (lost,))] if lost else []
        if self.turn:
            notes.append(ClipNote("picture turned", (self.turn,)))
        if self.fitted != self.size:
            notes.append(ClipNote("picture reduced", (*self.size, *self.fitted)))
        ticks = np.arange(len(self.stamps)) / frame_rate_hz
        known = [each for each in self.stamps if each is not None]
        start_s = float(known[0] * tick_s) if known else 0.0
        if len(known) < len(self.stamps) or any(b <= a for a, b in zip(known, known[1:], strict=False)):
            notes.append(ClipNote("frames without times", (frame_rate_hz,)))
            return start_s, ticks, notes
        pts_s = np.asarray([float(each * tick_s) for each in known]) - start_s
        if not is_regular(pts_s, frame_rate_hz):
            gaps = np.diff(pts_s)
            notes.append(ClipNote("variable frame rate", (float(gaps.min()) * 1e3, float(gaps.max()) * 1e3)))
        return start_s, pts_s, notes


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


INTERLEAVED_S = 1.0  # how far picture and sound of the same time may lie apart in a file


@dataclass(frozen=True)
class Decoded:
    """A whole clip in memory, from one pass over its file.

    Args:
        frames: (N, H, W, 3) uint8 RGB, native rate, and native size but for `reduction`.
        pts_s: (N,) presentation times; the first is 0.
        frame_rate_hz: Average frames a second.
        duration_s: Of the picture.
        audio: (S,) float32 mono in [-1, 1], native rate, beginning with the first frame.
        sample_rate: Of `audio`, in Hz.
        caption: For filters that read it.
        notes: What was unusual about the file, and what was done about it; empty for an ordinary one.
        reduction: Native pixels a pixel of `frames`: above 1 where they would not have fitted into memory.
    """

    frames: np.ndarray
    pts_s: np.ndarray
    frame_rate_hz: float
    duration_s: float
    audio: np.ndarray
    sample_rate: int
    caption: str = ""
    notes: tuple[ClipNote, ...] = ()
    reduction: float = 1.0

    @property
    def times_s(self) -> np.ndarray:
        """(N,) when each frame is shown: by its number, as AV-Align has it, where the rate is constant."""
        ticks = np.arange(len(self.frames)) / self.frame_rate_hz
        return ticks if is_regular(self.pts_s, self.frame_rate_hz) else self.pts_s


@dataclass(frozen=True)
class _Stretch:
    """What of a file is decoded, on the file's own axis; every time from start_s on, before end_s."""

    start_s: float
    end_s: float
    tick_s: Any
    to_the_end: bool

    def holds(self, count: int | None) -> bool:
        """Whether a stamp lies in it; half a tick of rounding is forgiven. What has none is taken."""
        return count is None or self.start_s - self.tick_s / 2 <= count * self.tick_s < (
            self.end_s - self.tick_s / 2
        )


def decode(
    path: Path | str,
    caption: str = "",
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    limits: ClipLimits = CLIP,
) -> Decoded:
    """Everything in a clip with picture and sound, in one pass.

    Args:
        path: A video file with sound.
        caption: Handed on to `Decoded`.
        start_s: Where the clip begins, counted from the file's first frame.
        duration_s: How long it is at most; by default to the end of the file.
        limits: How much of a clip is read.

    Raises:
        MediaError: If the file can't be read whole, has no sound, or passes a limit.
    """
    path = Path(path)
    with opened(path) as container:
        stream = video_stream(container, path)
        if not container.streams.audio:
            raise MediaError("no sound stream in it. Training needs clips with sound; leave it out.", path)
        stretch, expected = _stretch(path, container, stream, start_s, duration_s)
        rate, size = float(stream.average_rate), (stream.codec_context.width, stream.codec_context.height)
        limits.check(path, size, expected, stretch.end_s - stretch.start_s)
    pictures, sound = (
        FrameCollector(path, size, limits.fitted(size, expected), expected),
        AudioCollector(path),
    )
    for frame in _frames(path, stretch, seek=start_s > 0):
        if isinstance(frame, av.AudioFrame):
            sound.add(frame, stretch.end_s)
        elif stretch.holds(stamp(frame)):
            pictures.add(frame)
    zero_s, pts_s, seen = pictures.timed(stretch.tick_s, rate)
    audio, heard = sound.between(zero_s, stretch.end_s, picture_ends=stretch.to_the_end)
    return Decoded(
        frames=pictures.frames,
        pts_s=pts_s,
        frame_rate_hz=rate,
        duration_s=stretch.end_s - zero_s,
        audio=audio,
        sample_rate=sound.sample_rate,
        caption=caption,
        notes=(*seen, *heard),
        reduction=size[0] / pictures.fitted[0],
    )


def _stretch(
    path: Path, container: Any, stream: Any, start_s: float, duration_s: float | None
) -> tuple[_Stretch, int]:
    """What to decode, and how many frames that is by the packets."""
    stamps, end = timeline(container, stream, path)
    begun_s, end_s = float(stamps[0] * stream.time_base), float(end * stream.time_base)
    until_s = end_s if duration_s is None else min(end_s, begun_s + start_s + duration_s)
    stretch = _Stretch(begun_s + start_s, until_s, stream.time_base, until_s == end_s)
    frames = sum(map(stretch.holds, stamps))
    if not frames:
        raise MediaError(
            f"no frame from {start_s:g} s on; the picture lasts {end_s - begun_s:.2f} s. "
            "Choose a stretch inside the video.",
            path,
        )
    return stretch, frames


def _frames(path: Path, stretch: _Stretch, *, seek: bool) -> Iterator[Any]:
    """The decoded frames of picture and sound, up to the end of the stretch or a little more."""
    with opened(path) as container:
        streams = video_stream(container, path), container.streams.audio[0]
        if seek:
            container.seek(round(stretch.start_s / stretch.tick_s), stream=streams[0])
        passed = set()
        for packet in container.demux(*streams):
            if packet.dts is not None and packet.dts * packet.time_base > stretch.end_s + INTERLEAVED_S:
                passed.add(packet.stream.index)
            if len(passed) == len(streams):
                break
            yield from packet.decode()
        else:
            return
        for stream in streams:  # what the decoders still hold
            yield from stream.decode(None)


def resample_frames(decoded: Decoded, frame_rate_hz: float, size: tuple[int, int], length: int) -> np.ndarray:
    """Frames at another rate and size: the nearest in time, squashed; the last is held beyond the end.

    Shapes:
        decoded.frames (N, H, W, 3) -> (length, h, w, 3)
    """
    chosen = nearest(decoded.pts_s, np.arange(length) / frame_rate_hz)
    return np.stack([fit_picture(decoded.frames[index], size) for index in chosen])


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
                f"no frame from {start_s:g} s on for {duration_s:g} s; the last is at "
                f"{pts_s[-1]:.2f} s. Choose a stretch inside the video.",
                path,
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
                pictures[stamp(frame)] = fit_picture(picture(frame, converter), size, gray)
            if len(pictures) == len(wanted):
                return pictures
    raise MediaError(f"damaged: {len(wanted) - len(pictures)} frames can't be decoded. {COMPLETE}", path)


def fit_picture(picture: np.ndarray, size: tuple[int, int] | None, gray: bool = False) -> np.ndarray:
    if gray:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    if size is None or size == picture.shape[:2]:
        return picture
    shrinks = size[0] <= picture.shape[0] and size[1] <= picture.shape[1]
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def nearest(pts_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """For each time, which frame is nearest; of two equally near ones the earlier."""
    return np.searchsorted((pts_s[1:] + pts_s[:-1]) / 2, times_s, side="left")


def frame_count(duration_s: float, frame_rate_hz: float) -> int:
    """How many frames a stretch of time has at a rate; at least one."""
    return max(1, round(duration_s * frame_rate_hz))
