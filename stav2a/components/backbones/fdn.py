"""Uni-ControlNet's way in for local features: they modulate every resolution of the ControlNet."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from stav2a.components.backbones.controlnet import UNetControlNet, residuals
from stav2a.registry import register


@register("backbone", "unet_controlnet_fdn")
class UNetControlNetFDN(UNetControlNet):
    """A ControlNet whose every resolution is modulated by the local video features (Uni-ControlNet's FDN).

    The ControlNet looks past the padding of the text.

    Args:
        unet: The denoiser. Wired.
        local_dim: Width of the local features, D_l. Wired.
        freeze_unet: Train the ControlNet alone ("CN Frozen"); the paper trains both.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K, D_c), mask (B, K), e_lv (B, T, D_l) -> (B, C, T, F)
    """

    def __init__(self, unet: Any, local_dim: int, *, freeze_unet: bool = False) -> None:
        super().__init__(unet, local_dim, freeze_unet=freeze_unet)
        self.controlnet.controlnet_cond_embedding = None
        widths = unet.config.block_out_channels
        entering = (widths[0], *widths[:-1])  # each resolution begins with the width of the one before
        self.fdn = nn.ModuleList(FDN(local_dim, width, unet.config.norm_num_groups) for width in entering)

    def control(
        self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor
    ) -> tuple[Sequence[Tensor], Tensor]:
        entrances = [partial(fdn, e_lv=e_lv) for fdn in self.fdn]
        return residuals(self.controlnet, self.controlnet.conv_in(z_t), t, c, mask, entrances=entrances)


class FDN(nn.Module):
    """Feature denormalisation: x + norm(x) * gamma(e_lv) + beta(e_lv), the norm without parameters.

    Uni-ControlNet's is norm(x) * (1 + gamma) + beta. Ours is added to x and begins at zero, so that the
    copy begins as the U-Net it was copied from.

    Args:
        local_dim: Width of the local features, D_l.
        width: Channels of x.
        groups: Of the normalisation.

    Shapes:
        x (B, width, T', F'), e_lv (B, T, D_l) -> (B, width, T', F')
    """

    def __init__(self, local_dim: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, affine=False)
        self.gamma = nn.Conv1d(local_dim, width, kernel_size=3, padding=1)
        self.beta = nn.Conv1d(local_dim, width, kernel_size=3, padding=1)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, e_lv: Tensor) -> Tensor:
        local = functional.adaptive_avg_pool1d(rearrange(e_lv, "b t d -> b d t"), x.shape[2])
        gamma, beta = (part(local).unsqueeze(-1) for part in (self.gamma, self.beta))
        return x + self.norm(x) * gamma + beta
