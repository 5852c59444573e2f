"""Filters by what is plain to see and hear: how long, how loud, how still."""

import math

import cv2
import numpy as np

from stav2a.data.filters.decision import Decision, by_figure
from stav2a.data.io import Decoded
from stav2a.registry import register

FLOOR_DB = -120.0  # what silence is called


@register("data_filter", "none")
class KeepAll:
    """Keep every clip."""

    def __call__(self, clip: Decoded) -> Decision:
        return Decision(True, None, "kept: no filter", "none")


@register("data_filter", "duration")
class Duration:
    """Keep clips that are long enough and not too long.

    Args:
        shortest_s: What picture and sound must both last, in seconds.
        longest_s: What the picture may last, in seconds.
    """

    def __init__(self, *, shortest_s: float = 2.0, longest_s: float = 60.0) -> None:
        self.shortest_s, self.longest_s = shortest_s, longest_s

    def __call__(self, clip: Decoded) -> Decision:
        common_s = min(clip.duration_s, len(clip.audio) / clip.sample_rate)
        if clip.duration_s > self.longest_s:
            return by_figure("duration", clip.duration_s, "s", keep=False, sign=">", bound=self.longest_s)
        kept = common_s >= self.shortest_s
        return by_figure(
            "duration", common_s, "s", keep=kept, sign="≥" if kept else "<", bound=self.shortest_s
        )


@register("data_filter", "silence")
class Silence:
    """Keep clips that can be heard: the loudest tenth of a second is above a level.

    Args:
        threshold_db: The lowest level that is kept, in dB below full scale (root mean square).
    """

    def __init__(self, *, threshold_db: float = -50.0) -> None:
        self.threshold_db = threshold_db

    def __call__(self, clip: Decoded) -> Decision:
        level = loudest_db(clip.audio, clip.sample_rate)
        kept = level >= self.threshold_db
        return by_figure(
            "silence", level, "dB", keep=kept, sign="≥" if kept else "<", bound=self.threshold_db
        )


def loudest_db(audio: np.ndarray, sample_rate: int) -> float:
    """The root mean square of the loudest tenth of a second, in dB of full scale; -120 at least.

    Example:
        >>> loudest_db(np.full(1000, 0.1), 1000)
        -20.0
    """
    size = max(1, min(len(audio), sample_rate // 10))
    pieces = audio[: len(audio) // size * size].reshape(-1, size).astype(np.float64)
    power = float((pieces**2).mean(axis=1).max(initial=0.0))
    return round(max(FLOOR_DB, 10 * math.log10(max(power, 1e-12))), 2)


@register("data_filter", "static")
class Static:
    """Keep clips whose picture changes: slide shows and still pictures with music have no use here.

    A picture has changed where, seen at 64 pixels' width, some part differs from the one before by more than
    the noise of cameras and codecs.

    Args:
        change: By how many grey levels a part must differ, of 255.
        fraction: The lowest fraction of pictures that have changed, of those that follow another.
    """

    def __init__(self, *, change: float = 2.0, fraction: float = 0.05) -> None:
        self.change, self.fraction = change, fraction

    def __call__(self, clip: Decoded) -> Decision:
        changed = changes(clip.frames) > self.change
        score = float(changed.mean()) if len(changed) else 0.0
        kept = score >= self.fraction
        return by_figure(
            "static",
            score,
            "of the pictures changed",
            keep=kept,
            sign="≥" if kept else "<",
            bound=self.fraction,
        )


def changes(frames: np.ndarray) -> np.ndarray:
    """By how much the part of the picture that changes most differs from the picture before, in grey levels.

    Shapes:
        frames (N, H, W, 3) uint8 -> (N - 1,)
    """
    height, width = frames.shape[1:3]
    size = (64, max(1, round(64 * height / width)))
    grey = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames)
    small = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in grey]
    return np.array(
        [cv2.absdiff(a, b).max() for a, b in zip(small, small[1:], strict=False)], dtype=np.float64
    )
