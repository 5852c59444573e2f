"""Vocoders from log-mel spectrogram to waveform (sec. II-A)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stav2a.data import mel as front_end
from stav2a.registry import register
from stav2a.utils.checkpoints import load_weights


@register("vocoder", "griffin_lim")
class GriffinLim(nn.Module):
    """Griffin-Lim phase reconstruction of librosa, which has no weights.

    Args:
        iterations: Number of Griffin-Lim iterations; 32 is librosa's default.

    Shapes:
        mel (B, 1, Tm, M), natural log of magnitudes -> waveform (B, Tm * hop), at the front end's rate
    """

    def __init__(self, *, iterations: int = 32) -> None:
        super().__init__()
        self.iterations = iterations

    def forward(self, mel: Tensor) -> Tensor:
        import librosa

        basis = front_end.mel_filters().astype(np.float64)  # (bins, M)
        magnitudes = np.exp(mel[:, 0].detach().cpu().double().numpy())  # (B, Tm, M)
        linear = np.maximum(magnitudes @ np.linalg.pinv(basis), 0)  # (B, Tm, bins)
        sizes: Any = {"n_iter": self.iterations, "hop_length": front_end.HOP, "n_fft": front_end.N_FFT}
        wave = [  # the initial phase is drawn from a fixed seed
            librosa.griffinlim(each, **sizes, center=False, random_state=0)
            for each in linear.transpose(0, 2, 1).astype(np.float32)
        ]
        edge = (front_end.N_FFT - front_end.HOP) // 2
        samples = mel.shape[2] * front_end.HOP
        return torch.from_numpy(np.stack(wave)[:, edge : edge + samples]).to(mel.device)


@register("vocoder", "hifigan")
class HiFiGAN(nn.Module):
    """HiFi-GAN of AudioLDM, as implemented in transformers (HiFi-GAN [20]).

    Args:
        checkpoint: Folder of weights; None leaves random weights, to be loaded with the whole model.
        upsample_initial_channel: Number of channels after the first convolution.

    Shapes:
        mel (B, 1, Tm, M), natural log of magnitudes -> waveform (B, Tm * hop), in [-1, 1]

    Raises:
        CheckpointError: The folder holds no weights, or weights of another vocoder.
    """

    def __init__(self, *, checkpoint: str | None = None, upsample_initial_channel: int = 1024) -> None:
        super().__init__()
        from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

        config = SpeechT5HifiGanConfig(
            model_in_dim=front_end.N_MELS,
            sampling_rate=front_end.SAMPLE_RATE,
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
        return self.generator(mel[:, 0])[:, : mel.shape[2] * front_end.HOP]
