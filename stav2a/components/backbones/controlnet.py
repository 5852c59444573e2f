"""ControlNet on the U-Net: the local video features enter a trainable copy of its first half."""

from collections.abc import Iterable, Sequence
from typing import Any

from einops import rearrange, repeat
from torch import Tensor, nn

from stav2a.registry import RegistryError, register


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
        self.copy_unet()
        self.settle()

    def copy_unet(self) -> None:
        """The ControlNet begins as the U-Net's first half."""
        for name in ("conv_in", "time_embedding", "down_blocks", "mid_block"):
            part = getattr(self.controlnet, name)
            part.load_state_dict(getattr(self.unet, name).state_dict())

    def settle(self) -> None:
        """What trains from here on."""
        self.requires_grad_(True)
        self.unet.requires_grad_(not self.freeze_unet)

    def forward(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor:
        return self.controlled(z_t, t, c, mask, *self.control(z_t, t, c, mask, e_lv))

    def controlled(
        self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, down: Sequence[Tensor], mid: Tensor
    ) -> Tensor:
        """The U-Net's prediction, with what `control` gave."""
        return self.unet(
            z_t,
            t,
            c,
            encoder_attention_mask=mask,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]

    def control(
        self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor
    ) -> tuple[Sequence[Tensor], Tensor]:
        """What is added to the U-Net's skips and to its middle. Stock ControlNet takes no mask."""
        picture = self.picture(e_lv, z_t.shape[3])
        return self.controlnet(z_t, t, c, controlnet_cond=picture, return_dict=False)

    def picture(self, e_lv: Tensor, bins: int) -> Tensor:
        """What the ControlNet embeds and adds to its first layer: the same at every step."""
        return e_lv


@register("backbone", "unet_controlnet_masked")
class UNetControlNetMasked(UNetControlNet):
    """The same, where the ControlNet looks past the padding of the text too.

    Args:
        unet: The denoiser. Wired.
        local_dim: Width of the local features, D_l. Wired.
        freeze_unet: Train the ControlNet alone ("CN Frozen"); the paper trains both.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K, D_c), mask (B, K), e_lv (B, T, D_l) -> (B, C, T, F)
    """

    def control(
        self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor
    ) -> tuple[Sequence[Tensor], Tensor]:
        net = self.controlnet
        x = net.conv_in(z_t) + net.controlnet_cond_embedding(e_lv)
        return residuals(net, x, t, c, mask, entrances=[nn.Identity()] * len(net.down_blocks))


class LocalEmbedding(nn.Module):
    """e_lv (B, T, D_l) -> (B, width, T, 1), added to ControlNet's conv_in at every frequency.

    Stock ControlNet embeds a picture eight times the latent's size; ours is already on its time axis.

    Raises:
        RegistryError: There are no local features.
    """

    def __init__(self, local_dim: int, width: int) -> None:
        super().__init__()
        if not local_dim:
            raise RegistryError(
                "A ControlNet needs local features, and run.local_head = @local_head.none gives none. "
                "Bind run.backbone = @backbone.unet, or another local head."
            )
        self.embed = nn.Conv1d(local_dim, width, kernel_size=3, padding=1)

    def forward(self, e_lv: Tensor) -> Tensor:
        x = self.embed(rearrange(e_lv, "b t d -> b d t"))
        return repeat(x, "b d t -> b d t 1")


def residuals(
    controlnet: Any, x: Tensor, t: Tensor, c: Tensor, mask: Tensor, *, entrances: Iterable[Any]
) -> tuple[Sequence[Tensor], Tensor]:
    """A ControlNet's pass with a mask over the tokens, which diffusers' own forward does not take.

    Args:
        controlnet: A diffusers `ControlNetModel`.
        x: What its first block gets (B, width, T, F).
        t: Timesteps (B,).
        c: Tokens (B, K, D_c).
        mask: Which of them count (B, K).
        entrances: What x goes through before each resolution.

    Returns:
        What is added to the U-Net's skips, and to its middle.
    """
    temb = controlnet.time_embedding(controlnet.time_proj(t).to(x.dtype))
    tokens = {"encoder_hidden_states": c, "encoder_attention_mask": mask}
    states = [x]
    for enter, block in zip(entrances, controlnet.down_blocks, strict=True):
        x, made = block(enter(x), temb, **tokens)
        states.extend(made)
    x = controlnet.mid_block(x, temb, **tokens)
    zeros = zip(controlnet.controlnet_down_blocks, states, strict=True)
    return [zero(state) for zero, state in zeros], controlnet.controlnet_mid_block(x)
