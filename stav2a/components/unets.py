"""Text-to-audio denoisers: the U-Net of diffusers, and diffusion transformers that are called like it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint as checkpoint_activations

from stav2a.registry import RegistryError, register, selector_of
from stav2a.utils.checkpoints import load_weights, zeroed
from stav2a.utils.errors import check_bounds

Rotation = tuple[Tensor, Tensor]  # cosines and sines of the positions, (T, D / 2) each
MASKED_SCORE = -10_000.0  # added to the score of a masked token, as in diffusers


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


class DiffusionTransformer(nn.Module, ABC):
    """Base of the transformers, called like the U-Net of diffusers: a token is all of one latent frame.

    Args:
        latent_channels: Channels of the latent, C.
        latent_bins: Frequencies of the latent, F.
        width: Width of a token.
        heads: Heads of the attention.

    Raises:
        RegistryError: A head would have an odd width, which rotary positions don't allow.
        UsageError: A size is less than 1.
    """

    def __init__(self, latent_channels: int, latent_bins: int, width: int, heads: int) -> None:
        super().__init__()
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps

        selector = selector_of("unet", type(self))
        check_bounds(f"{selector}.heads", heads, 1)
        check_bounds(f"{selector}.width", width, 1)
        if width % (2 * heads):
            raise RegistryError(
                f"{selector}.width = {width}, heads = {heads}: expected heads of an even width.",
                advice=f"Take a width that {2 * heads} divides.",
            )
        self.width, self.heads, self.recomputes = width, heads, False
        self.time_proj = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(256, width)
        self.proj_in = nn.Linear(latent_channels * latent_bins, width)
        self.norm_out = AdaptiveNorm(width)
        self.proj_out = zeroed(nn.Linear(width, latent_channels * latent_bins))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        frame_embedding: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Prediction as diffusers returns it. `frame_embedding` (B, T, width) is added to the timestep's."""
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

        c, mask = encoder_hidden_states, encoder_attention_mask
        mask = torch.ones_like(c[..., 0], dtype=torch.bool) if mask is None else mask.bool()
        time = self.time_embedding(self.time_proj(timestep).to(sample.dtype))[:, None]  # (B, 1, width)
        frame_times = time if frame_embedding is None else time + frame_embedding
        x = self.proj_in(rearrange(sample, "b c t f -> b t (c f)"))
        x = self.transform(x, functional.silu(frame_times), functional.silu(time), c, mask)
        x = self.proj_out(self.norm_out(x, functional.silu(frame_times)))
        prediction = rearrange(x, "b t (c f) -> b c t f", c=sample.shape[1])
        return UNet2DConditionOutput(prediction) if return_dict else (prediction,)

    @abstractmethod
    def transform(self, x: Tensor, frame_times: Tensor, time: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        """Frames x (B, T, width) after all layers.

        `frame_times` (B, T or 1, width) and `time` (B, 1, width) modulate frames and tokens c (B, N, D_c).
        """

    def enable_gradient_checkpointing(self) -> None:
        """Let the backward pass compute the activations of each layer again."""
        self.recomputes = True

    def apply_layer(self, layer: nn.Module, *inputs: Any) -> Any:
        """Outputs of a layer, whose activations are kept unless they are computed again."""
        if self.recomputes and torch.is_grad_enabled():
            return checkpoint_activations(layer, *inputs, use_reentrant=False)
        return layer(*inputs)

    def rotation(self, x: Tensor) -> Rotation:
        """Rotary positions of the frames, in float32."""
        half = self.width // self.heads // 2
        frequencies = 10_000 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
        angles = torch.arange(x.shape[1], device=x.device)[:, None] * frequencies
        return angles.cos(), angles.sin()


@register("unet", "dit")
class DiT(DiffusionTransformer):
    """Diffusion transformer with cross attention to the tokens (Peebles and Xie 2023).

    The defaults are the sizes of DiT-L. Timestep, and local features where the backbone gives them, modulate
    the norms (adaLN-zero). The cross attention follows the self-attention and starts at zero, as in
    PixArt-alpha.

    Args:
        latent_channels: Channels of the latent, C. Wired.
        cond_dim: Width of the cross-attention tokens, D_c. Wired.
        latent_bins: Frequencies of the latent, F. Wired.
        width: Width of the token of a latent frame.
        layers: Number of layers.
        heads: Heads of every attention.
        checkpoint: Folder of text-to-audio weights to start from; None trains from scratch.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K, D_c) -> prediction (B, C, T, F)
    """

    def __init__(
        self,
        latent_channels: int,
        cond_dim: int,
        latent_bins: int,
        *,
        width: int = 1024,
        layers: int = 24,
        heads: int = 16,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__(latent_channels, latent_bins, width, heads)
        check_bounds("unet.dit.layers", layers, 1)
        self.layers = nn.ModuleList(CrossAttentionLayer(width, heads, cond_dim) for _ in range(layers))
        load_weights(self, checkpoint, parameter="unet.dit.checkpoint")

    def transform(self, x: Tensor, frame_times: Tensor, time: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        rotation, bias = self.rotation(x), MASKED_SCORE * (1 - mask[:, None].to(x.dtype))
        for layer in self.layers:
            x = self.apply_layer(layer, x, frame_times, rotation, c, bias)
        return x


@register("unet", "mmdit")
class MMDiT(DiffusionTransformer):
    """Diffusion transformer with joint attention of latent frames and tokens (MMAudio, Cheng et al. 2024).

    Text and video tokens are one sequence with weights of their own; layers of the frames alone follow. The
    defaults are the width and layers of MMAudio-M. Unlike there the tokens have no positions, their mean is
    not added to the timestep's embedding, and the feed-forward layers are no convolutions.

    Args:
        latent_channels: Channels of the latent, C. Wired.
        cond_dim: Width of the tokens, D_c. Wired.
        latent_bins: Frequencies of the latent, F. Wired.
        width: Width of a token in the transformer.
        joint_layers: Layers of joint attention; the last one leaves the tokens as they are.
        single_layers: Layers of the frames alone, after those.
        heads: Heads of every attention.
        checkpoint: Folder of text-to-audio weights to start from; None trains from scratch.

    Shapes:
        z_t (B, C, T, F), t (B,), c (B, K, D_c) -> prediction (B, C, T, F)

    Raises:
        RegistryError: No joint layer would read the tokens.
    """

    def __init__(
        self,
        latent_channels: int,
        cond_dim: int,
        latent_bins: int,
        *,
        width: int = 896,
        joint_layers: int = 4,
        single_layers: int = 8,
        heads: int = 14,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__(latent_channels, latent_bins, width, heads)
        if joint_layers < 1:
            raise RegistryError(f"unet.mmdit.joint_layers = {joint_layers}: expected 1 or more.")
        check_bounds("unet.mmdit.single_layers", single_layers, 0)
        self.proj_tokens = nn.Linear(cond_dim, width)
        self.joint = nn.ModuleList(JointLayer(width, heads) for _ in range(joint_layers - 1))
        self.reading = ReadingLayer(width, heads)
        self.single = nn.ModuleList(Stream(width, heads) for _ in range(single_layers))
        load_weights(self, checkpoint, parameter="unet.mmdit.checkpoint")

    def transform(self, x: Tensor, frame_times: Tensor, time: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        rotation = self.rotation(x)
        attended = torch.cat([mask.new_ones(x.shape[:2]), mask], dim=1)[:, None, None]  # (B, 1, 1, T + N)
        y = self.proj_tokens(c)
        for layer in self.joint:
            x, y = self.apply_layer(layer, x, y, frame_times, time, rotation, attended)
        x = self.apply_layer(self.reading, x, y, frame_times, time, rotation, attended)
        for stream in self.single:
            x = self.apply_layer(stream, x, frame_times, rotation)
        return x


class AdaptiveNorm(nn.Module):
    """Layer norm, scaled and shifted by an embedding (adaLN); a plain norm at first.

    Shapes:
        x (B, L, width), embedding (B, L or 1, width) -> (B, L, width)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zeroed(nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        shift, scale = self.modulation(embedding).chunk(2, dim=-1)
        return self.norm(x) * (1 + scale) + shift


class HeadNorm(nn.RMSNorm):
    """RMS norm of queries or keys whose weight takes the type of its input, which autocast does not do."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Stream(nn.Module):
    """Transformer layer with adaLN, whose gates start at zero, so that a new one changes nothing.

    Its parts serve layers in which several streams attend to each other.

    Shapes:
        x (B, L, width), embedding (B, L or 1, width) -> (B, L, width)
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = AdaptiveNorm(width), AdaptiveNorm(width)
        self.attention_gate, self.mlp_gate = (zeroed(nn.Linear(width, width)) for _ in range(2))
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm_q, self.norm_k = (HeadNorm(width // heads, eps=1e-6) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, embedding: Tensor, rotation: Rotation) -> Tensor:
        attended = functional.scaled_dot_product_attention(*self.read(x, embedding, rotation))
        return self.feed_forward(self.add(x, attended, embedding), embedding)

    def read(
        self, x: Tensor, embedding: Tensor, rotation: Rotation | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, L, D), rotated by their positions where these are given."""
        qkv = self.to_qkv(self.attention_norm(x, embedding))
        q, k, v = rearrange(qkv, "b l (three h d) -> three b h l d", three=3, h=self.heads)
        q, k = self.norm_q(q), self.norm_k(k)
        return (q, k, v) if rotation is None else (_rotate(q, rotation), _rotate(k, rotation), v)

    def add(self, x: Tensor, attended: Tensor, embedding: Tensor) -> Tensor:
        """x with what its queries attended to, (B, H, L, D)."""
        return x + self.attention_gate(embedding) * self.to_out(rearrange(attended, "b h l d -> b l (h d)"))

    def feed_forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x with the output of the feed-forward layer."""
        return x + self.mlp_gate(embedding) * self.mlp(self.mlp_norm(x, embedding))


class CrossAttentionLayer(nn.Module):
    """Stream of frames with cross attention to the tokens, which is that of diffusers.

    Shapes:
        x (B, T, width), embedding (B, T or 1, width), c (B, N, D_c), bias (B, 1, N) -> (B, T, width)
    """

    def __init__(self, width: int, heads: int, cond_dim: int) -> None:
        super().__init__()
        from diffusers.models.attention_processor import Attention

        self.frames, self.norm = Stream(width, heads), nn.LayerNorm(width)
        self.cross = Attention(width, cross_attention_dim=cond_dim, heads=heads, dim_head=width // heads)
        zeroed(self.cross.to_out[0])

    def forward(self, x: Tensor, embedding: Tensor, rotation: Rotation, c: Tensor, bias: Tensor) -> Tensor:
        attended = functional.scaled_dot_product_attention(*self.frames.read(x, embedding, rotation))
        x = self.frames.add(x, attended, embedding)
        x = x + self.cross(self.norm(x), encoder_hidden_states=c, attention_mask=bias)
        return self.frames.feed_forward(x, embedding)


class JointLayer(nn.Module):
    """Streams of frames and of tokens, each of which attends to both.

    Shapes:
        x (B, T, width), y (B, N, width), frame_times (B, T or 1, width), time (B, 1, width),
        mask (B, 1, 1, T + N) -> x (B, T, width), y (B, N, width)
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.frames, self.tokens = Stream(width, heads), Stream(width, heads)

    def forward(
        self, x: Tensor, y: Tensor, frame_times: Tensor, time: Tensor, rotation: Rotation, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        ours, theirs = self.frames.read(x, frame_times, rotation), self.tokens.read(y, time)
        query, keys, values = _joined(ours, theirs)
        attended = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        of_frames, of_tokens = attended.split([x.shape[1], y.shape[1]], dim=2)
        x, y = self.frames.add(x, of_frames, frame_times), self.tokens.add(y, of_tokens, time)
        return self.frames.feed_forward(x, frame_times), self.tokens.feed_forward(y, time)


class ReadingLayer(nn.Module):
    """Stream of frames which attends to tokens too, that nothing reads afterwards.

    Shapes:
        as of `JointLayer` -> x (B, T, width)
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.frames, self.norm = Stream(width, heads), AdaptiveNorm(width)
        self.to_kv, self.norm_k = nn.Linear(width, 2 * width), HeadNorm(width // heads, eps=1e-6)

    def forward(
        self, x: Tensor, y: Tensor, frame_times: Tensor, time: Tensor, rotation: Rotation, mask: Tensor
    ) -> Tensor:
        kv = self.to_kv(self.norm(y, time))
        k, v = rearrange(kv, "b n (two h d) -> two b h n d", two=2, h=self.frames.heads)
        query, *ours = self.frames.read(x, frame_times, rotation)
        keys, values = _joined(ours, (self.norm_k(k), v))
        attended = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        return self.frames.feed_forward(self.frames.add(x, attended, frame_times), frame_times)


def _joined(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[Tensor]:
    """Those of the frames, then those of the tokens, along the sequence."""
    return [torch.cat(pair, dim=2) for pair in zip(ours, theirs, strict=True)]


def _rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """x (B, H, T, D), each pair of channels rotated by its position (RoPE, Su et al. 2021)."""
    cos, sin = (part.to(x.dtype) for part in rotation)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
