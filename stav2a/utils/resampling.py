"""Sound brought to another rate and length."""

import numpy as np


def resample_audio(audio: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """(S,) at one rate -> (S * to / from,) at another."""
    if from_hz == to_hz:
        return audio
    import soxr

    return soxr.resample(audio, from_hz, to_hz).astype(np.float32)


def fit_audio(audio: np.ndarray, samples: int) -> np.ndarray:
    """Cut, or pad with silence, to exactly this many samples."""
    return np.pad(audio[:samples], (0, max(0, samples - len(audio)))).astype(np.float32, copy=False)
