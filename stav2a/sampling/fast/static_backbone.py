"""Copy of a backbone that does the work of all steps once.

Modules that read the conditions alone are computed once per generation: keys and values of cross attention,
and the embedding of the local features. The projections of the time embedding are looked up in a table of all
steps. The copy shares the weights of the backbone, which stays as it is.
"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from stav2a.models.stav2a import Conditions
from stav2a.sampling.reference import SamplerError

# Backends of attention in torch's order of priority on a GPU.
ATTENTION = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
MASKED_SCORE = -10_000.0  # added to the score of a masked token, as in diffusers


class StaticBuffer:
    """Tensor that stays in place: a new value is copied into it while shape and type are the same."""

    value: Tensor

    def update(self, value: Tensor) -> None:
        old = getattr(self, "value", None)
        if old is not None and (old.shape, old.dtype) == (value.shape, value.dtype):
            old.copy_(value)
        else:
            self.value = value.clone(memory_format=torch.contiguous_format)


class CachedCrossAttention:
    """Attention processor of diffusers whose keys and values are computed once for all steps.

    Args:
        attention: Cross attention without norms of its own.
        masked: True where it masks the padding of the tokens.
    """

    def __init__(self, attention: Any, masked: bool) -> None:
        self.attention, self.masked = attention, masked
        self.key, self.value, self.bias = StaticBuffer(), StaticBuffer(), StaticBuffer()
        attention.set_processor(self)

    def update(self, c: Tensor, mask: Tensor, length: int) -> None:
        """Set the tokens c (N, K, D_c) and mask (N, K), with padding up to `length` that is masked."""
        attended = mask if self.masked else torch.ones_like(mask)
        padding = (0, length - c.shape[1])
        bias = MASKED_SCORE * (1 - functional.pad(attended.to(c.dtype), padding))
        self.bias.update(bias[:, None, None])
        self.key.update(self._heads(functional.pad(self.attention.to_k(c), (0, 0, *padding))))
        self.value.update(self._heads(functional.pad(self.attention.to_v(c), (0, 0, *padding))))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.attention.heads, -1)).transpose(1, 2)  # (N, H, K, D)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attend to the tokens of the last rows, as many as there are hidden states."""
        rows = slice(-len(hidden_states), None)
        attended = functional.scaled_dot_product_attention(
            self._heads(attn.to_q(hidden_states)),
            self.key.value[rows],
            self.value.value[rows],
            attn_mask=self.bias.value[rows],
        )
        return attn.to_out[0](attended.transpose(1, 2).flatten(2))


class CachedModule(nn.Module):
    """Replacement of a module that reads the conditions alone, by its output."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.output = (module,), StaticBuffer()  # in a tuple, so that it is no submodule

    def update(self, conditions: Tensor) -> None:
        self.output.update(self.module[0](conditions))

    def forward(self, conditions: Tensor) -> Tensor:
        return self.output.value[-len(conditions) :]


class TimestepTable:
    """Projections of the time embedding in all residual blocks: computed for all steps, selected by step.

    Args:
        blocks: Residual blocks that read the time embedding, by its network: a U-Net or ControlNet.
    """

    def __init__(self, blocks: Mapping[Any, Sequence[Any]]) -> None:
        self.row, self.embeddings = StaticBuffer(), []
        start = 0
        for network, readers in blocks.items():
            projections = [(block.nonlinearity, block.time_emb_proj) for block in readers]
            self.embeddings.append((network.time_proj, network.time_embedding, projections))
            network.time_proj = network.time_embedding = Identity()
            for block in readers:
                width = block.time_emb_proj.out_features
                block.time_emb_proj = TimestepProjection(self.row, start, width)
                start += width

    def update(self, timesteps: Tensor, dtype: torch.dtype) -> None:
        """Compute the projections for timesteps (n,)."""
        columns = [
            projection(act(time_embedding(time_proj(timesteps).to(dtype))))
            for time_proj, time_embedding, projections in self.embeddings
            for act, projection in projections
        ]
        self.rows = torch.cat(columns, dim=1) if columns else timesteps[:, None].to(dtype)

    def select(self, i: int) -> None:
        self.row.update(self.rows[i : i + 1])


class TimestepProjection(nn.Module):
    """Replacement of a residual block's projection of the time embedding, by its columns of the table."""

    def __init__(self, row: StaticBuffer, start: int, width: int) -> None:
        super().__init__()
        self.row, self.columns = row, slice(start, start + width)

    def forward(self, temb: Tensor) -> Tensor:
        return self.row.value[:, self.columns]


class Identity(nn.Module):
    """Replacement of a time embedding, whose projections are in the table."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return x


def share_until_text(network: Any) -> None:
    """Let a U-Net or ControlNet of diffusers take one latent for the tokens of all branches of guidance."""
    for block in [*network.down_blocks, network.mid_block]:
        if getattr(block, "attentions", None):
            block.attentions[0] = SplitAtFirstCrossAttention(block.attentions[0])
            break
    for i, block in enumerate(getattr(network, "up_blocks", ())):
        network.up_blocks[i] = DuplicateSkips(block)


class SplitAtFirstCrossAttention(nn.Module):
    """Wrapper of the first transformer with cross attention, which repeats the latents for all branches.

    The self-attention before the cross attention is the same for all branches.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer
        self.shared = SharedSelfAttention(transformer.transformer_blocks[0].attn1)
        transformer.transformer_blocks[0].attn1 = self.shared

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, **options: Any) -> Any:
        self.shared.rows = len(hidden_states)
        hidden_states = match_rows(hidden_states, encoder_hidden_states)
        return self.transformer(hidden_states, encoder_hidden_states=encoder_hidden_states, **options)


class SharedSelfAttention(nn.Module):
    """Wrapper of a self-attention whose input is the same for all branches, computed for one."""

    rows: int

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, hidden_states: Tensor, **options: Any) -> Tensor:
        return match_rows(self.attention(hidden_states[: self.rows], **options), hidden_states)


class UpBlockWrapper(nn.Module):
    """Base of the wrappers of up blocks, with the attributes that the U-Net reads."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block
        self.resnets, self.has_cross_attention = block.resnets, getattr(block, "has_cross_attention", False)


class DuplicateSkips(UpBlockWrapper):
    """Wrapper of an up block, which duplicates the skips from before the branches separate."""

    def forward(
        self, hidden_states: Tensor, res_hidden_states_tuple: tuple[Tensor, ...], *others: Any, **options: Any
    ) -> Tensor:
        skips = tuple(match_rows(skip, hidden_states) for skip in res_hidden_states_tuple)
        return self.block(hidden_states, skips, *others, **options)


def match_rows(x: Tensor, other: Tensor) -> Tensor:
    """x, repeated for every branch where the other tensor has the rows of all."""
    return torch.cat([x] * (len(other) // len(x))) if len(other) > len(x) else x


@dataclass(frozen=True)
class ComputeFormat:
    """Number format of a static backbone.

    Args:
        dtype: Type of weights and activations.
        memory_format: Memory format of images and of the weights of convolutions.
        text_bucket: Number of tokens, to a multiple of which prompts are padded, so that all run one graph.
        attention: Backends of attention, the first choice first; the others follow.
    """

    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.contiguous_format
    text_bucket: int = 1
    attention: Sequence[str] = ()

    def attended(self) -> AbstractContextManager[Any]:
        """Context in which attention is computed by the first backend that can.

        A compiled step enters it itself: no guard and no key of the compiler's caches know it otherwise.
        """
        if not self.attention:
            return nullcontext()
        order = [*self.attention, *(name for name in ATTENTION if name not in self.attention)]
        return sdpa_kernel([ATTENTION[name] for name in order], set_priority=True)

    def padded(self, length: int) -> int:
        """Number of tokens with padding."""
        return -(-length // self.text_bucket) * self.text_bucket


class StaticBackbone:
    """A backbone on static tensors, with the work of all steps done once.

    Args:
        backbone: Any backbone of blocks of diffusers.
        latent_shape: Shape of the latent of one clip, (C, T, F).
        conditions: Conditions of any clip, to find the modules that read the tokens and their mask.
        form: Number format.
        one_video: True where all branches of guidance have the same local features.

    Raises:
        SamplerError: The backbone has a cross attention of an unknown kind.
    """

    def __init__(
        self,
        backbone: nn.Module,
        latent_shape: tuple[int, int, int],
        conditions: Conditions,
        form: ComputeFormat,
        *,
        one_video: bool = True,
    ) -> None:
        self.form, self.bins = form, latent_shape[2]
        self.backbone: Any = shared_copy(backbone, form)
        attentions, blocks = find_readers(self.backbone, latent_shape, self._cast(conditions))
        self.attentions = [CachedCrossAttention(*found) for found in attentions.items()]
        self.time = TimestepTable(blocks)
        self.local: CachedModule | None = None
        controlnet = getattr(self.backbone, "controlnet", None)
        if controlnet is not None and controlnet.controlnet_cond_embedding is not None:
            self.local = CachedModule(controlnet.controlnet_cond_embedding)
            controlnet.controlnet_cond_embedding = self.local
        # Otherwise e_lv may be read after the place where the branches separate.
        self.shared = self.local is not None and one_video
        if self.shared:
            share_until_text(controlnet)
            share_until_text(self.backbone.unet)
        self.t, self.c, self.mask, self.e_lv = StaticBuffer(), StaticBuffer(), StaticBuffer(), StaticBuffer()

    def update(self, conditions: Conditions, timesteps: Tensor) -> None:
        """Do the constant work of one generation."""
        conditions = self._cast(conditions)
        c, mask, e_lv = conditions.c, conditions.mask, conditions.e_lv
        length = self.form.padded(c.shape[1])
        for attention in self.attentions:
            attention.update(c, mask, length)
        if self.local is not None:
            self.local.update(self.backbone.conditioning_image(e_lv, self.bins))
        self.time.update(timesteps, self.form.dtype)
        padding = (0, length - c.shape[1])
        self.c.update(functional.pad(c, (0, 0, *padding)))
        self.mask.update(functional.pad(mask, padding))
        self.e_lv.update(e_lv)
        self.timesteps = timesteps

    def select(self, i: int) -> None:
        """Set the time of step i."""
        self.time.select(i)
        self.t.update(self.timesteps[i : i + 1])

    def inputs(self, z_t: Tensor, *, branches: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Latents (B, C, T, F) -> inputs of the backbone, for the last branches of guidance."""
        z_t = z_t.to(self.form.dtype, memory_format=self.form.memory_format)
        tokens = slice(-len(z_t) * branches, None)
        if branches > 1 and not self.shared:
            z_t = torch.cat([z_t] * branches)
        rows = slice(-len(z_t), None)
        t = self.t.value.expand(len(z_t))
        return z_t, t, self.c.value[tokens], self.mask.value[tokens], self.e_lv.value[rows]

    def _cast(self, conditions: Conditions) -> Conditions:
        dtype = self.form.dtype
        return Conditions(conditions.c.to(dtype), conditions.mask, conditions.e_lv.to(dtype))


def shared_copy(module: nn.Module, form: ComputeFormat) -> nn.Module:
    """Copy that shares the memory of the parameters, unless type or memory format differ."""
    shared: dict[int, Any] = {
        id(each): nn.Parameter(each.detach(), requires_grad=False) for each in module.parameters()
    }
    copied: Any = copy.deepcopy(module, shared).eval()
    if form.memory_format is torch.contiguous_format:
        return copied.to(form.dtype)
    return copied.to(dtype=form.dtype, memory_format=form.memory_format)


def find_readers(
    backbone: nn.Module, latent_shape: tuple[int, int, int], conditions: Conditions
) -> tuple[dict[Any, bool], dict[Any, list[Any]]]:
    """Run the backbone on one clip to find the modules that read the tokens and the time.

    Returns:
        Every attention that reads the tokens, with True where it masks their padding; and the residual blocks
        that read a time embedding, by its network.
    """
    from diffusers import ControlNetModel, UNet2DConditionModel
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D

    c, mask, e_lv = conditions.c[:1], conditions.mask[:1], conditions.e_lv[:1]
    attentions: dict[Any, bool] = {}
    blocks: dict[Any, list[Any]] = {}
    embeddings: dict[int, Any] = {}  # networks by the ids of their embeddings, which are kept: ids are reused

    def reads_tokens(module: Any, inputs: Any, options: Any) -> None:
        if options.get("encoder_hidden_states") is c:
            _check_plain(module)
            attentions[module] = options.get("attention_mask") is not None

    def makes_embedding(network: Any, module: Any, inputs: Any, embedding: Tensor) -> None:
        embeddings[id(embedding)] = (network, embedding)
        blocks.setdefault(network, [])

    def reads_time(module: Any, inputs: Any) -> None:
        if len(inputs) > 1 and id(inputs[1]) in embeddings and module.time_emb_proj is not None:
            blocks[embeddings[id(inputs[1])][0]].append(module)

    hooks = []
    for module in backbone.modules():
        if isinstance(module, Attention):
            hooks.append(module.register_forward_pre_hook(reads_tokens, with_kwargs=True))
        elif isinstance(module, ResnetBlock2D):
            hooks.append(module.register_forward_pre_hook(reads_time))
        elif isinstance(module, UNet2DConditionModel | ControlNetModel):
            hooks.append(module.time_embedding.register_forward_hook(partial(makes_embedding, module)))
    try:
        backbone(c.new_zeros(1, *latent_shape), c.new_zeros(1, dtype=torch.int64), c, mask, e_lv)
    finally:
        for hook in hooks:
            hook.remove()
    return attentions, blocks


def _check_plain(attention: Any) -> None:
    norms = (attention.group_norm, attention.spatial_norm, attention.norm_q, attention.norm_k)
    scaled = attention.residual_connection or attention.rescale_output_factor != 1
    if any(norm is not None for norm in norms) or attention.norm_cross or scaled:
        raise SamplerError(
            "The backbone's cross attention has norms or residuals of its own, which sampler.fast does not "
            "know.",
            advice="Bind run.sampler = @sampler.reference.",
        )
