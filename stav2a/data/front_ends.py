"""Front ends: from a waveform to what the autoencoder reads. They have no weights."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.data import mel
from stav2a.data.media.opening import SAMPLE_RATES_HZ
from stav2a.registry import register
from stav2a.utils.errors import check_bounds

POWER_FLOOR = 1e-9  # added to the power spectra of MMAudio


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


@register("front_end", "mmaudio_mel")
class MMAudioMel(MelFrontEnd):
    """Log-mels of MMAudio at 44.1 kHz: 128 bins up to 22 kHz, a frame every 512 samples, natural logarithm.

    They are those of `autoencoder.mmaudio` and of BigVGAN-v2 (arXiv 2412.15322).

    Shapes:
        audio (B, S) -> (B, 1, S // 512, 128)
    """

    sample_rate, hop, bins, n_fft = 44_100, 512, 128, 2048

    def forward(self, audio: Tensor) -> Tensor:
        return self.magnitude_mel(audio).log()

    def magnitude_mel(self, audio: Tensor) -> Tensor:
        """Mel magnitudes of a sound clipped to [-1, 1], not below the floor.

        Shapes:
            audio (B, S) -> (B, 1, S // hop, M)
        """
        margin = (self.n_fft - self.hop) // 2
        padded = functional.pad(audio.clamp(-1, 1)[:, None], (margin, margin), mode="reflect")[:, 0]
        window = mel.hann_window(self.n_fft, audio.device)
        spectrum = torch.stft(padded, self.n_fft, self.hop, window=window, center=False, return_complex=True)
        magnitudes = (spectrum.abs().square() + POWER_FLOOR).sqrt()
        sizes = (self.sample_rate, self.n_fft, self.bins, self.sample_rate / 2)
        filters = mel.slaney_filters_on(audio.device, *sizes)
        return torch.einsum("bft,fm->btm", magnitudes, filters).clamp(min=mel.FLOOR)[:, None]

    def filters(self) -> np.ndarray:
        return mel.slaney_filters(self.sample_rate, self.n_fft, self.bins, self.sample_rate / 2)

    def magnitudes(self, mel: np.ndarray) -> np.ndarray:
        return np.exp(mel)


@register("front_end", "mmaudio_mel_16k")
class MMAudioMel16k(MMAudioMel):
    """Log-mels of MMAudio at 16 kHz: 80 bins up to 8 kHz, a frame every 256 samples, decimal logarithm.

    Shapes:
        audio (B, S) -> (B, 1, S // 256, 80)
    """

    sample_rate, hop, bins, n_fft = 16_000, 256, 80, 1024

    def forward(self, audio: Tensor) -> Tensor:
        return self.magnitude_mel(audio).log10()

    def magnitudes(self, mel: np.ndarray) -> np.ndarray:
        return 10.0**mel


@register("front_end", "waveform")
class Waveform(nn.Module):
    """The waveform itself, for autoencoders of sound such as `autoencoder.oobleck`: a sample is a frame.

    Its vocoder is `vocoder.none`.

    Args:
        sample_rate: Sampling rate, in Hz.

    Shapes:
        audio (B, S) -> (B, 1, S, 1)

    Raises:
        UsageError: No sound can be read at this rate.
    """

    hop, bins = 1, 1

    def __init__(self, *, sample_rate: int = 44_100) -> None:
        super().__init__()
        check_bounds("front_end.waveform.sample_rate", sample_rate, *SAMPLE_RATES_HZ)
        self.sample_rate = sample_rate

    def forward(self, audio: Tensor) -> Tensor:
        return audio[:, None, :, None]
