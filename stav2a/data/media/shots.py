"""Shots of a film: the times at which it cuts from one picture to another."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from stav2a.data.media.opening import opened, packets, stamp, timeline, video_stream
from stav2a.data.media.video import Decoded

THRESHOLD = 10.0  # the default of scdet; ten real clips without a cut stay below 8
SHORTEST_S = 0.6  # of a shot
WIDTH = 160  # to which pictures are reduced


def find_cuts(video: Path | Decoded, *, threshold: float = THRESHOLD) -> list[float]:
    """Times at which a new shot begins, in seconds from the first frame; without that frame's.

    A cut is where the score of a frame, that of FFmpeg's filter `scdet`, is above a threshold. The score is
    the mean difference of grey from the frame before, in percent of white, or how much that differs from
    the difference before it, if this is less. Dissolves are not found. A cut within 0.6 s of the one before,
    of the beginning or of the end is left out.

    Args:
        video: A video file, whose hidden frames count; or its frames.
        threshold: Score above which a frame begins a shot.

    Raises:
        MediaError: The video can't be read.

    Example:
        >>> frames = np.repeat(np.array([0, 200], np.uint8), 10).repeat(16 * 16 * 3).reshape(20, 16, 16, 3)
        >>> find_cuts(Decoded(frames, np.arange(20) / 10, 10.0, 2.0, np.zeros(0), 1))
        [1.0]
    """
    if isinstance(video, Decoded):
        grey = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in video.frames)
        return _apart(_cuts(zip(video.pts_s.tolist(), grey, strict=True), threshold), video.duration_s)
    with opened(video, hidden=True) as container:
        stream = video_stream(container, video)
        stamps, end = timeline(container, stream, video)
        tick_s = float(stream.time_base)
    return _apart(_cuts(_frames(video, stamps[0], tick_s), threshold), (end - stamps[0]) * tick_s)


def _frames(path: Path, zero: int, tick_s: float) -> Iterator[tuple[float, np.ndarray]]:
    """Times and grey pictures of all frames; those that can't be decoded are left out."""
    reformatter = VideoReformatter()
    with opened(path, hidden=True) as container:
        stream = video_stream(container, path)
        for packet in packets(container, stream):
            for frame in packet.decode():
                if (ticks := stamp(frame)) is not None:
                    yield (ticks - zero) * tick_s, reformatter.reformat(frame, format="gray").to_ndarray()


def _cuts(frames: Iterable[tuple[float, np.ndarray]], threshold: float) -> Iterator[float]:
    before, last = None, 0.0
    for time_s, picture in frames:
        height, width = picture.shape
        reduced = (min(width, WIDTH), max(1, round(height * min(1, WIDTH / width))))
        small = cv2.resize(picture, reduced, interpolation=cv2.INTER_AREA)
        if before is not None and before.shape == small.shape:
            difference = 100 / 255 * float(cv2.absdiff(before, small).mean())
            if min(difference, abs(difference - last)) > threshold:
                yield time_s
            last = difference
        before = small


def _apart(cuts_s: Iterator[float], duration_s: float) -> list[float]:
    kept: list[float] = []
    for cut_s in cuts_s:
        if min(cut_s - (kept[-1] if kept else 0.0), duration_s - cut_s) >= SHORTEST_S:
            kept.append(cut_s)
    return kept
