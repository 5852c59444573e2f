"""Autoencoders between log-mel spectrogram and latent (sec. II-A)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.registry import register
from stav2a.utils.checkpoints import load_weights


@register("autoencoder", "kl")
class MelVAE(nn.Module):
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

    shift: Tensor
    scale: Tensor

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
        super().__init__()
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
        self.latent_channels, self.patch = latent_channels, patch
        self.downsampling = patch * 2 ** (levels - 1)
        self.mel_mean, self.mel_std, self.mel_floor = mel_mean, mel_std, mel_floor
        self.register_buffer("shift", torch.zeros(latent_channels, 1, 1))
        self.register_buffer("scale", torch.ones(latent_channels, 1, 1))
        load_weights(self, checkpoint, parameter="autoencoder.kl.checkpoint")
        self.requires_grad_(checkpoint is None)

    def encode(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the whitened posterior, each (B, C, T, F)."""
        posterior = self.posterior(mel)
        return (posterior.mean - self.shift) / self.scale, posterior.std / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """Whitened latent (B, C, T, F) -> log-mel (B, 1, Tm, M)."""
        return self.decode_raw(z * self.scale + self.shift)

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

    @torch.no_grad()
    def whiten(self, mel: Tensor) -> None:
        """Set shift and scale from the latents of log-mels (B, 1, Tm, M)."""
        posterior = self.posterior(mel)
        across = (0, 2, 3)
        variance = posterior.mean.var(dim=across) + posterior.var.mean(dim=across)  # of samples, not of means
        self.shift.copy_(posterior.mean.mean(dim=across).view(-1, 1, 1))
        self.scale.copy_(variance.sqrt().view(-1, 1, 1))
