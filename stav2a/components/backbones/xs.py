"""ControlNet-XS: a slim encoder that talks with the U-Net's own at every layer."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from stav2a.components.backbones.controlnet import LocalEmbedding
from stav2a.registry import RegistryError, register

HEAD_WIDTH = 64


@register("backbone", "unet_controlnet_xs")
class UNetControlNetXS(nn.Module):
    """The U-Net with ControlNet-XS, which reads z_t plus the local video features (Zavadski et al. 2023).

    The layers are diffusers' `ControlNetXSAdapter`. Its model class would copy the U-Net and take no
    mask over the tokens, so the two are joined here.

    Args:
        unet: The denoiser, with two layers a resolution. Wired.
        local_dim: Width of the local features, D_l. Wired.
        size_ratio: Width of the control's layers over the U-Net's.
        freeze_unet: Train the control alone, as ControlNet-XS does.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K, D_c), mask (B, K), e_lv (B, T, D_l) -> (B, C, T, F)

    Raises:
        RegistryError: The U-Net has another number of layers a resolution.
    """

    def __init__(
        self, unet: Any, local_dim: int, *, size_ratio: float = 0.125, freeze_unet: bool = True
    ) -> None:
        super().__init__()
        from diffusers import ControlNetXSAdapter

        if unet.config.layers_per_block != 2:
            raise RegistryError(
                f"backbone.unet_controlnet_xs was given a U-Net of {unet.config.layers_per_block} layers a "
                "resolution; diffusers has it for 2 alone. Bind unet.stable_diffusion.layers_per_block = 2."
            )
        widths = [max(1, int(width * size_ratio)) for width in unet.config.block_out_channels]
        heads = [max(1, width // HEAD_WIDTH) for width in widths]
        self.unet, self.freeze_unet = unet, freeze_unet
        self.adapter = ControlNetXSAdapter.from_unet(
            unet, block_out_channels=widths, num_attention_heads=heads
        )
        # The adapter's own are for pictures of latents with four channels.
        self.adapter.conv_in = nn.Conv2d(unet.config.in_channels, widths[0], kernel_size=3, padding=1)
        self.adapter.controlnet_cond_embedding = LocalEmbedding(local_dim, widths[0])

    def start_from_t2a(self) -> None:
        """Settle what trains from here on; there is nothing to copy."""
        self.requires_grad_(True)
        self.unet.requires_grad_(not self.freeze_unet)

    def forward(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor:
        unet, control = self.unet, self.adapter
        temb = unet.time_embedding(unet.time_proj(t).to(z_t.dtype))
        tokens = {"encoder_hidden_states": c, "encoder_attention_mask": mask}
        y = control.conv_in(z_t) + control.controlnet_cond_embedding(e_lv)
        x = unet.conv_in(z_t) + control.control_to_base_for_conv_in(y)
        skips = [(x, y)]
        for ours, theirs in zip(unet.down_blocks, control.down_blocks, strict=True):
            skips.extend(_down(ours, theirs, *skips[-1], temb, tokens))
        x = _middle(unet.mid_block, control.mid_block, *skips[-1], temb, tokens)
        for ours, theirs in zip(unet.up_blocks, control.up_connections, strict=True):
            x = _up(ours, theirs, x, skips, temb, tokens)
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))


Pair = tuple[Tensor, Tensor]


def _down(ours: Any, theirs: Any, x: Tensor, y: Tensor, temb: Tensor, tokens: Any) -> Iterator[Pair]:
    """One resolution of the U-Net (x) and of the control (y): the state of both after each layer."""
    to_control, to_unet = list(theirs.base_to_ctrl), list(theirs.ctrl_to_base)
    layers = zip(_layers(ours), _layers(theirs), to_control, to_unet, strict=False)
    for (resnet, attention), (their_resnet, their_attention), read, write in layers:
        y = torch.cat([y, read(x)], dim=1)
        x = _attend(attention, resnet(x, temb), tokens)
        y = _attend(their_attention, their_resnet(y, temb), tokens)
        x = x + write(y)
        yield x, y
    if ours.downsamplers is not None:
        y = theirs.downsamplers(torch.cat([y, to_control[-1](x)], dim=1))
        x = ours.downsamplers[0](x) + to_unet[-1](y)
        yield x, y


def _middle(ours: Any, theirs: Any, x: Tensor, y: Tensor, temb: Tensor, tokens: Any) -> Tensor:
    y = torch.cat([y, theirs.base_to_ctrl(x)], dim=1)
    return ours(x, temb, **tokens) + theirs.ctrl_to_base(theirs.midblock(y, temb, **tokens))


def _up(ours: Any, theirs: Any, x: Tensor, skips: list[Pair], temb: Tensor, tokens: Any) -> Tensor:
    """One resolution on the way up, which takes its skips off the list's end."""
    for (resnet, attention), write in zip(_layers(ours), theirs.ctrl_to_base, strict=True):
        skip, y = skips.pop()
        x = resnet(torch.cat([x + write(y), skip], dim=1), temb)
        x = _attend(attention, x, tokens)
    if ours.upsamplers is not None:
        x = ours.upsamplers[0](x, skips[-1][0].shape[2:])
    return x


def _layers(block: Any) -> list[tuple[Any, Any]]:
    """Residual blocks and their attentions; None where there is none."""
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    return list(zip(block.resnets, attentions, strict=True))


def _attend(attention: Any, x: Tensor, tokens: Any) -> Tensor:
    return x if attention is None else attention(x, **tokens, return_dict=False)[0]
