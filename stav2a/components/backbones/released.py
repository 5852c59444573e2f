"""The ControlNets of the authors' release: the local features as a picture over time and frequency."""

from typing import Any

from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional

from stav2a.checkpoints import load_weights
from stav2a.components.backbones.controlnet import UNetControlNet
from stav2a.registry import RegistryError, register


@register("backbone", "unet_controlnet_released")
class UNetControlNetReleased(UNetControlNet):
    """The released ControlNet: local features repeated along frequency, then a 3x3 convolution from zero.

    Its keys are those of the released weights.

    Args:
        unet: The denoiser. Wired.
        local_dim: Width of the local features, D_l. Wired.
        freeze_unet: Train the ControlNet alone ("CN Frozen"); the paper trains both.
        checkpoint: Folder of the ControlNet's weights, from which it goes on; None copies the U-Net's.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K, D_c), mask (B, K), e_lv (B, T, D_l) -> (B, C, T, F)
    """

    def __init__(
        self, unet: Any, local_dim: int, *, freeze_unet: bool = False, checkpoint: str | None = None
    ) -> None:
        super().__init__(unet, local_dim, freeze_unet=freeze_unet)
        width = unet.config.block_out_channels[0]
        self.controlnet.controlnet_cond_embedding = SpreadEmbedding(local_dim, width)
        self.pretrained = checkpoint is not None
        parameter = "backbone.unet_controlnet_released.checkpoint"
        load_weights(self, checkpoint, parameter=parameter, without="unet.")

    def start_from_t2a(self) -> None:
        """Copy the trained U-Net into a ControlNet that came without weights; settle what trains."""
        if not self.pretrained:
            self.copy_unet()
        self.settle()

    def picture(self, e_lv: Tensor, bins: int) -> Tensor:
        return repeat(e_lv, "b t d -> b d t f", f=bins)


@register("backbone", "unet_controlnet_plain")
class UNetControlNetPlain(UNetControlNet):
    """The release's plain "CN": convolutions shrink the width of the features to the latent's frequencies.

    Goes with `local_head.nearest`, which passes the encoder's features on as they are.

    Args:
        unet: The denoiser. Wired.
        local_dim: Width of the local features, D_l. Wired.
        channels: Of the convolutions, each of which halves the width; the release's make 16 of 512.
        freeze_unet: Train the ControlNet alone ("CN Frozen"); the paper trains both.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K, D_c), mask (B, K), e_lv (B, T, D_l) -> (B, C, T, F)
    """

    def __init__(
        self,
        unet: Any,
        local_dim: int,
        *,
        channels: tuple[int, ...] = (8, 16, 32, 64, 128),
        freeze_unet: bool = False,
    ) -> None:
        super().__init__(unet, local_dim, freeze_unet=freeze_unet)
        width = unet.config.block_out_channels[0]
        self.channels = channels
        self.controlnet.controlnet_cond_embedding = PlainEmbedding(channels, width)

    def picture(self, e_lv: Tensor, bins: int) -> Tensor:
        left = -(-e_lv.shape[2] // 2 ** len(self.channels))
        if left != bins:
            raise RegistryError(
                f"backbone.unet_controlnet_plain.channels = {self.channels}: {len(self.channels)} halvings "
                f"make {left} of the {e_lv.shape[2]} local features, but the latent has {bins} frequencies. "
                "Give as many channels as halvings are needed, and local features of a fitting width."
            )
        return rearrange(e_lv, "b t d -> b 1 t d")


class SpreadEmbedding(nn.Module):
    """e_lv as a picture (B, D_l, T, F) -> (B, width, T, F); nothing at first, as in stock ControlNet."""

    def __init__(self, local_dim: int, width: int) -> None:
        super().__init__()
        self.conv_out = _from_zero(nn.Conv2d(local_dim, width, kernel_size=3, padding=1))

    def forward(self, picture: Tensor) -> Tensor:
        return self.conv_out(picture)


class PlainEmbedding(nn.Module):
    """e_v as a picture (B, 1, T, D_v) -> (B, width, T, F), with stock ControlNet's layers and activations.

    Strides are along the features alone: the picture is on the latent's time axis already.
    """

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.conv_in = _halving(1, channels[0])
        self.blocks = nn.ModuleList()
        for before, after in zip(channels, channels[1:], strict=False):
            self.blocks.extend([nn.Conv2d(before, before, 3, padding=1), _halving(before, after)])
        self.conv_out = _from_zero(nn.Conv2d(channels[-1], width, kernel_size=3, padding=1))

    def forward(self, picture: Tensor) -> Tensor:
        x = functional.silu(self.conv_in(picture))
        for block in self.blocks:
            x = functional.silu(block(x))
        return self.conv_out(x)


def _halving(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel_size=3, stride=(1, 2), padding=1)


def _from_zero(layer: nn.Conv2d) -> nn.Conv2d:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
