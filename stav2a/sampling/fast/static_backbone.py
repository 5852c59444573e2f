"""A backbone's twin: the same weights, with all work that is the same at every step done once.

What reads the conditions alone is held over all steps: keys and values of cross attention, and the embedding
of the local features. What reads the time alone is looked up: the residual blocks' shares of the time
embedding. The twin's modules are its own, so the backbone stays as it is.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.models.stav2a import Conditions
from stav2a.sampling.fast.scheduler_table import SamplerError

MASKED_SCORE = -10_000.0  # added to the score of a token that does not count, as diffusers does


class StaticBuffer:
    """A tensor that stays in its place: what is held next is written over it while the shape fits."""

    value: Tensor

    def hold(self, value: Tensor) -> None:
        old = getattr(self, "value", None)
        if old is not None and (old.shape, old.dtype) == (value.shape, value.dtype):
            old.copy_(value)
        else:
            self.value = value.clone(memory_format=torch.contiguous_format)


class CachedCrossAttention:
    """A diffusers attention processor whose keys and values are made once for all steps.

    Args:
        attention: A cross attention without norms of its own.
        masked: Whether it looks past the tokens' padding.
    """

    def __init__(self, attention: Any, masked: bool) -> None:
        self.attention, self.masked = attention, masked
        self.key, self.value, self.bias = StaticBuffer(), StaticBuffer(), StaticBuffer()
        attention.set_processor(self)

    def hold(self, c: Tensor, mask: Tensor, length: int) -> None:
        """Tokens c (N, K, D_c) and mask (N, K), to which padding is added up to `length`; nobody hears it."""
        heard = mask if self.masked else torch.ones_like(mask)
        padding = (0, length - c.shape[1])
        bias = MASKED_SCORE * (1 - functional.pad(heard.to(c.dtype), padding))
        self.bias.hold(bias[:, None, None])
        self.key.hold(self._heads(functional.pad(self.attention.to_k(c), (0, 0, *padding))))
        self.value.hold(self._heads(functional.pad(self.attention.to_v(c), (0, 0, *padding))))

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
        """Attend to the tokens of the last clips held, as many as there are."""
        rows = slice(-len(hidden_states), None)
        made = functional.scaled_dot_product_attention(
            self._heads(attn.to_q(hidden_states)),
            self.key.value[rows],
            self.value.value[rows],
            attn_mask=self.bias.value[rows],
        )
        return attn.to_out[0](made.transpose(1, 2).flatten(2))


class CachedModule(nn.Module):
    """In the place of a module that reads the conditions alone.

    Args:
        module: What makes the output.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.made, self.output = (module,), StaticBuffer()  # in a tuple: not a module of the twin any more

    def hold(self, conditions: Tensor) -> None:
        self.output.hold(self.made[0](conditions))

    def forward(self, conditions: Tensor) -> Tensor:
        return self.output.value[-len(conditions) :]


class TimestepTable:
    """The residual blocks' shares of the time embedding: all steps' made at once, one step's shown at a time.

    Args:
        networks: U-Nets and ControlNets, each with the residual blocks that read its time embedding.
    """

    def __init__(self, networks: Iterable[tuple[Any, list[Any]]]) -> None:
        self.row, self.made = StaticBuffer(), []
        start = 0
        for network, blocks in networks:
            self.made.append((network.time_proj, network.time_embedding, _projections(blocks)))
            network.time_proj = network.time_embedding = Identity()
            for block in blocks:
                width = block.time_emb_proj.out_features
                block.time_emb_proj = TimeRow(self.row, start, width)
                start += width

    def hold(self, timesteps: Tensor, dtype: torch.dtype) -> None:
        """Make the shares of all steps, (n,) timesteps."""
        shares = [
            projection(act(time_embedding(time_proj(timesteps).to(dtype))))
            for time_proj, time_embedding, projections in self.made
            for act, projection in projections
        ]
        self.rows = torch.cat(shares, dim=1) if shares else timesteps[:, None].to(dtype)

    def show(self, i: int) -> None:
        """Turn to step i."""
        self.row.hold(self.rows[i : i + 1])


class TimeRow(nn.Module):
    """A residual block's shared_copy of the time embedding, read off the clock's row."""

    def __init__(self, row: StaticBuffer, start: int, width: int) -> None:
        super().__init__()
        self.row, self.share = row, slice(start, start + width)

    def forward(self, temb: Tensor) -> Tensor:
        return self.row.value[:, self.share]


class Identity(nn.Module):
    """In the place of a time embedding that nobody reads any more."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return x


def _projections(blocks: Iterable[Any]) -> list[tuple[Any, Any]]:
    return [(block.nonlinearity, block.time_emb_proj) for block in blocks]


def part_late(network: Any) -> None:
    """Let a U-Net or ControlNet of diffusers take one latent for both branches' tokens."""
    for block in [*network.down_blocks, network.mid_block]:
        if getattr(block, "attentions", None):
            block.attentions[0] = SplitAtFirstCrossAttention(block.attentions[0])
            break
    for i, block in enumerate(getattr(network, "up_blocks", ())):
        network.up_blocks[i] = DuplicateSkips(block)


class SplitAtFirstCrossAttention(nn.Module):
    """In the place of the first transformer that hears the text: doubles the latents where there are two.

    The latents attend to themselves before they hear the text, so that this serves both branches as well.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer
        self.alike = SharedSelfAttention(transformer.transformer_blocks[0].attn1)
        transformer.transformer_blocks[0].attn1 = self.alike

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, **named: Any) -> Any:
        self.alike.rows = len(hidden_states)
        hidden_states = as_many(hidden_states, encoder_hidden_states)
        return self.transformer(hidden_states, encoder_hidden_states=encoder_hidden_states, **named)


class SharedSelfAttention(nn.Module):
    """In the place of a self-attention whose input is the same for both branches: computes one of them."""

    rows: int

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, hidden_states: Tensor, **named: Any) -> Tensor:
        return as_many(self.attention(hidden_states[: self.rows], **named), hidden_states)


class DuplicateSkips(nn.Module):
    """In the place of a block on the way up: doubles the skips that come from before the branches part."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block
        self.resnets, self.has_cross_attention = block.resnets, getattr(block, "has_cross_attention", False)

    def forward(
        self, hidden_states: Tensor, res_hidden_states_tuple: tuple[Tensor, ...], *others: Any, **named: Any
    ) -> Tensor:
        skips = tuple(as_many(skip, hidden_states) for skip in res_hidden_states_tuple)
        return self.block(hidden_states, skips, *others, **named)


def as_many(x: Tensor, others: Tensor) -> Tensor:
    """x, once more for the second branch where the others have twice its rows."""
    return torch.cat([x, x]) if len(others) == 2 * len(x) else x


@dataclass(frozen=True)
class ComputeFormat:
    """How a twin computes.

    Args:
        dtype: Of its weights and activations.
        memory_format: Of its pictures and of its convolutions' weights.
        text_bucket: Tokens are padded to a multiple of this, so that prompts of any length run one graph.
    """

    dtype: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.contiguous_format
    text_bucket: int = 1

    def padded(self, length: int) -> int:
        """The length of so many tokens with their padding."""
        return -(-length // self.text_bucket) * self.text_bucket


class StaticBackbone:
    """The backbone's twin.

    Args:
        backbone: Any backbone of diffusers' blocks.
        latent_shape: (C, T, F).
        conditions: Of any clip; shows who reads the tokens, and who looks past their padding.
        form: How it computes.

    Raises:
        SamplerError: The backbone reads the tokens in a way that is not known here.
    """

    def __init__(
        self,
        backbone: nn.Module,
        latent_shape: tuple[int, int, int],
        conditions: Conditions,
        form: ComputeFormat,
    ) -> None:
        self.form, self.bins = form, latent_shape[2]
        self.backbone: Any = shared_copy(backbone, form)
        seen = find_readers(self.backbone, latent_shape, self._cast(conditions))
        self.attentions = [
            CachedCrossAttention(attention, masked) for attention, masked in seen.attentions.items()
        ]
        self.clock = TimestepTable(seen.networks())
        self.local = _held_local(self.backbone)
        if self.local is not None:  # else e_lv may be read behind the place where the branches part
            part_late(self.backbone.controlnet)
            part_late(self.backbone.unet)
        self.t, self.c, self.mask, self.e_lv = StaticBuffer(), StaticBuffer(), StaticBuffer(), StaticBuffer()

    def hold(self, conditions: Conditions, timesteps: Tensor) -> None:
        """Do the constant work of one generation."""
        conditions = self._cast(conditions)
        c, mask, e_lv = conditions.c, conditions.mask, conditions.e_lv
        length = self.form.padded(c.shape[1])
        for attention in self.attentions:
            attention.hold(c, mask, length)
        if self.local is not None:
            self.local.hold(self.backbone.conditioning_image(e_lv, self.bins))
        self.clock.hold(timesteps, self.form.dtype)
        padding = (0, length - c.shape[1])
        self.c.hold(nn.functional.pad(c, (0, 0, *padding)))
        self.mask.hold(nn.functional.pad(mask, padding))
        self.e_lv.hold(e_lv)
        self.timesteps = timesteps

    def show(self, i: int) -> None:
        """Turn to step i."""
        self.clock.show(i)
        self.t.hold(self.timesteps[i : i + 1])

    def inputs(self, z_t: Tensor, *, guided: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Latents (B, C, T, F) -> what the backbone takes, to predict both branches or one."""
        z_t = z_t.to(self.form.dtype, memory_format=self.form.memory_format)
        tokens = slice(-len(z_t) * (2 if guided else 1), None)
        if guided and self.local is None:
            z_t = torch.cat([z_t, z_t])
        rows = slice(-len(z_t), None)
        t = self.t.value.expand(len(z_t))
        return z_t, t, self.c.value[tokens], self.mask.value[tokens], self.e_lv.value[rows]

    def _cast(self, conditions: Conditions) -> Conditions:
        dtype = self.form.dtype
        return Conditions(conditions.c.to(dtype), conditions.mask, conditions.e_lv.to(dtype))


def shared_copy(module: nn.Module, form: ComputeFormat) -> nn.Module:
    """A copy whose parameters lie where the module's do, unless type or layout differ."""
    known: dict[int, Any] = {
        id(each): nn.Parameter(each.detach(), requires_grad=False) for each in module.parameters()
    }
    made: Any = copy.deepcopy(module, known).eval()
    if form.memory_format is torch.contiguous_format:
        return made.to(form.dtype)
    return made.to(dtype=form.dtype, memory_format=form.memory_format)


@dataclass
class InputReaders:
    """Who reads what.

    Args:
        attentions: Every attention that reads the tokens, and whether it looks past their padding.
        embeddings: Every time embedding that was made: which network's.
        blocks: Every residual block, by the network whose time embedding it reads.
    """

    attentions: dict[Any, bool] = field(default_factory=dict)
    embeddings: dict[int, Any] = field(default_factory=dict)
    blocks: dict[Any, list[Any]] = field(default_factory=dict)

    def networks(self) -> list[tuple[Any, list[Any]]]:
        return list(self.blocks.items())


def find_readers(
    backbone: nn.Module, latent_shape: tuple[int, int, int], conditions: Conditions
) -> InputReaders:
    """Run the backbone on one clip, and see who reads the tokens and the time."""
    seen = InputReaders()
    first = Conditions(conditions.c[:1], conditions.mask[:1], conditions.e_lv[:1])
    z_t, t = first.c.new_zeros(1, *latent_shape), first.c.new_zeros(1, dtype=torch.int64)
    hooks = list(_watch(backbone, first.c, seen))
    try:
        backbone(z_t, t, first.c, first.mask, first.e_lv)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _watch(backbone: nn.Module, c: Tensor, seen: InputReaders) -> Any:
    from diffusers import ControlNetModel, UNet2DConditionModel
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D

    def reads_tokens(module: Any, given: Any, named: Any) -> None:
        if named.get("encoder_hidden_states") is c:
            _check_plain(module)
            seen.attentions[module] = named.get("attention_mask") is not None

    def made_embedding(network: Any) -> Callable[..., None]:
        def made(module: Any, given: Any, embedding: Tensor) -> None:
            seen.embeddings[id(embedding)] = (network, embedding)  # kept, so that its id stays its own
            seen.blocks.setdefault(network, [])

        return made

    def reads_time(module: Any, given: Any) -> None:
        network, _ = seen.embeddings.get(id(given[1]), (None, None)) if len(given) > 1 else (None, None)
        if network is not None and module.time_emb_proj is not None:
            seen.blocks[network].append(module)

    for module in backbone.modules():
        if isinstance(module, Attention):
            yield module.register_forward_pre_hook(reads_tokens, with_kwargs=True)
        elif isinstance(module, ResnetBlock2D):
            yield module.register_forward_pre_hook(reads_time)
        elif isinstance(module, UNet2DConditionModel | ControlNetModel):
            yield module.time_embedding.register_forward_hook(made_embedding(module))


def _check_plain(attention: Any) -> None:
    norms = (attention.group_norm, attention.spatial_norm, attention.norm_q, attention.norm_k)
    scaled = attention.residual_connection or attention.rescale_output_factor != 1
    if any(norm is not None for norm in norms) or attention.norm_cross or scaled:
        raise SamplerError(
            "The backbone's cross attention has norms or residuals of its own, which sampler.fast does not "
            "know. Bind run.sampler = @sampler.reference."
        )


def _held_local(backbone: Any) -> CachedModule | None:
    """Hold the embedding of the local features, where the backbone has a stock ControlNet's."""
    controlnet = getattr(backbone, "controlnet", None)
    if controlnet is None or controlnet.controlnet_cond_embedding is None:
        return None
    controlnet.controlnet_cond_embedding = CachedModule(controlnet.controlnet_cond_embedding)
    return controlnet.controlnet_cond_embedding
