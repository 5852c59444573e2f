"""Backbones: what predicts the noise, from the noisy latent and all conditions."""

from typing import Any

from einops import rearrange, repeat
from torch import Tensor, nn

from stav2a.registry import register


@register("backbone", "unet")
class UNetBackbone(nn.Module):
    """The U-Net with cross attention alone: text to audio. The local features are not looked at.

    Args:
        unet: The denoiser. Wired.
        local_dim: Width of the local features, D_l. Wired.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K, D_c), mask (B, K), e_lv (B, T, D_l) -> (B, C, T, F)
    """

    def __init__(self, unet: Any, local_dim: int) -> None:
        super().__init__()
        self.unet = unet

    def start_from_t2a(self) -> None:
        """Nothing to copy: the U-Net is the text-to-audio model."""

    def forward(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor:
        return self.unet(z_t, t, c, encoder_attention_mask=mask, return_dict=False)[0]


@register("backbone", "unet_controlnet")
class UNetControlNet(nn.Module):
    """The U-Net with a ControlNet that reads z_t plus the local video features (sec. II-C2).

    Args:
        unet: The denoiser. Wired.
        local_dim: Width of the local features, D_l. Wired.
        freeze_unet: Train the ControlNet alone ("CN Frozen"); the paper trains both.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K, D_c), mask (B, K), e_lv (B, T, D_l) -> (B, C, T, F)
    """

    def __init__(self, unet: Any, local_dim: int, *, freeze_unet: bool = False) -> None:
        super().__init__()
        from diffusers import ControlNetModel

        self.unet, self.freeze_unet = unet, freeze_unet
        self.controlnet = ControlNetModel.from_unet(unet)
        width = unet.config.block_out_channels[0]
        self.controlnet.controlnet_cond_embedding = LocalEmbedding(local_dim, width)

    def start_from_t2a(self) -> None:
        """Copy the trained U-Net into the ControlNet and settle what trains from here on (sec. II-C1)."""
        for name in ("conv_in", "time_embedding", "down_blocks", "mid_block"):
            part = getattr(self.controlnet, name)
            part.load_state_dict(getattr(self.unet, name).state_dict())
        self.requires_grad_(True)
        self.unet.requires_grad_(not self.freeze_unet)

    def forward(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor:
        down, mid = self.controlnet(z_t, t, c, controlnet_cond=e_lv, return_dict=False)
        return self.unet(
            z_t,
            t,
            c,
            encoder_attention_mask=mask,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]


class LocalEmbedding(nn.Module):
    """e_lv (B, T, D_l) -> (B, width, T, 1), added to ControlNet's conv_in at every frequency.

    Stock ControlNet embeds a picture eight times the latent's size; ours is already on its time axis.
    """

    def __init__(self, local_dim: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(local_dim, width, kernel_size=3, padding=1)

    def forward(self, e_lv: Tensor) -> Tensor:
        x = self.embed(rearrange(e_lv, "b t d -> b d t"))
        return repeat(x, "b d t -> b d t 1")
