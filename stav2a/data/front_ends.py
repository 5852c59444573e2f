"""Front ends: from a waveform to what the autoencoder reads. They have no weights."""

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor, nn

from stav2a.data import mel
from stav2a.registry import register


class MelFrontEnd(nn.Module, ABC):
    """Front end of log-mel spectrograms, whose magnitudes Griffin-Lim can turn back into sound.

    Attributes:
        n_fft: Length of the Fourier transform and of its window, in samples.
    """

    sample_rate: int
    hop: int
    bins: int
    n_fft: int

    @abstractmethod
    def filters(self) -> np.ndarray:
        """Filterbank (n_fft // 2 + 1, M), float32."""

    @abstractmethod
    def magnitudes(self, mel: np.ndarray) -> np.ndarray:
        """Log-mels -> mel magnitudes, of the same shape."""


@register("front_end", "audioldm_mel")
class AudioLDMMel(MelFrontEnd):
    """Log-mels of AudioLDM and Tango: 16 kHz, 64 bins up to 8 kHz, a frame every 10 ms, natural logarithm.

    Shapes:
        audio (B, S) -> (B, 1, S // 160, 64)
    """

    sample_rate, hop, bins, n_fft = mel.SAMPLE_RATE, mel.HOP, mel.N_MELS, mel.N_FFT

    def forward(self, audio: Tensor) -> Tensor:
        return mel.log_mel(audio)

    def filters(self) -> np.ndarray:
        return mel.mel_filters()

    def magnitudes(self, mel: np.ndarray) -> np.ndarray:
        return np.exp(mel)
