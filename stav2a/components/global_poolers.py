"""Global poolers: semantics of a clip in K tokens for cross attention (sec. II-B2)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.registry import RegistryError, register, selector_of
from stav2a.utils.checkpoints import load_weights
from stav2a.utils.errors import check_bounds


@register("global_pooler", "none")
class NoPooler(nn.Module):
    """No global condition: zero tokens, so that concatenation needs no branch.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        cond_dim: Width of the text tokens, D_c. Wired.

    Shapes:
        e_v (B, L, D_v) -> (B, 0, D_c)
    """

    def __init__(self, in_dim: int, cond_dim: int) -> None:
        super().__init__()
        self.cond_dim = cond_dim

    def forward(self, e_v: Tensor) -> Tensor:
        return e_v.new_zeros(e_v.shape[0], 0, self.cond_dim)


@register("global_pooler", "attentive")
class AttentivePooler(nn.Module):
    """Pool the video features by learned attention into K tokens (sec. II-B2, eq. 2-4).

    Args:
        in_dim: Width of the video features, D_v. Wired.
        cond_dim: Width of the text tokens, D_c. Wired.
        tokens: Number of tokens, K.
        dropout: Dropout probability of the hidden layer of the local potential.

    Shapes:
        e_v (B, L, D_v) -> e_gv (B, K, D_c)

    Example:
        >>> AttentivePooler(in_dim=8, cond_dim=6, tokens=4)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 4, 6])
    """

    def __init__(self, in_dim: int, cond_dim: int, *, tokens: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.project = _project(in_dim, cond_dim)
        self.unary = nn.Linear(cond_dim, cond_dim)  # V_l
        self.unary_score = nn.Linear(cond_dim, 1)  # v_l
        self.embed_u = nn.Linear(cond_dim, cond_dim)  # W_1
        self.embed_i = nn.Linear(cond_dim, cond_dim)  # W_2
        self.mix = nn.Linear(2, 1, bias=False)  # alpha_l, alpha_c
        self.dropout = nn.Dropout(dropout)
        self.expand = _expand(tokens)

    def forward(self, e_v: Tensor) -> Tensor:
        e = self.project(e_v)  # (B, L, D_c)
        pooled = torch.einsum("bl,bld->bd", self.attention(e), e)  # eq. 2
        return self.expand(pooled.unsqueeze(1))

    def attention(self, e: Tensor) -> Tensor:
        """Weights p(u) over the frames: e (B, L, D_c) -> (B, L), summing to 1 (eq. 3)."""
        local = self.unary_score(self.dropout(functional.relu(self.unary(e))))  # theta_l (B, L, 1)
        u = functional.normalize(self.embed_u(e), dim=-1)
        i = functional.normalize(self.embed_i(e), dim=-1)
        cross = (u @ i.transpose(1, 2)).sum(dim=-1, keepdim=True)  # theta_c, eq. 4
        return self.mix(torch.cat([local, cross], dim=-1)).squeeze(-1).softmax(dim=-1)


@register("global_pooler", "factor_graph")
class FactorGraphPooler(nn.Module):
    """The attentive pooler as released: the cross potential is a mean over the frames, not eq. 4's sum.

    The release applies dropout at inference too, by mistake; here dropout is for training only.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        cond_dim: Width of the text tokens, D_c. Wired.
        tokens: Number of tokens, K.
        dropout: Dropout probability of the hidden layer of the local potential.
        checkpoint: Folder of weights to start from; None trains from scratch.

    Shapes:
        e_v (B, L, D_v) -> e_gv (B, K, D_c)

    Example:
        >>> FactorGraphPooler(in_dim=8, cond_dim=6, tokens=4)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 4, 6])
    """

    def __init__(
        self,
        in_dim: int,
        cond_dim: int,
        *,
        tokens: int = 4,
        dropout: float = 0.5,
        checkpoint: str | None = None,
    ) -> None:
        super().__init__()
        self.fc = _project(in_dim, cond_dim)
        self.embed = nn.Conv1d(cond_dim, cond_dim, kernel_size=1)
        self.feature_reduce = nn.Conv1d(cond_dim, 1, kernel_size=1)
        self.embed_x = nn.Conv1d(cond_dim, cond_dim, kernel_size=1)
        self.embed_y = nn.Conv1d(cond_dim, cond_dim, kernel_size=1)
        self.reduce_potentials = nn.Conv1d(2, 1, kernel_size=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.conv = _expand(tokens)
        load_weights(self, checkpoint, parameter="global_pooler.factor_graph.checkpoint")

    def forward(self, e_v: Tensor) -> Tensor:
        e = self.fc(e_v).transpose(1, 2)  # (B, D_c, L)
        pooled = torch.einsum("bl,bdl->bd", self.attention(e), e)  # eq. 2
        return self.conv(pooled.unsqueeze(1))

    def attention(self, e: Tensor) -> Tensor:
        """Weights over the frames: e (B, D_c, L) -> (B, L), summing to 1 (eq. 3)."""
        local = self.feature_reduce(self.dropout(functional.relu(self.embed(e))))  # (B, 1, L)
        x = functional.normalize(self.embed_x(e), dim=1)
        y = functional.normalize(self.embed_y(e), dim=1)
        cross = (x.transpose(1, 2) @ y).mean(dim=2).unsqueeze(1)  # eq. 4 has the sum
        return self.reduce_potentials(torch.cat([local, cross], dim=1)).squeeze(1).softmax(dim=-1)


@register("global_pooler", "mean")
class MeanPooler(nn.Module):
    """Mean over the frames, expanded to K tokens as in the attentive pooler.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        cond_dim: Width of the text tokens, D_c. Wired.
        tokens: Number of tokens, K.

    Shapes:
        e_v (B, L, D_v) -> e_gv (B, K, D_c)
    """

    def __init__(self, in_dim: int, cond_dim: int, *, tokens: int = 4) -> None:
        super().__init__()
        self.project, self.expand = _project(in_dim, cond_dim), _expand(tokens)

    def forward(self, e_v: Tensor) -> Tensor:
        return self.expand(self.pool(self.project(e_v)).unsqueeze(1))

    def pool(self, e: Tensor) -> Tensor:
        """e (B, L, D_c) -> (B, D_c)."""
        return e.mean(dim=1)


@register("global_pooler", "max")
class MaxPooler(MeanPooler):
    """Maximum over the frames of each channel, expanded to K tokens as in the attentive pooler.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        cond_dim: Width of the text tokens, D_c. Wired.
        tokens: Number of tokens, K.

    Shapes:
        e_v (B, L, D_v) -> e_gv (B, K, D_c)
    """

    def pool(self, e: Tensor) -> Tensor:
        return e.amax(dim=1)


@register("global_pooler", "frames")
class FrameTokens(nn.Module):
    """Every frame a token with its position: Diff-Foley (Luo et al. 2023), VTA-LDM (Xu et al. 2024).

    Diff-Foley learns its positions. These are sinusoids of the frame's number: there is no longest clip.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        cond_dim: Width of the text tokens, D_c. Wired.

    Shapes:
        e_v (B, L, D_v) -> e_gv (B, L, D_c)

    Example:
        >>> FrameTokens(in_dim=8, cond_dim=6)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 6])
    """

    def __init__(self, in_dim: int, cond_dim: int) -> None:
        super().__init__()
        self.project = _project(in_dim, cond_dim)

    def forward(self, e_v: Tensor) -> Tensor:
        e = self.project(e_v)
        return e + positions(e.shape[1], e.shape[2]).to(e)


def positions(length: int, dim: int) -> Tensor:
    """Sines and cosines of the number of a frame, at geometric wavelengths: (length, dim)."""
    frequencies = 10_000 ** (-torch.arange(0, dim, 2) / dim)
    angles = torch.outer(torch.arange(length), frequencies)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :dim]


class PerceiverLayer(nn.Module):
    """Cross attention from queries (B, K, D) to frames (B, L, D), followed by an MLP."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm_queries, self.norm_frames = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.network = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )

    def forward(self, queries: Tensor, frames: Tensor) -> Tensor:
        frames = self.norm_frames(frames)
        queries = queries + self.attention(self.norm_queries(queries), frames, frames, need_weights=False)[0]
        return queries + self.network(queries)


@register("global_pooler", "perceiver")
class PerceiverPooler(nn.Module):
    """Cross attention from K learned queries to the frames, layer by layer (Jaegle et al. 2021).

    Args:
        in_dim: Width of the video features, D_v. Wired.
        cond_dim: Width of the text tokens, D_c. Wired.
        tokens: Number of tokens, K.
        layers: Number of layers of cross attention and MLP.
        heads: Number of attention heads; a divisor of the width of the tokens.

    Shapes:
        e_v (B, L, D_v) -> e_gv (B, K, D_c)

    Example:
        >>> PerceiverPooler(in_dim=8, cond_dim=6, tokens=4, heads=2)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 4, 6])
    """

    layer: type[PerceiverLayer] = PerceiverLayer

    def __init__(
        self, in_dim: int, cond_dim: int, *, tokens: int = 4, layers: int = 2, heads: int = 8
    ) -> None:
        super().__init__()
        selector = selector_of("global_pooler", type(self))
        for name, size in (("tokens", tokens), ("layers", layers), ("heads", heads)):
            check_bounds(f"{selector}.{name}", size, 1)
        if cond_dim % heads:
            raise RegistryError(
                f"{selector}.heads = {heads} does not divide {cond_dim}, the tokens' width.",
                advice=f"Bind {selector}.heads = {max(n for n in range(1, heads) if cond_dim % n == 0)}.",
            )
        self.project = _project(in_dim, cond_dim)
        self.queries = nn.Parameter(torch.randn(tokens, cond_dim))
        self.layers = nn.ModuleList(self.layer(cond_dim, heads) for _ in range(layers))

    def forward(self, e_v: Tensor) -> Tensor:
        e, e_gv = self.project(e_v), self.queries.expand(e_v.shape[0], -1, -1)
        for layer in self.layers:
            e_gv = layer(e_gv, e)
        return e_gv


class QFormerLayer(PerceiverLayer):
    """Attention of queries (B, K, D) to each other, then to frames (B, L, D), followed by an MLP."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.norm_self = nn.LayerNorm(dim)
        self.self_attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, queries: Tensor, frames: Tensor) -> Tensor:
        x = self.norm_self(queries)
        return super().forward(queries + self.self_attention(x, x, x, need_weights=False)[0], frames)


@register("global_pooler", "qformer")
class QFormerPooler(PerceiverPooler):
    """K learned queries that attend to each other and to the frames (Q-Former of BLIP-2, Li et al. 2023).

    BLIP-2 has 12 layers that start from BERT, with cross attention in every second one; here every layer has
    it, and none is pretrained.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        cond_dim: Width of the text tokens, D_c. Wired.
        tokens: Number of tokens, K.
        layers: Number of layers of self attention, cross attention and MLP.
        heads: Number of attention heads; a divisor of the width of the tokens.

    Shapes:
        e_v (B, L, D_v) -> e_gv (B, K, D_c)

    Example:
        >>> QFormerPooler(in_dim=8, cond_dim=6, tokens=4, heads=2)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 4, 6])
    """

    layer = QFormerLayer


def _project(in_dim: int, cond_dim: int) -> Any:
    layer = nn.Linear(in_dim, cond_dim)
    nn.init.normal_(layer.weight)  # maps features of unit length to unit variance
    return layer


def _expand(tokens: int) -> Any:
    layer = nn.Conv1d(1, tokens, kernel_size=3, padding=1)
    nn.init.normal_(layer.weight, std=3**-0.5)
    return layer
