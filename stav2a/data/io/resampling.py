"""Bringing pictures and sound to another rate and size."""

import cv2
import numpy as np


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


def resample_audio(audio: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """(S,) at one rate -> (S * to / from,) at another."""
    if from_hz == to_hz:
        return audio
    import soxr

    return soxr.resample(audio, from_hz, to_hz).astype(np.float32)


def fit_audio(audio: np.ndarray, samples: int) -> np.ndarray:
    """Cut, or pad with silence, to exactly this many samples."""
    return np.pad(audio[:samples], (0, max(0, samples - len(audio)))).astype(np.float32, copy=False)
