"""Decoding of pictures: a whole clip with its sound in one pass, or the frames of a stretch of a video.

Time 0 is a clip's first frame; the sound is laid on the same axis, and unusual facts are noted.
"""

from collections.abc import Callable, Iterator, Sequence
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
    FEW_PIXELS,
    ClipLimits,
    MediaError,
    opened,
    packets,
    stamp,
    timeline,
    video_stream,
)

LACKING_S = 0.1  # by which a picture may be shorter than asked for: its last frame is repeated
LOST = 0.1  # part of a clip's frames that may be missing or damaged
INTERLEAVED_S = 1.0  # largest distance in a file between picture and sound of the same time


@dataclass(frozen=True)
class Decoded:
    """A whole clip in memory, from one pass over its file.

    Args:
        frames: (N, H, W, 3) uint8 RGB, native rate, and native size but for `reduction`.
        pts_s: (N,) presentation times; the first is 0.
        frame_rate_hz: Average frames a second.
        duration_s: Duration of the picture.
        audio: (S,) float32 mono in [-1, 1], native rate, beginning with the first frame.
        sample_rate: Rate of `audio`, in Hz.
        caption: Caption, for filters that read it.
        notes: Unusual facts of the file, and how they were dealt with; empty for an ordinary one.
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
        """(N,) the frames' times, see `frame_times`."""
        return frame_times(self.pts_s, self.frame_rate_hz)


def frame_times(pts_s: np.ndarray, frame_rate_hz: float) -> np.ndarray:
    """(N,) the frames' times: by their numbers, as AV-Align has it, where the rate is constant."""
    return np.arange(len(pts_s)) / frame_rate_hz if _is_regular(pts_s, frame_rate_hz) else pts_s


def decode(
    path: Path | str,
    caption: str = "",
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    limits: ClipLimits = CLIP,
) -> Decoded:
    """Decode a clip with picture and sound, in one pass.

    Args:
        path: A video file with sound.
        caption: Caption of the result.
        start_s: Begin of the clip, counted from the file's first frame.
        duration_s: Longest duration; by default to the end of the file.
        limits: Limits of the clip.

    Raises:
        MediaError: If the file can't be read whole, has no sound, or passes a limit.
    """
    path = Path(path)
    with opened(path) as container:
        stream = video_stream(container, path)
        if not container.streams.audio:
            raise MediaError("no sound stream in it. Training needs clips with sound; leave it out.", path)
        stamps, last = timeline(container, stream, path)
        rate, tick_s = float(stream.average_rate), stream.time_base
        size = (stream.codec_context.width, stream.codec_context.height)

    file_start_s, file_end_s = float(stamps[0] * tick_s), float(last * tick_s)
    begin_s = file_start_s + start_s
    end_s = file_end_s if duration_s is None else min(file_end_s, begin_s + duration_s)

    first_s, beyond_s = begin_s - float(tick_s / 2), end_s - float(tick_s / 2)

    def wanted(count: int | None) -> bool:
        """True for a stamp in the clip, but for rounding by half a tick, and for a frame without one."""
        return count is None or first_s <= _seconds(count, tick_s) < beyond_s

    expected = sum(map(wanted, stamps))
    if not expected:
        raise MediaError(
            f"no frame from {start_s:g} s on; the picture lasts {file_end_s - file_start_s:.2f} s. "
            "Choose a stretch inside the video.",
            path,
        )
    limits.check(path, size, expected, end_s - begin_s)
    fitted = limits.fitted(size, expected)

    sound, converter = AudioCollector(path), VideoReformatter()
    frames = np.zeros((0, 0, 0, 3), np.uint8)
    found: list[int | None] = []
    damaged, turn = 0, 0
    for frame in _frames(path, begin_s if start_s > 0 else None, end_s):
        if isinstance(frame, av.AudioFrame):
            sound.add(frame, end_s)
            continue
        if not wanted(stamp(frame)):
            continue
        if (frame.width, frame.height) != size:
            raise MediaError(
                f"its picture changes from {size[0]}×{size[1]} to {frame.width}×{frame.height} on the way. "
                "Re-encode it at one size.",
                path,
            )
        if len(found) == expected:
            raise MediaError(f"more frames than the {expected} that its packets hold. Leave it out.", path)
        picture = _picture(frame, converter, fitted)
        if not found:  # one array for all: to stack them in the end would take twice the memory
            frames = np.empty((expected, *picture.shape), np.uint8)
        frames[len(found)] = picture
        found.append(stamp(frame))
        damaged, turn = damaged + frame.is_corrupt, frame.rotation

    lost = max(0, expected - len(found)) + damaged
    if lost > LOST * expected:
        raise MediaError(f"damaged: {lost} of {expected} frames can't be decoded. {COMPLETE}", path)
    notes = [ClipNote("damaged frames", (lost,))] if lost else []
    if turn:
        notes.append(ClipNote("picture turned", (turn,)))
    if fitted != size:
        notes.append(ClipNote("picture reduced", (*size, *fitted)))
    zero_s, pts_s, timing = _times(found, tick_s, rate)
    audio, unusual = sound.between(zero_s, end_s, picture_ends=end_s == file_end_s)
    return Decoded(
        frames=frames[: len(found)],
        pts_s=pts_s,
        frame_rate_hz=rate,
        duration_s=end_s - zero_s,
        audio=audio,
        sample_rate=sound.sample_rate,
        caption=caption,
        notes=(*notes, *timing, *unusual),
        reduction=size[0] / fitted[0],
    )


def _frames(path: Path, seek_s: float | None, end_s: float) -> Iterator[Any]:
    """The decoded frames of picture and sound, from a time or the beginning, to the end or a little more."""
    with opened(path) as container:
        streams = video_stream(container, path), container.streams.audio[0]
        if seek_s is not None:
            _seek(container, streams[0], round(seek_s / streams[0].time_base))
        passed = set()
        last = {each.index: (end_s + INTERLEAVED_S) / float(each.time_base) for each in streams}  # in ticks
        for packet in packets(container, *streams):
            if packet.dts is not None and packet.dts > last[packet.stream_index]:
                passed.add(packet.stream_index)
            if len(passed) == len(streams):
                break
            yield from packet.decode()
        else:
            return
        for stream in streams:  # frames that the decoders still hold
            yield from stream.decode(None)


def _seek(container: Any, stream: Any, ticks: int) -> None:
    """Go to the frame of a time, or before. Formats without an index of frames stay at their beginning."""
    if any(name in container.format.name for name in ("mp4", "matroska")):
        container.seek(ticks, stream=stream)


def _times(
    stamps: Sequence[int | None], tick_s: Any, frame_rate_hz: float
) -> tuple[float, np.ndarray, list[ClipNote]]:
    """The time of the first frame, those of all relative to it (N,), and unusual facts."""
    known = [each for each in stamps if each is not None]
    start_s = float(known[0] * tick_s) if known else 0.0
    if len(known) < len(stamps) or any(b <= a for a, b in zip(known, known[1:], strict=False)):
        note = ClipNote("frames without times", (frame_rate_hz,))
        return start_s, np.arange(len(stamps)) / frame_rate_hz, [note]
    pts_s = np.asarray([_seconds(each, tick_s) for each in known]) - start_s
    if _is_regular(pts_s, frame_rate_hz):
        return start_s, pts_s, []
    gaps = np.diff(pts_s)
    note = ClipNote("variable frame rate", (float(gaps.min() * 1e3), float(gaps.max() * 1e3)))
    return start_s, pts_s, [note]


def _seconds(ticks: int, tick_s: Any) -> float:
    """float(ticks * tick_s), in a tenth of the time that fractions take."""
    return ticks * tick_s.numerator / tick_s.denominator


def _is_regular(pts_s: np.ndarray, frame_rate_hz: float) -> bool:
    """True if frame i is at i / frame_rate_hz seconds, within half a frame."""
    ticks = np.arange(len(pts_s)) / frame_rate_hz
    return bool(np.abs(pts_s - ticks).max() <= 0.5 / frame_rate_hz)


def _picture(frame: Any, converter: VideoReformatter, size: tuple[int, int] | None = None) -> np.ndarray:
    """One frame as it is displayed (phones store it turned): (H, W, 3) uint8 RGB.

    One converter serves a whole video: setting one up costs more than converting a small frame. `size` is
    the (width, height) as stored to which it is reduced.
    """
    threads = 1 if frame.width * frame.height < FEW_PIXELS else 0
    if size is None or size == (frame.width, frame.height):
        array = converter.reformat(frame, format="rgb24", threads=threads).to_ndarray()
    else:
        array = converter.reformat(
            frame, width=size[0], height=size[1], format="rgb24", interpolation="AREA", threads=threads
        ).to_ndarray()
    return np.ascontiguousarray(np.rot90(array, round(frame.rotation / 90))) if frame.rotation else array


def resample_frames(decoded: Decoded, frame_rate_hz: float, size: tuple[int, int], length: int) -> np.ndarray:
    """Frames at another rate and size: the nearest in time, squashed; the last is repeated beyond the end.

    Shapes:
        decoded.frames (N, H, W, 3) -> (length, h, w, 3)
    """
    return frames_at(decoded, np.arange(length) / frame_rate_hz, size)


def frames_at(decoded: Decoded, times_s: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The frames nearest to some times, squashed.

    Shapes:
        decoded.frames (N, H, W, 3), times_s (L,) -> (L, h, w, 3)
    """
    return np.stack([_fitted(decoded.frames[index], size) for index in _nearest(decoded.pts_s, times_s)])


def read_video(
    path: Path | str,
    *,
    frame_rate_hz: float | None = None,
    times_s: Callable[[np.ndarray], np.ndarray] | None = None,
    size: int | tuple[int, int] | None = None,
    fit: Callable[[np.ndarray], np.ndarray] | None = None,
    start_s: float = 0.0,
    duration_s: float | None = None,
    gray: bool = False,
    hidden: bool = False,
) -> np.ndarray:
    """Decode the frames of a stretch of a video; no others are kept in memory.

    Args:
        path: A video file.
        frame_rate_hz: Rate to whose ticks the nearest frames are taken; by default every frame.
        times_s: Function from the times of all frames (N,), the first at 0, to those (L,) to which the
            nearest frames are taken, in place of a rate.
            The picture may end 0.1 s before the last of them, no sooner.
        size: Height and width to which frames are squashed, or the side of a square.
        fit: What is done to each frame (H, W, 3) instead.
        start_s: Begin of the stretch.
        duration_s: Duration; by default to the end. With a rate, the last frame is repeated beyond it.
        gray: Whether to return luminance instead of RGB.
        hidden: Whether frames that an mp4's edit list hides count as frames.

    Shapes:
        (L, H, W, 3) uint8 RGB, or (L, H, W) uint8 if gray

    The nearest frame stands in for one that can't be decoded: for up to a tenth of them, and before the first
    whole picture of a recording that begins between two.

    Raises:
        MediaError: If the file is not a complete video, or the stretch holds no frame.
    """
    path = Path(path)
    size = (size, size) if isinstance(size, int) else size
    with opened(path, hidden=hidden) as container:
        stream = video_stream(container, path)
        stamps, end = timeline(container, stream, path)
        tick = float(stream.time_base)
        pts_s = (np.asarray(stamps) - stamps[0]) * tick
        duration_s = (end - stamps[0]) * tick - start_s if duration_s is None else duration_s
        if times_s is not None:
            asked_s, picture_s = times_s(pts_s), (end - stamps[0]) * tick
            chosen = _nearest(pts_s, asked_s)
            if asked_s.max() > picture_s + LACKING_S:
                raise MediaError(
                    f"its picture ends after {picture_s:.2f} s; it is needed at {asked_s.max():.2f} s. "
                    "Give the whole film, or take less of the sound.",
                    path,
                )
        elif frame_rate_hz is None:
            inside = (pts_s > start_s - tick / 2) & (pts_s < start_s + duration_s - tick / 2)
            chosen = np.flatnonzero(inside)
        else:
            ticks = np.arange(frame_count(duration_s, frame_rate_hz)) / frame_rate_hz
            chosen = _nearest(pts_s, start_s + ticks)
        if len(chosen) == 0 or not 0 <= start_s <= pts_s[-1]:
            raise MediaError(
                f"no frame from {start_s:g} s on for {duration_s:g} s; the last is at "
                f"{pts_s[-1]:.2f} s. Choose a stretch inside the video.",
                path,
            )
    wanted = {stamps[index] for index in chosen}
    pictures: dict[int, np.ndarray] = {}
    converter = VideoReformatter()
    with opened(path, hidden=hidden) as container:
        stream = video_stream(container, path)
        _seek(container, stream, min(wanted))
        for packet in packets(container, stream):
            for frame in packet.decode():
                if stamp(frame) in wanted:
                    picture = _picture(frame, converter)
                    pictures[stamp(frame)] = fit(picture) if fit else _fitted(picture, size, gray)
            if len(pictures) == len(wanted):
                break
    if lost := sorted(wanted - set(pictures)):
        first = min(pictures, default=lost[-1])
        if not pictures or sum(each > first for each in lost) > LOST * len(wanted):
            raise MediaError(f"damaged: {len(lost)} frames can't be decoded. {COMPLETE}", path)
        whole = list(pictures)
        for each in lost:
            pictures[each] = pictures[min(whole, key=lambda known: abs(known - each))]
    return np.stack([pictures[stamps[index]] for index in chosen])


def probe_times(path: Path | str) -> np.ndarray:
    """(N,) the times of all frames of a video, see `frame_times`; no frame is decoded.

    Raises:
        MediaError: If this is not a video file with frames and a frame rate.
    """
    path = Path(path)
    with opened(path) as container:
        stream = video_stream(container, path)
        stamps, _ = timeline(container, stream, path)
        pts_s = (np.asarray(stamps) - stamps[0]) * float(stream.time_base)
        return frame_times(pts_s, float(stream.average_rate))


def _fitted(picture: np.ndarray, size: tuple[int, int] | None, gray: bool = False) -> np.ndarray:
    if gray:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    if size is None or size == picture.shape[:2]:
        return picture
    shrinks = size[0] <= picture.shape[0] and size[1] <= picture.shape[1]
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _nearest(pts_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Index of the frame nearest to each time; of two equally near ones the earlier."""
    return np.searchsorted((pts_s[1:] + pts_s[:-1]) / 2, times_s, side="left")


@dataclass(frozen=True)
class FrameGrid:
    """Rate, size and number of the frames that an encoder takes of a clip.

    Args:
        frame_rate_hz: Frames per second.
        size: Side of the square frames, in pixels.
        length: Number of frames, L.
    """

    frame_rate_hz: float
    size: int
    length: int

    @classmethod
    def of(cls, encoder: Any, duration_s: float) -> "FrameGrid":
        """Frames of an encoder, for clips of a duration."""
        rate_hz = encoder.frame_rate_hz
        return cls(rate_hz, encoder.frame_size, frame_count(duration_s, rate_hz))

    def frames(self, decoded: Decoded) -> np.ndarray:
        """A decoded clip's frames (L, 3, size, size)."""
        frames = resample_frames(decoded, self.frame_rate_hz, (self.size, self.size), self.length)
        return np.ascontiguousarray(frames.transpose(0, 3, 1, 2))


def frame_count(duration_s: float, frame_rate_hz: float) -> int:
    """Number of frames in a duration at a rate; at least one."""
    return max(1, round(duration_s * frame_rate_hz))
