"""Vocoders from log-mel spectrogram to waveform (sec. II-A)."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stav2a.data.front_ends import AudioLDMMel, MelFrontEnd
from stav2a.registry import register
from stav2a.utils.checkpoints import load_weights
from stav2a.utils.errors import UsageError


@register("vocoder", "griffin_lim")
class GriffinLim(nn.Module):
    """Griffin-Lim phase reconstruction of librosa, which has no weights.

    Args:
        front_end: Front end of the spectrograms; AudioLDM's where none is given. Wired.
        iterations: Number of Griffin-Lim iterations; 32 is librosa's default.

    Shapes:
        mel (B, 1, Tm, M), as the front end gives it -> waveform (B, Tm * hop), at the front end's rate

    Raises:
        UsageError: The front end gives no spectrograms.
    """

    def __init__(self, front_end: Any = None, *, iterations: int = 32) -> None:
        super().__init__()
        self.iterations = iterations
        self.front_end = AudioLDMMel() if front_end is None else front_end
        if not isinstance(self.front_end, MelFrontEnd):
            raise UsageError(
                f"vocoder.griffin_lim needs mel spectrograms; {type(front_end).__name__} gives none.",
                advice="Bind run.vocoder = @vocoder.none for a front end of waveforms.",
            )

    def forward(self, mel: Tensor) -> Tensor:
        import librosa

        n_fft, hop = self.front_end.n_fft, self.front_end.hop
        basis = self.front_end.filters().astype(np.float64)  # (bins, M)
        magnitudes = self.front_end.magnitudes(mel[:, 0].detach().cpu().double().numpy())  # (B, Tm, M)
        linear = np.maximum(magnitudes @ np.linalg.pinv(basis), 0)  # (B, Tm, bins)
        sizes: Any = {"n_iter": self.iterations, "hop_length": hop, "n_fft": n_fft}
        wave = [  # the initial phase is drawn from a fixed seed
            librosa.griffinlim(each, **sizes, center=False, random_state=0)
            for each in linear.transpose(0, 2, 1).astype(np.float32)
        ]
        edge = (n_fft - hop) // 2
        samples = mel.shape[2] * hop
        return torch.from_numpy(np.stack(wave)[:, edge : edge + samples]).to(mel.device)


@register("vocoder", "hifigan")
class HiFiGAN(nn.Module):
    """HiFi-GAN of AudioLDM, as implemented in transformers (HiFi-GAN [20]).

    Args:
        checkpoint: Folder of weights; None leaves random weights, to be loaded with the whole model.
        upsample_initial_channel: Number of channels after the first convolution.

    Shapes:
        mel (B, 1, Tm, 64), natural log of magnitudes -> waveform (B, 160 Tm) at 16 kHz, in [-1, 1]

    Raises:
        CheckpointError: The folder holds no weights, or weights of another vocoder.
    """

    sample_rate, hop, bins = AudioLDMMel.sample_rate, AudioLDMMel.hop, AudioLDMMel.bins

    def __init__(self, *, checkpoint: str | None = None, upsample_initial_channel: int = 1024) -> None:
        super().__init__()
        from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

        config = SpeechT5HifiGanConfig(
            model_in_dim=self.bins,
            sampling_rate=self.sample_rate,
            upsample_initial_channel=upsample_initial_channel,
            upsample_rates=[5, 4, 2, 2, 2],
            upsample_kernel_sizes=[16, 16, 8, 4, 4],
            resblock_kernel_sizes=[3, 7, 11],
            resblock_dilation_sizes=[[1, 3, 5]] * 3,
            normalize_before=False,
        )
        self.generator = SpeechT5HifiGan(config)
        load_weights(self.generator, checkpoint, parameter="vocoder.hifigan.checkpoint")
        self.requires_grad_(False)

    def forward(self, mel: Tensor) -> Tensor:
        return self.generator(mel[:, 0])[:, : mel.shape[2] * self.hop]


@register("vocoder", "bigvgan")
class BigVGAN(nn.Module):
    """BigVGAN-v2 as MMAudio uses it, `MMAudioVocoder` of diffusers (arXiv 2206.04658).

    The defaults are those of 44.1 kHz, 128 bins and a hop of 512, the product of the upsampling rates.

    Args:
        bins: Mel bins, M.
        upsample_initial_channel: Number of channels after the first convolution, halved at each resolution.
        upsample_rates: Upsampling of each resolution.
        upsample_kernel_sizes: Length of the kernel of each upsampling.
        sample_rate: Sampling rate of its sound, in Hz.
        checkpoint: Folder of weights; None leaves random weights, to be loaded with the whole model.

    Shapes:
        mel (B, 1, Tm, M), as `front_end.mmaudio_mel` gives it -> waveform (B, Tm * hop), in [-1, 1]

    Raises:
        CheckpointError: The folder holds no weights, or weights of another vocoder.
    """

    def __init__(
        self,
        *,
        bins: int = 128,
        upsample_initial_channel: int = 1536,
        upsample_rates: tuple[int, ...] = (8, 4, 2, 2, 2, 2),
        upsample_kernel_sizes: tuple[int, ...] = (16, 8, 4, 4, 4, 4),
        sample_rate: int = 44_100,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        from diffusers import MMAudioVocoder

        self.bins, self.sample_rate, self.hop = bins, sample_rate, math.prod(upsample_rates)
        self.generator: Any = MMAudioVocoder(
            num_mels=bins,
            upsample_initial_channel=upsample_initial_channel,
            upsample_rates=upsample_rates,
            upsample_kernel_sizes=upsample_kernel_sizes,
        )
        load_weights(self.generator, checkpoint, parameter="vocoder.bigvgan.checkpoint")
        self.requires_grad_(False)

    def forward(self, mel: Tensor) -> Tensor:
        return self.generator(mel[:, 0].transpose(1, 2)).sample[:, 0]


@register("vocoder", "none")
class NoVocoder(nn.Module):
    """The waveform that the autoencoder gives, for a front end of waveforms.

    Shapes:
        mel (B, 1, S, 1) -> waveform (B, S), in [-1, 1]
    """

    hop, bins = 1, 1

    def forward(self, mel: Tensor) -> Tensor:
        return mel[:, 0, :, 0].clamp(-1, 1)
