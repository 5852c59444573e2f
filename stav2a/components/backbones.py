"""Backbones: the text-to-audio denoiser by itself, or with a control network for the local features."""

import copy
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional

from stav2a.registry import RegistryError, register, selector_of
from stav2a.slots import ALL_FOR_CODES
from stav2a.utils.checkpoints import load_weights, zeroed
from stav2a.utils.errors import UsageError

Residuals = tuple[Sequence[Tensor], Tensor]  # added to the skips of the U-Net, and to its middle


@register("backbone", "unet")
class UNetBackbone(nn.Module):
    """The U-Net or transformer by itself: text to audio. The local features are ignored.

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
        """Do nothing: the U-Net is the text-to-audio model."""

    def forward(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor:
        return self.unet(z_t, t, c, encoder_attention_mask=mask, return_dict=False)[0]


@register("backbone", "dit")
class DiTBackbone(nn.Module):
    """A transformer whose adaLN reads the local features frame by frame (MMAudio, Cheng et al. 2024).

    Args:
        unet: The denoiser, one that takes an embedding for each frame: `unet.dit` or `unet.mmdit`. Wired.
        local_dim: Width of the local features, D_l. Wired.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K, D_c), mask (B, K), e_lv (B, T, D_l) -> (B, C, T, F)

    Raises:
        RegistryError: The denoiser takes no embedding for each frame, or there are no local features.
    """

    def __init__(self, unet: Any, local_dim: int) -> None:
        super().__init__()
        if not _takes_frames(unet):
            raise RegistryError(
                f"backbone.dit needs a transformer that takes a frame_embedding, and {type(unet).__name__} "
                "does not.",
                advice=ALL_FOR_CODES
                if hasattr(unet, "codebook")
                else "Bind run.unet = @unet.dit or @unet.mmdit, or run.backbone = @backbone.unet.",
            )
        if not local_dim:
            raise RegistryError(
                "backbone.dit needs local features, and run.local_head = @local_head.none gives none.",
                advice="Bind run.backbone = @backbone.unet, or another local head.",
            )
        self.unet = unet
        self.embed = zeroed(nn.Linear(local_dim, unet.width))

    def start_from_t2a(self) -> None:
        """Do nothing: the embedding starts at zero, where the transformer is the text-to-audio model."""

    def forward(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor:
        frames = self.embed(e_lv)
        return self.unet(z_t, t, c, encoder_attention_mask=mask, frame_embedding=frames, return_dict=False)[0]


def _takes_frames(unet: nn.Module) -> bool:
    return "frame_embedding" in inspect.signature(unet.forward).parameters


def _check_blocks(unet: Any, backbone: type) -> None:
    """Refuse a denoiser without the blocks of a U-Net, which a ControlNet copies."""
    if not all(hasattr(unet, name) for name in ("config", "conv_in", "down_blocks", "mid_block")):
        other = "dit" if _takes_frames(unet) else "unet"
        raise RegistryError(
            f"{selector_of('backbone', backbone)} needs the blocks of diffusers' U-Net, and "
            f"{type(unet).__name__} has none.",
            advice=ALL_FOR_CODES
            if hasattr(unet, "codebook")
            else f"Bind run.backbone = @backbone.{other}, or run.unet = @unet.stable_diffusion.",
        )


@register("backbone", "unet_controlnet")
class UNetControlNet(nn.Module):
    """The U-Net with a ControlNet on z_t and the local video features (sec. II-C2).

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

        _check_blocks(unet, type(self))
        self.unet, self.freeze_unet = unet, freeze_unet
        self.controlnet = ControlNetModel.from_unet(unet)
        self.width = unet.config.block_out_channels[0]
        self.controlnet.controlnet_cond_embedding = LocalEmbedding(local_dim, self.width)

    def start_from_t2a(self) -> None:
        """Copy the trained U-Net into the ControlNet and set the trainable parameters (sec. II-C1)."""
        for name in ("conv_in", "time_embedding", "down_blocks", "mid_block"):
            getattr(self.controlnet, name).load_state_dict(getattr(self.unet, name).state_dict())
        self.set_trainable()

    def set_trainable(self) -> None:
        """Let all parameters require a gradient, but for those of a frozen U-Net."""
        self.requires_grad_(True)
        self.unet.requires_grad_(not self.freeze_unet)

    def forward(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor:
        return self.controlled(z_t, t, c, mask, *self.control(z_t, t, c, mask, e_lv))

    def controlled(
        self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, down: Sequence[Tensor], mid: Tensor
    ) -> Tensor:
        """Prediction of the U-Net with the residuals of `control`."""
        added = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        return self.unet(z_t, t, **self.tokens(c, mask), **added, return_dict=False)[0]

    def tokens(self, c: Tensor, mask: Tensor) -> dict[str, Any]:
        """Arguments by which the U-Net and its blocks read the tokens c (B, N, D_c) and their mask."""
        return {"encoder_hidden_states": c, "encoder_attention_mask": mask}

    def control(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Residuals:
        """Residuals for the skips and the middle of the U-Net. The ControlNet of diffusers takes no mask."""
        image = self.conditioning_image(e_lv, z_t.shape[3])
        return self.controlnet(z_t, t, c, controlnet_cond=image, return_dict=False)

    def conditioning_image(self, e_lv: Tensor, bins: int) -> Tensor:
        """Input of the ControlNet's conditioning embedding for `bins` latent bins; the same at every step."""
        return e_lv


@register("backbone", "unet_controlnet_masked")
class UNetControlNetMasked(UNetControlNet):
    """The U-Net with a ControlNet that masks the padding of the text too.

    Args:
        unet: The denoiser. Wired.
        local_dim: Width of the local features, D_l. Wired.
        freeze_unet: Train the ControlNet alone ("CN Frozen"); the paper trains both.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K, D_c), mask (B, K), e_lv (B, T, D_l) -> (B, C, T, F)
    """

    def control(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Residuals:
        net = self.controlnet
        x = net.conv_in(z_t) + net.controlnet_cond_embedding(e_lv)
        return _masked_residuals(net, x, t, c, mask, [nn.Identity()] * len(net.down_blocks))


@register("backbone", "unet_controlnet_decoupled")
class UNetControlNetDecoupled(UNetControlNetMasked):
    """The U-Net with a ControlNet, and attention to the video tokens beside that to the text (FoleyCrafter).

    The cross attention is IP-Adapter's (Ye et al. 2023), as in FoleyCrafter (Zhang et al. 2024): the same
    queries attend to text and video apart, and the results are added. The video's keys start as a copy of the
    text's; its values start at zero, where IP-Adapter copies them too: a new backbone reads the text alone.
    The ControlNet reads the text. The video's tokens come first: `condition_fuser.video_first`.

    Args:
        unet: The denoiser. Wired.
        local_dim: Width of the local features, D_l. Wired.
        video_tokens: Number of the video tokens, K. Wired.
        scale: Weight of the attention to the video; that to the text has 1.
        freeze_unet: Train all but the U-Net, as FoleyCrafter does.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K+K0, D_c), mask (B, K+K0), e_lv (B, T, D_l) -> (B, C, T, F)

    Raises:
        RegistryError: There are no video tokens, or they do not come first.
        UsageError: An adapter is on the output layers of the attention, whose weights it reads.
    """

    def __init__(
        self,
        unet: Any,
        local_dim: int,
        video_tokens: int,
        *,
        scale: float = 1.0,
        freeze_unet: bool = True,
    ) -> None:
        super().__init__(unet, local_dim, freeze_unet=freeze_unet)
        if not video_tokens:
            raise RegistryError(
                "backbone.unet_controlnet_decoupled attends to the video's tokens apart, and no video tokens "
                "stand at the beginning of those that it is given.",
                advice="Bind run.condition_fuser = @condition_fuser.video_first, and a run.global_pooler "
                "that gives tokens, such as @global_pooler.mean.",
            )
        self.video_tokens = video_tokens
        attentions = _cross_attentions(unet)
        self.video_keys = nn.ModuleList(copy.deepcopy(each.to_k) for each in attentions)
        self.video_values = nn.ModuleList(zeroed(copy.deepcopy(each.to_v)) for each in attentions)
        for attention, key, value in zip(attentions, self.video_keys, self.video_values, strict=True):
            attention.set_processor(DecoupledAttention(key, value, scale))

    def start_from_t2a(self) -> None:
        """Copy the trained U-Net into the ControlNet and the video's keys; set the trainable parameters."""
        for attention, key in zip(_cross_attentions(self.unet), self.video_keys, strict=True):
            key.load_state_dict(attention.to_k.state_dict())
        super().start_from_t2a()

    def tokens(self, c: Tensor, mask: Tensor) -> dict[str, Any]:
        text = super().tokens(self._of_text(c), self._of_text(mask))
        return {**text, "cross_attention_kwargs": {"ip_hidden_states": c[:, : self.video_tokens]}}

    def control(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Residuals:
        return super().control(z_t, t, self._of_text(c), self._of_text(mask), e_lv)

    def _of_text(self, tokens: Tensor) -> Tensor:
        """Those of the tokens, or of their mask, that are the text's: (B, K+K0, ...) -> (B, K0, ...)."""
        return tokens[:, self.video_tokens :]


def _cross_attentions(unet: nn.Module) -> list[Any]:
    return [block.attn2 for block in unet.modules() if isinstance(getattr(block, "attn2", None), nn.Module)]


class DecoupledAttention:
    """Attention processor of diffusers that attends to video tokens too, where it is given any.

    It is no module, and its layers are the backbone's, so that the weights of the U-Net keep their names.

    Args:
        key: Layer of the video's keys.
        value: Layer of the video's values.
        scale: Weight of the attention to the video.
    """

    def __init__(self, key: nn.Module, value: nn.Module, scale: float) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.key, self.value, self.scale, self.stock = key, value, scale, AttnProcessor2_0()

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        ip_hidden_states: Tensor | None = None,
    ) -> Tensor:
        text = self.stock(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if ip_hidden_states is None:  # a text-to-audio stage
            return text
        output = attn.to_out[0]
        if not isinstance(output, nn.Linear):
            raise UsageError(
                "backbone.unet_controlnet_decoupled reads the weights of to_out.0, which has an adapter.",
                advice="Leave 'to_out.0' out of adapter.lora.targets.",
            )
        layers = ((attn.to_q, hidden_states), (self.key, ip_hidden_states), (self.value, ip_hidden_states))
        heads = (rearrange(layer(x), "b n (h d) -> b h n d", h=attn.heads) for layer, x in layers)
        attended = rearrange(functional.scaled_dot_product_attention(*heads), "b h n d -> b n (h d)")
        return text + self.scale * functional.linear(attended, output.weight)


class LocalEmbedding(nn.Module):
    """e_lv (B, T, D_l) -> (B, width, T, 1), added to the ControlNet's conv_in at every frequency.

    The embedding of diffusers expects an image of eight times the size of the latent; local features are on
    the time axis of the latent.

    Raises:
        RegistryError: There are no local features.
    """

    def __init__(self, local_dim: int, width: int) -> None:
        super().__init__()
        if not local_dim:
            raise RegistryError(
                "A ControlNet needs local features, and run.local_head = @local_head.none gives none.",
                advice="Bind run.backbone = @backbone.unet, or another local head.",
            )
        self.embed = nn.Conv1d(local_dim, width, kernel_size=3, padding=1)

    def forward(self, e_lv: Tensor) -> Tensor:
        return repeat(self.embed(rearrange(e_lv, "b t d -> b d t")), "b d t -> b d t 1")


def _masked_residuals(
    controlnet: Any, x: Tensor, t: Tensor, c: Tensor, mask: Tensor, modulations: Iterable[Callable[..., Any]]
) -> Residuals:
    """Pass of a ControlNet with a mask of the tokens, from the input x (B, width, T, F) of its first block.

    `modulations` are functions of x before each resolution.
    """
    temb = controlnet.time_embedding(controlnet.time_proj(t).to(x.dtype))
    tokens = {"encoder_hidden_states": c, "encoder_attention_mask": mask}
    states = [x]
    for modulate, block in zip(modulations, controlnet.down_blocks, strict=True):
        x, outputs = block(modulate(x), temb, **tokens)
        states.extend(outputs)
    x = controlnet.mid_block(x, temb, **tokens)
    zero_convs = zip(controlnet.controlnet_down_blocks, states, strict=True)
    return [conv(state) for conv, state in zero_convs], controlnet.controlnet_mid_block(x)


@register("backbone", "unet_controlnet_fdn")
class UNetControlNetFDN(UNetControlNet):
    """The U-Net with a ControlNet modulated by the local features at every resolution (Uni-ControlNet's FDN).

    The ControlNet masks the padding of the text.

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
        widths = [self.width, *unet.config.block_out_channels[:-1]]  # of the inputs of the resolutions
        self.fdn = nn.ModuleList(FDN(local_dim, width, unet.config.norm_num_groups) for width in widths)

    def control(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Residuals:
        modulations = [partial(fdn, e_lv=e_lv) for fdn in self.fdn]
        x = self.controlnet.conv_in(z_t)
        return _masked_residuals(self.controlnet, x, t, c, mask, modulations)


class FDN(nn.Module):
    """Feature denormalisation: x + norm(x) * gamma(e_lv) + beta(e_lv), with a norm without parameters.

    Uni-ControlNet's is norm(x) * (1 + gamma) + beta. This one is added to x and starts at zero, so that the
    ControlNet starts as a copy of the U-Net.

    Shapes:
        x (B, width, T', F'), e_lv (B, T, D_l) -> (B, width, T', F')
    """

    def __init__(self, local_dim: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, affine=False)
        self.gamma = zeroed(nn.Conv1d(local_dim, width, kernel_size=3, padding=1))
        self.beta = zeroed(nn.Conv1d(local_dim, width, kernel_size=3, padding=1))

    def forward(self, x: Tensor, e_lv: Tensor) -> Tensor:
        local = functional.adaptive_avg_pool1d(rearrange(e_lv, "b t d -> b d t"), x.shape[2])
        gamma, beta = (part(local).unsqueeze(-1) for part in (self.gamma, self.beta))
        return x + self.norm(x) * gamma + beta


@register("backbone", "unet_controlnet_released")
class UNetControlNetReleased(UNetControlNet):
    """The released ControlNet: local features repeated along frequency, then a 3x3 convolution from zero.

    The keys of its weights are those of the release.

    Args:
        unet: The denoiser. Wired.
        local_dim: Width of the local features, D_l. Wired.
        freeze_unet: Train the ControlNet alone ("CN Frozen"); the paper trains both.
        checkpoint: Folder of weights of the ControlNet to start from; None copies the U-Net's.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K, D_c), mask (B, K), e_lv (B, T, D_l) -> (B, C, T, F)
    """

    def __init__(
        self, unet: Any, local_dim: int, *, freeze_unet: bool = False, checkpoint: str | None = None
    ) -> None:
        super().__init__(unet, local_dim, freeze_unet=freeze_unet)
        conv_out = zeroed(nn.Conv2d(local_dim, self.width, kernel_size=3, padding=1))
        self.controlnet.controlnet_cond_embedding = nn.Sequential(OrderedDict(conv_out=conv_out))
        self.pretrained = checkpoint is not None
        parameter = "backbone.unet_controlnet_released.checkpoint"
        load_weights(self, checkpoint, parameter=parameter, without="unet.")

    def start_from_t2a(self) -> None:
        """Copy the trained U-Net, unless a checkpoint was loaded, and set the trainable parameters."""
        if self.pretrained:
            self.set_trainable()
        else:
            super().start_from_t2a()

    def conditioning_image(self, e_lv: Tensor, bins: int) -> Tensor:
        return repeat(e_lv, "b t d -> b d t f", f=bins)


@register("backbone", "unet_controlnet_plain")
class UNetControlNetPlain(UNetControlNet):
    """The released plain "CN": convolutions reduce the width of the features to the latent's frequencies.

    It is meant for `local_head.nearest`, which passes on the features of the encoder.

    Args:
        unet: The denoiser. Wired.
        local_dim: Width of the local features, D_l. Wired.
        channels: Channels of the convolutions, each of which halves the width; the default makes 16 of 512.
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
        self.channels = channels
        self.controlnet.controlnet_cond_embedding = PlainEmbedding(channels, self.width)

    def conditioning_image(self, e_lv: Tensor, bins: int) -> Tensor:
        width = e_lv.shape[2]
        left = -(-width // 2 ** len(self.channels))
        if left != bins:
            fitting = next((n for n in range(1, width.bit_length()) if -(-width // 2**n) == bins), None)
            channels = tuple(8 * 2**i for i in range(fitting or 0))
            raise RegistryError(
                f"backbone.unet_controlnet_plain.channels = {self.channels}: {len(self.channels)} halvings "
                f"make {left} of the {width} local features, but the latent has {bins} frequencies.",
                advice=f"Bind backbone.unet_controlnet_plain.channels = {channels}."
                if fitting
                else f"No number of halvings makes {bins} of {width}: bind run.backbone = "
                "@backbone.unet_controlnet, which takes any width.",
            )
        return rearrange(e_lv, "b t d -> b 1 t d")


class PlainEmbedding(nn.Module):
    """Image of e_v (B, 1, T, D_v) -> (B, width, T, F), with the layers of diffusers' ControlNet.

    Strides are along the features alone: the image is on the time axis of the latent already.
    """

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.conv_in = _halving(1, channels[0])
        self.blocks = nn.ModuleList()
        for before, after in zip(channels, channels[1:], strict=False):
            self.blocks.extend([nn.Conv2d(before, before, 3, padding=1), _halving(before, after)])
        self.conv_out = zeroed(nn.Conv2d(channels[-1], width, kernel_size=3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        x = functional.silu(self.conv_in(image))
        for block in self.blocks:
            x = functional.silu(block(x))
        return self.conv_out(x)


def _halving(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel_size=3, stride=(1, 2), padding=1)


@register("backbone", "unet_controlnet_xs")
class UNetControlNetXS(nn.Module):
    """The U-Net with ControlNet-XS on z_t and the local video features (Zavadski et al. 2023).

    The layers are those of diffusers' `ControlNetXSAdapter`. Its model class would copy the U-Net and takes
    no mask of the tokens, so the forward pass is written here.

    Args:
        unet: The denoiser, with two layers per resolution. Wired.
        local_dim: Width of the local features, D_l. Wired.
        size_ratio: Width of the control layers relative to the U-Net's.
        freeze_unet: Train the control layers alone, as ControlNet-XS does.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K, D_c), mask (B, K), e_lv (B, T, D_l) -> (B, C, T, F)

    Raises:
        RegistryError: The U-Net has another number of layers per resolution.
    """

    def __init__(
        self, unet: Any, local_dim: int, *, size_ratio: float = 0.125, freeze_unet: bool = True
    ) -> None:
        super().__init__()
        from diffusers import ControlNetXSAdapter

        _check_blocks(unet, type(self))
        if unet.config.layers_per_block != 2:
            raise RegistryError(
                f"backbone.unet_controlnet_xs was given a U-Net of {unet.config.layers_per_block} layers a "
                "resolution; diffusers has it for 2 alone.",
                advice="Bind unet.stable_diffusion.layers_per_block = 2.",
            )
        widths = [max(1, int(width * size_ratio)) for width in unet.config.block_out_channels]
        heads = [max(1, width // 64) for width in widths]
        self.unet, self.freeze_unet = unet, freeze_unet
        self.adapter = ControlNetXSAdapter.from_unet(
            unet, block_out_channels=widths, num_attention_heads=heads
        )
        # The adapter's own are for images and latents of four channels.
        self.adapter.conv_in = nn.Conv2d(unet.config.in_channels, widths[0], kernel_size=3, padding=1)
        self.adapter.controlnet_cond_embedding = LocalEmbedding(local_dim, widths[0])

    def start_from_t2a(self) -> None:
        """Set the trainable parameters; there is nothing to copy."""
        self.requires_grad_(True)
        self.unet.requires_grad_(not self.freeze_unet)

    def forward(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor:
        unet, control = self.unet, self.adapter
        temb = unet.time_embedding(unet.time_proj(t).to(z_t.dtype))
        tokens = {"encoder_hidden_states": c, "encoder_attention_mask": mask}
        y = control.conv_in(z_t) + control.controlnet_cond_embedding(e_lv)
        x = unet.conv_in(z_t) + control.control_to_base_for_conv_in(y)
        skips = [(x, y)]
        for base, ctrl in zip(unet.down_blocks, control.down_blocks, strict=True):
            skips.extend(_down(base, ctrl, *skips[-1], temb, tokens))
        x, y = skips[-1]
        y = torch.cat([y, control.mid_block.base_to_ctrl(x)], dim=1)
        x = unet.mid_block(x, temb, **tokens)
        x = x + control.mid_block.ctrl_to_base(control.mid_block.midblock(y, temb, **tokens))
        for base, ctrl in zip(unet.up_blocks, control.up_connections, strict=True):
            x = _up(base, ctrl, x, skips, temb, tokens)
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))


def _down(
    base: Any, ctrl: Any, x: Tensor, y: Tensor, temb: Tensor, tokens: Any
) -> Iterator[tuple[Tensor, Tensor]]:
    """States of the U-Net (x) and of the control layers (y) after each layer of a resolution."""
    to_ctrl, to_base = list(ctrl.base_to_ctrl), list(ctrl.ctrl_to_base)
    layers = zip(_layers(base), _layers(ctrl), to_ctrl, to_base, strict=False)
    for (resnet, attention), (ctrl_resnet, ctrl_attention), read, write in layers:
        y = torch.cat([y, read(x)], dim=1)
        x = _attend(attention, resnet(x, temb), tokens)
        y = _attend(ctrl_attention, ctrl_resnet(y, temb), tokens)
        x = x + write(y)
        yield x, y
    if base.downsamplers is not None:
        y = ctrl.downsamplers(torch.cat([y, to_ctrl[-1](x)], dim=1))
        x = base.downsamplers[0](x) + to_base[-1](y)
        yield x, y


def _up(
    base: Any, ctrl: Any, x: Tensor, skips: list[tuple[Tensor, Tensor]], temb: Tensor, tokens: Any
) -> Tensor:
    """State of the U-Net after a resolution on the way up, which pops its skips off the end of the list."""
    for (resnet, attention), write in zip(_layers(base), ctrl.ctrl_to_base, strict=True):
        skip, y = skips.pop()
        x = resnet(torch.cat([x + write(y), skip], dim=1), temb)
        x = _attend(attention, x, tokens)
    if base.upsamplers is not None:
        x = base.upsamplers[0](x, skips[-1][0].shape[2:])
    return x


def _layers(block: Any) -> list[tuple[Any, Any]]:
    """Residual blocks, each with its attention or None."""
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
    return list(zip(block.resnets, attentions, strict=True))


def _attend(attention: Any, x: Tensor, tokens: Any) -> Tensor:
    return x if attention is None else attention(x, **tokens, return_dict=False)[0]
