"""U-Nets: configurations of the text-to-audio denoiser of diffusers."""

from typing import Any

from stav2a.registry import register
from stav2a.utils.checkpoints import load_weights


@register("unet", "stable_diffusion")
def stable_diffusion(
    latent_channels: int,
    cond_dim: int,
    *,
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
    attention_levels: tuple[bool, ...] = (True, True, True, False),
    attention_head_dim: tuple[int, ...] = (5, 10, 20, 20),
    layers_per_block: int = 2,
    use_linear_projection: bool = True,
    norm_num_groups: int = 32,
    checkpoint: str | None = None,
) -> Any:
    """U-Net of Stable Diffusion on latents of any width (sec. III-A); the defaults are Tango's.

    Args:
        latent_channels: Channels of the latent, C. Wired.
        cond_dim: Width of the cross-attention tokens, D_c. Wired.
        block_out_channels: Channels at each resolution.
        attention_levels: Presence of cross attention at each resolution.
        attention_head_dim: Number of heads at each resolution (diffusers keeps the old, misleading name).
        layers_per_block: Residual blocks at each resolution.
        use_linear_projection: Linear layers in place of 1x1 convolutions around attention.
        norm_num_groups: Number of groups in every group normalisation.
        checkpoint: Folder of text-to-audio weights to start from; None trains from scratch.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K, D_c) -> prediction (B, C, T, F)
    """
    from diffusers import UNet2DConditionModel

    down = tuple("CrossAttnDownBlock2D" if on else "DownBlock2D" for on in attention_levels)
    up = tuple("CrossAttnUpBlock2D" if on else "UpBlock2D" for on in reversed(attention_levels))
    unet = UNet2DConditionModel(
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=block_out_channels,
        layers_per_block=layers_per_block,
        attention_head_dim=attention_head_dim,
        cross_attention_dim=cond_dim,
        use_linear_projection=use_linear_projection,
        norm_num_groups=norm_num_groups,
    )
    load_weights(unet, checkpoint, parameter="unet.stable_diffusion.checkpoint")
    return unet
