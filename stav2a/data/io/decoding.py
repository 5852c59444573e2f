"""Decoding a whole clip, picture and sound, in one pass.

Time 0 is the clip's first frame; the sound is laid on the same axis, and what is unusual is noted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from stav2a.data.io.errors import MediaError
from stav2a.data.io.limits import CLIP, ClipLimits
from stav2a.data.io.opening import opened, stamp, timeline, video_stream
from stav2a.data.io.pictures import Pictures, is_regular
from stav2a.data.io.resampling import fit_picture, nearest
from stav2a.data.io.sound import Sound

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
    notes: tuple[str, ...] = ()
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
            raise MediaError(f"{path}: no sound stream in it. Training needs clips with sound; leave it out.")
        stretch, expected = _stretch(path, container, stream, start_s, duration_s)
        rate, size = float(stream.average_rate), (stream.codec_context.width, stream.codec_context.height)
        limits.check(path, size, expected, stretch.end_s - stretch.start_s)
    pictures, sound = Pictures(path, size, limits.fitted(size, expected), expected), Sound(path)
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
            f"{path}: no frame from {start_s:g} s on; the picture lasts {end_s - begun_s:.2f} s. "
            "Choose a stretch inside the video."
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
