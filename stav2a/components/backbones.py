"""Text to audio: the U-Net by itself."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional

from stav2a.registry import RegistryError, register
from stav2a.utils.checkpoints import load_weights


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
