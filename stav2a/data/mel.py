"""Log-mel spectrograms as AudioLDM, Tango and their vocoder define them.

They are what `front_end.audioldm_mel` gives. Whatever a model's front end is, pages show them, and the
classifier and the contrastive stage's tower read them, so that models of other rates are compared alike.
"""

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stav2a.utils.resampling import resample_audio

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
    window = hann_window(N_FFT, audio.device)
    spectrum = torch.stft(padded, N_FFT, HOP, window=window, center=False, return_complex=True)
    filters = slaney_filters_on(audio.device, SAMPLE_RATE, N_FFT, N_MELS, FMAX)
    mel = torch.einsum("bft,fm->btm", spectrum.abs(), filters)
    return torch.log(mel.clamp(min=FLOOR))[:, None]


def log_mels(audio: np.ndarray, sample_rate: int) -> Tensor:
    """Log-mels of sounds at any rate, which are resampled to `SAMPLE_RATE` first.

    Shapes:
        audio (N, S) -> (N, 1, Tm, N_MELS)
    """
    sounds = np.stack([resample_audio(sound, sample_rate, SAMPLE_RATE) for sound in audio])
    return log_mel(torch.from_numpy(np.ascontiguousarray(sounds, dtype=np.float32)))


def mel_filters() -> np.ndarray:
    """Filterbank of `log_mel`, (N_FFT // 2 + 1, N_MELS) float32."""
    return slaney_filters(SAMPLE_RATE, N_FFT, N_MELS, FMAX)


@functools.cache
def slaney_filters(sample_rate: int, n_fft: int, bins: int, highest_hz: float) -> np.ndarray:
    """Slaney's filterbank from 0 Hz on: triangles of equal area, (n_fft // 2 + 1, bins) float32."""
    from librosa.filters import mel

    # In double precision, rounded once; + 0.0 turns a -0.0 among them into 0.0.
    triangles = mel(sr=sample_rate, n_fft=n_fft, n_mels=bins, fmax=highest_hz, dtype=np.float64) + 0.0
    return np.ascontiguousarray(triangles.T, dtype=np.float32)


@functools.cache
def slaney_filters_on(
    device: torch.device, sample_rate: int, n_fft: int, bins: int, highest_hz: float
) -> Tensor:
    """`slaney_filters` on a device."""
    return torch.from_numpy(slaney_filters(sample_rate, n_fft, bins, highest_hz)).to(device)


@functools.cache
def hann_window(n_fft: int, device: torch.device) -> Tensor:
    """Hann window (n_fft,) on a device."""
    return torch.hann_window(n_fft, device=device)
