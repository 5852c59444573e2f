"""The frames of a video as they are displayed, by their presentation times."""

from pathlib import Path
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from stav2a.data.io.errors import MediaError
from stav2a.data.io.opening import COMPLETE, stamp

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


class Pictures:
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
                f"{self.path}: its picture changes from {_by(self.size)} to {frame.width}×{frame.height} on "
                "the way. Re-encode it at one size."
            )
        if len(self.stamps) == self.expected:
            raise MediaError(
                f"{self.path}: more frames than the {self.expected} that its packets hold. Leave it out."
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

    def timed(self, tick_s: Any, frame_rate_hz: float) -> tuple[float, np.ndarray, list[str]]:
        """The time of the first frame, those of all relative to it (N,), and what was unusual.

        Raises:
            MediaError: Too many frames are missing or damaged.
        """
        lost = max(0, self.expected - len(self.stamps)) + self.damaged
        if lost > LOST * self.expected:
            raise MediaError(
                f"{self.path}: damaged: {lost} of {self.expected} frames can't be decoded. {COMPLETE}"
            )
        notes = [f"{lost} damaged frames"] if lost else []
        if self.turn:
            notes.append(f"picture turned by {self.turn}°")
        if self.fitted != self.size:
            notes.append(f"picture reduced from {_by(self.size)} to {_by(self.fitted)} to fit into memory")
        ticks = np.arange(len(self.stamps)) / frame_rate_hz
        known = [each for each in self.stamps if each is not None]
        start_s = float(known[0] * tick_s) if known else 0.0
        if len(known) < len(self.stamps) or any(b <= a for a, b in zip(known, known[1:], strict=False)):
            notes.append(f"times of frames missing or not in order: taken as {frame_rate_hz:g} a second")
            return start_s, ticks, notes
        pts_s = np.asarray([float(each * tick_s) for each in known]) - start_s
        if not is_regular(pts_s, frame_rate_hz):
            gaps = np.diff(pts_s)
            notes.append(f"variable frame rate: {gaps.min() * 1e3:.0f} to {gaps.max() * 1e3:.0f} ms a frame")
        return start_s, pts_s, notes


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
