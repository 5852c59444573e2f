"""Text to audio: the U-Net by itself."""

from typing import Any

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
