"""Sound brought to another rate and length."""

import numpy as np


def resample_audio(audio: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """(S,) or (channels, S) at one rate -> S * to / from samples of each channel at another."""
    if from_hz == to_hz:
        return audio
    import soxr

    return soxr.resample(audio.T, from_hz, to_hz).T.astype(np.float32)


def fit_audio(audio: np.ndarray, samples: int) -> np.ndarray:
    """Cut, or pad with silence, to exactly this many samples: (S,) or (channels, S)."""
    lacking = [(0, 0)] * (audio.ndim - 1) + [(0, max(0, samples - audio.shape[-1]))]
    return np.pad(audio[..., :samples], lacking).astype(np.float32, copy=False)
