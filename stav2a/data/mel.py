"""Log-mel spectrograms as AudioLDM, Tango and their vocoder define them."""

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SAMPLE_RATE = 16_000
N_FFT = 1024  # also the length of the Hann window
HOP = 160
N_MELS = 64
FMAX = 8000.0
SHORTEST_S = ((N_FFT - HOP) // 2 + 1) / SAMPLE_RATE  # of a sound whose ends can be mirrored
FLOOR = 1e-5  # of the magnitudes, before the logarithm
SILENCE = 1e-8  # the least peak that a sound is scaled from


def normalised(audio: np.ndarray, peak: float | None) -> np.ndarray:
    """Sound without its mean and scaled to a peak, as AudioLDM and Tango do it before their mel.

    Args:
        audio: Whole sound, before it is cut or padded.
        peak: Largest magnitude of the result; None leaves the sound as it is.

    Shapes:
        audio (S,) -> (S,)

    Example:
        >>> normalised(np.array([1.0, 3.0, 2.0]), 0.5)
        array([-0.5,  0.5,  0. ])
    """
    if peak is None:
        return audio
    centred = audio - audio.mean()
    return centred * (peak / max(float(np.abs(centred).max()), SILENCE))


def log_mel(audio: Tensor) -> Tensor:
    """Waveform at `SAMPLE_RATE` -> natural logarithm of its mel magnitudes.

    Shapes:
        audio (B, S) -> (B, 1, S // HOP, N_MELS)

    Example:
        >>> log_mel(torch.zeros(2, 1600)).shape
        torch.Size([2, 1, 10, 64])
    """
    margin = (N_FFT - HOP) // 2
    padded = functional.pad(audio[:, None], (margin, margin), mode="reflect")[:, 0]
    spectrum = torch.stft(padded, N_FFT, HOP, window=_window(audio.device), center=False, return_complex=True)
    mel = torch.einsum("bft,fm->btm", spectrum.abs(), _filters(audio.device))
    return torch.log(mel.clamp(min=FLOOR))[:, None]


@functools.cache
def mel_filters() -> np.ndarray:
    """Slaney's filterbank: triangles of equal area, (N_FFT // 2 + 1, N_MELS) float32."""
    from librosa.filters import mel

    # In double precision, rounded once; + 0.0 turns a -0.0 among them into 0.0.
    triangles = mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=N_MELS, fmax=FMAX, dtype=np.float64) + 0.0
    return np.ascontiguousarray(triangles.T, dtype=np.float32)


@functools.cache
def _filters(device: torch.device) -> Tensor:
    return torch.from_numpy(mel_filters()).to(device)


@functools.cache
def _window(device: torch.device) -> Tensor:
    return torch.hann_window(N_FFT, device=device)
