"""A backbone's twin: the same weights, with all work that is the same at every step done once.

What reads the conditions alone is held over all steps: keys and values of cross attention, and the embedding
of the local features. What reads the time alone is looked up: the residual blocks' shares of the time
embedding. The twin's modules are its own, so the backbone stays as it is.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stav2a.assembly import Conditions
from stav2a.sampling.held import Clock, HeldOutput, HeldTokens, Static
from stav2a.sampling.parting import part_late
from stav2a.sampling.tables import SamplerError


@dataclass(frozen=True)
class Form:
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


class Twin:
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
        self, backbone: nn.Module, latent_shape: tuple[int, int, int], conditions: Conditions, form: Form
    ) -> None:
        self.form, self.bins = form, latent_shape[2]
        self.backbone: Any = share(backbone, form)
        seen = look(self.backbone, latent_shape, self._cast(conditions))
        self.attentions = [HeldTokens(attention, masked) for attention, masked in seen.attentions.items()]
        self.clock = Clock(seen.networks())
        self.local = _held_local(self.backbone)
        if self.local is not None:  # else e_lv may be read behind the place where the branches part
            part_late(self.backbone.controlnet)
            part_late(self.backbone.unet)
        self.t, self.c, self.mask, self.e_lv = Static(), Static(), Static(), Static()

    def hold(self, conditions: Conditions, timesteps: Tensor) -> None:
        """Do the constant work of one generation."""
        conditions = self._cast(conditions)
        c, mask, e_lv = conditions.c, conditions.mask, conditions.e_lv
        length = self.form.padded(c.shape[1])
        for attention in self.attentions:
            attention.hold(c, mask, length)
        if self.local is not None:
            self.local.hold(self.backbone.picture(e_lv, self.bins))
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


def share(module: nn.Module, form: Form) -> nn.Module:
    """A copy whose parameters lie where the module's do, unless type or layout differ."""
    known: dict[int, Any] = {
        id(each): nn.Parameter(each.detach(), requires_grad=False) for each in module.parameters()
    }
    made: Any = copy.deepcopy(module, known).eval()
    if form.memory_format is torch.contiguous_format:
        return made.to(form.dtype)
    return made.to(dtype=form.dtype, memory_format=form.memory_format)


@dataclass
class Seen:
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


def look(backbone: nn.Module, latent_shape: tuple[int, int, int], conditions: Conditions) -> Seen:
    """Run the backbone on one clip, and see who reads the tokens and the time."""
    seen = Seen()
    first = Conditions(conditions.c[:1], conditions.mask[:1], conditions.e_lv[:1])
    z_t, t = first.c.new_zeros(1, *latent_shape), first.c.new_zeros(1, dtype=torch.int64)
    hooks = list(_watch(backbone, first.c, seen))
    try:
        backbone(z_t, t, first.c, first.mask, first.e_lv)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _watch(backbone: nn.Module, c: Tensor, seen: Seen) -> Any:
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


def _held_local(backbone: Any) -> HeldOutput | None:
    """Hold the embedding of the local features, where the backbone has a stock ControlNet's."""
    controlnet = getattr(backbone, "controlnet", None)
    if controlnet is None or controlnet.controlnet_cond_embedding is None:
        return None
    controlnet.controlnet_cond_embedding = HeldOutput(controlnet.controlnet_cond_embedding)
    return controlnet.controlnet_cond_embedding
