"""Autoencoders between what the front end gives, a log-mel or a waveform, and latents (sec. II-A)."""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.registry import register
from stav2a.utils.checkpoints import load_weights
from stav2a.utils.errors import UsageError


class WhitenedVAE(nn.Module, ABC):
    """Variational autoencoder whose latents are whitened per channel, as `stage.autoencoder` trains it.

    Args:
        latent_channels: Channels of the latent, C.

    Attributes:
        mel_std: Standard deviation of its input, by which the stage divides the error.
    """

    shift: Tensor
    scale: Tensor
    mel_std: float = 1.0

    def __init__(self, latent_channels: int) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.register_buffer("shift", torch.zeros(latent_channels, 1, 1))
        self.register_buffer("scale", torch.ones(latent_channels, 1, 1))

    @abstractmethod
    def posterior(self, mel: Tensor) -> Any:
        """Gaussian over latents (B, C, T, F), before whitening."""

    @abstractmethod
    def decode_raw(self, z: Tensor) -> Tensor:
        """Unwhitened latent (B, C, T, F) -> (B, 1, Tm, M), for the reconstruction loss."""

    def floored(self, mel: Tensor) -> Tensor:
        """Target of the reconstruction."""
        return mel

    def encode(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the whitened posterior, each (B, C, T, F)."""
        posterior = self.posterior(mel)
        return (posterior.mean - self.shift) / self.scale, posterior.std / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """Whitened latent (B, C, T, F) -> (B, 1, Tm, M)."""
        return self.decode_raw(z * self.scale + self.shift)

    @torch.no_grad()
    def whiten(self, mel: Tensor) -> None:
        """Set shift and scale from the latents of (B, 1, Tm, M)."""
        posterior = self.posterior(mel)
        across = (0, 2, 3)
        variance = posterior.mean.var(dim=across) + posterior.var.mean(dim=across)  # of samples, not of means
        self.shift.copy_(posterior.mean.mean(dim=across).view(-1, 1, 1))
        self.scale.copy_(variance.sqrt().view(-1, 1, 1))


@register("autoencoder", "kl")
class MelVAE(WhitenedVAE):
    """`AutoencoderKL` of diffusers on log-mels, with latents whitened per channel (sec. II-A; VAE [19]).

    With `patch` above 1 the spectrogram is first folded into channels (space to depth), which makes a
    small autoencoder several times cheaper.

    Args:
        block_out_channels: Channels at each resolution; each further one halves time and frequency.
        latent_channels: Channels of the latent, C.
        layers_per_block: Residual blocks at each resolution.
        patch: Side of the squares folded into channels, in frames and bins.
        mel_mean: Mean subtracted from log-mels before encoding.
        mel_std: Standard deviation that log-mels are divided by before encoding.
        mel_floor: Value to which lower log-mels are raised, so that a small latent need not carry the
            noise of the recording. The default is the floor of the front end.
        checkpoint: Folder of frozen weights, whitening included; None trains from scratch.

    Shapes:
        mel (B, 1, Tm, M) <-> z (B, C, Tm / downsampling, M / downsampling)

    Example:
        >>> vae = MelVAE(block_out_channels=(8, 16), latent_channels=4, layers_per_block=1, patch=2)
        >>> vae.encode(torch.zeros(1, 1, 32, 16))[0].shape
        torch.Size([1, 4, 8, 4])
    """

    def __init__(
        self,
        *,
        block_out_channels: tuple[int, ...] = (128, 256, 512),
        latent_channels: int = 8,
        layers_per_block: int = 2,
        patch: int = 1,
        mel_mean: float = 0.0,
        mel_std: float = 1.0,
        mel_floor: float = -11.6,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__(latent_channels)
        from diffusers import AutoencoderKL

        levels = len(block_out_channels)
        self.vae: Any = AutoencoderKL(
            in_channels=patch**2,
            out_channels=patch**2,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=block_out_channels,
            latent_channels=latent_channels,
            layers_per_block=layers_per_block,
            norm_num_groups=min(32, block_out_channels[0] // 2),
        )
        self.patch, self.downsampling = patch, patch * 2 ** (levels - 1)
        self.mel_mean, self.mel_std, self.mel_floor = mel_mean, mel_std, mel_floor
        load_weights(self, checkpoint, parameter="autoencoder.kl.checkpoint")
        self.requires_grad_(checkpoint is None)

    def posterior(self, mel: Tensor) -> Any:
        """Gaussian over latents, before whitening."""
        x = (self.floored(mel) - self.mel_mean) / self.mel_std
        return self.vae.encode(functional.pixel_unshuffle(x, self.patch)).latent_dist

    def floored(self, mel: Tensor) -> Tensor:
        """Log-mel clamped to the floor: the target of the reconstruction."""
        return mel.clamp(min=self.mel_floor)

    def decode_raw(self, z: Tensor) -> Tensor:
        """Unwhitened latent -> log-mel, for the reconstruction loss."""
        x = functional.pixel_shuffle(self.vae.decode(z).sample, self.patch)
        return x * self.mel_std + self.mel_mean


@register("autoencoder", "mmaudio")
class MMAudioMelVAE(WhitenedVAE):
    """Autoencoder of MMAudio, that of `MMAudioVAE` of diffusers: convolutions over time, bins as channels.

    The defaults are those of 44.1 kHz; the one of 16 kHz has 80 bins, 20 latent channels and 384 hidden ones
    (arXiv 2412.15322). Its latents have half the frames and no bins: F = 1.

    Args:
        bins: Mel bins, M.
        latent_channels: Channels of the latent, C.
        hidden_channels: Width of the finest level; the others have 2 and 4 times as much.
        mel_mean: Mean subtracted from log-mels before encoding, where no weights are loaded.
        mel_std: Standard deviation that they are divided by; a checkpoint has both, of each bin.
        checkpoint: Folder of frozen weights, whitening included; None trains from scratch.

    Shapes:
        mel (B, 1, Tm, M) <-> z (B, C, Tm / 2, 1)
    """

    downsampling, latent_bins = 2, 1

    def __init__(
        self,
        *,
        bins: int = 128,
        latent_channels: int = 40,
        hidden_channels: int = 512,
        mel_mean: float = 0.0,
        mel_std: float = 1.0,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__(latent_channels)
        # MMAudioVAE without its front end, which is a slot here
        from diffusers.models.autoencoders.autoencoder_mmaudio import MMAudioAutoencoder

        self.bins, self.mel_std = bins, mel_std
        self.vae: Any = MMAudioAutoencoder(bins, latent_channels, hidden_channels, (1, 2, 4), 2)
        self.vae.data_mean.fill_(mel_mean)
        self.vae.data_std.fill_(mel_std)
        load_weights(self, checkpoint, parameter="autoencoder.mmaudio.checkpoint")
        self.requires_grad_(checkpoint is None)

    def posterior(self, mel: Tensor) -> Any:
        return _gaussian(self.vae.encode(mel[:, 0].transpose(1, 2)))

    def decode_raw(self, z: Tensor) -> Tensor:
        return self.vae.decode(z[..., 0]).transpose(1, 2)[:, None]


@register("autoencoder", "oobleck")
class Oobleck(WhitenedVAE):
    """Autoencoder of waveforms of Stable Audio Open, `AutoencoderOobleck` of diffusers (arXiv 2407.14358).

    Mono sound is copied to all channels, and their mean is decoded.

    Args:
        hidden_size: Width at the waveform; the latent has half as many channels.
        downsampling_ratios: Downsampling of each level, even numbers.
        channel_multiples: Width of each level, as a multiple of `hidden_size`.
        audio_channels: Channels of the waveform that the weights are made for.
        sample_rate: Sampling rate that the weights are made for, in Hz.
        checkpoint: Folder of frozen weights, whitening included; None trains from scratch.

    Shapes:
        mel (B, 1, S, 1), a waveform <-> z (B, hidden_size / 2, S / downsampling, 1)

    Raises:
        UsageError: A ratio is odd: its level would lose a sample.
    """

    bins, latent_bins = 1, 1

    def __init__(
        self,
        *,
        hidden_size: int = 128,
        downsampling_ratios: tuple[int, ...] = (2, 4, 4, 8, 8),
        channel_multiples: tuple[int, ...] = (1, 2, 4, 8, 16),
        audio_channels: int = 2,
        sample_rate: int = 44_100,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__(hidden_size // 2)
        from diffusers import AutoencoderOobleck

        if odd := [ratio for ratio in downsampling_ratios if ratio % 2]:
            raise UsageError(
                f"autoencoder.oobleck.downsampling_ratios = {downsampling_ratios}: {odd[0]} is odd.",
                advice="Give even numbers.",
            )
        self.audio_channels, self.sample_rate = audio_channels, sample_rate
        self.downsampling = math.prod(downsampling_ratios)
        self.vae: Any = AutoencoderOobleck(
            encoder_hidden_size=hidden_size,
            downsampling_ratios=list(downsampling_ratios),
            channel_multiples=list(channel_multiples),
            decoder_channels=hidden_size,
            decoder_input_channels=hidden_size // 2,
            audio_channels=audio_channels,
            sampling_rate=sample_rate,
        )
        load_weights(self, checkpoint, parameter="autoencoder.oobleck.checkpoint")
        self.requires_grad_(checkpoint is None)

    def posterior(self, mel: Tensor) -> Any:
        latents = self.vae.encode(mel[..., 0].expand(-1, self.audio_channels, -1)).latent_dist
        return _gaussian(torch.cat([latents.mean, latents.logvar], dim=1))

    def decode_raw(self, z: Tensor) -> Tensor:
        return self.vae.decode(z[..., 0]).sample.mean(dim=1, keepdim=True)[..., None]


def _gaussian(moments: Tensor) -> Any:
    """Gaussian over latents (B, C, T, 1), by means and logarithms of variances (B, 2C, T)."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    return DiagonalGaussianDistribution(moments[..., None])
