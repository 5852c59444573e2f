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
FLOOR = 1e-5  # of the magnitudes, before the logarithm


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
    edges_hz = _mel_to_hz(np.linspace(0, _hz_to_mel(FMAX), N_MELS + 2))
    bins_hz = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)[:, None]
    left, centre, right = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising, falling = (bins_hz - left) / (centre - left), (right - bins_hz) / (right - centre)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (right - left)).astype(np.float32)


# Slaney's mel scale is linear below 1 kHz (15 mel) and logarithmic above, 27 steps for a factor of 6.4.
def _hz_to_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * float(np.log(hz / 1000) / np.log(6.4))


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


@functools.cache
def _filters(device: torch.device) -> Tensor:
    return torch.from_numpy(mel_filters()).to(device)


@functools.cache
def _window(device: torch.device) -> Tensor:
    return torch.hann_window(N_FFT, device=device)
