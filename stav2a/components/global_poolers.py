"""Global poolers: a clip's meaning in K tokens for cross attention (sec. II-B2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.registry import RegistryError, register
from stav2a.utils.checkpoints import load_weights


@register("global_pooler", "none")
class NoPooler(nn.Module):
    """No global condition: zero tokens, so that joining needs no branch.

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
    """Pool the video features by learnt attention into K tokens (sec. II-B2, eq. 2-4).

    Args:
        in_dim: Width of the video features, D_v. Wired.
        cond_dim: Width of the text tokens, D_c. Wired.
        tokens: How many tokens to return, K.
        dropout: Of the local potential's hidden layer, in training alone.

    Shapes:
        e_v (B, L, D_v) -> e_gv (B, K, D_c)

    Example:
        >>> AttentivePooler(in_dim=8, cond_dim=6, tokens=4)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 4, 6])
    """

    def __init__(self, in_dim: int, cond_dim: int, *, tokens: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.project = nn.Linear(in_dim, cond_dim)
        nn.init.normal_(self.project.weight)  # features of unit length come out with unit variance
        self.unary = nn.Linear(cond_dim, cond_dim)  # V_l
        self.unary_score = nn.Linear(cond_dim, 1)  # v_l
        self.embed_u = nn.Linear(cond_dim, cond_dim)  # W_1
        self.embed_i = nn.Linear(cond_dim, cond_dim)  # W_2
        self.mix = nn.Linear(2, 1, bias=False)  # alpha_l, alpha_c
        self.dropout = nn.Dropout(dropout)
        self.expand = nn.Conv1d(1, tokens, kernel_size=3, padding=1)
        nn.init.normal_(self.expand.weight, std=3**-0.5)

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

    The release drops out at inference too, by mistake; here dropout works in training alone.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        cond_dim: Width of the text tokens, D_c. Wired.
        tokens: How many tokens to return, K.
        dropout: Of the local potential's hidden layer, in training alone.
        checkpoint: Folder of weights to start from; None trains from nothing.

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
        self.fc = nn.Linear(in_dim, cond_dim)
        nn.init.normal_(self.fc.weight)  # features of unit length come out with unit variance
        self.embed = nn.Conv1d(cond_dim, cond_dim, kernel_size=1)
        self.feature_reduce = nn.Conv1d(cond_dim, 1, kernel_size=1)
        self.embed_x = nn.Conv1d(cond_dim, cond_dim, kernel_size=1)
        self.embed_y = nn.Conv1d(cond_dim, cond_dim, kernel_size=1)
        self.reduce_potentials = nn.Conv1d(2, 1, kernel_size=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv1d(1, tokens, kernel_size=3, padding=1)
        nn.init.normal_(self.conv.weight, std=3**-0.5)
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
    """The mean over the frames, widened to K tokens as the attentive pooler does it.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        cond_dim: Width of the text tokens, D_c. Wired.
        tokens: How many tokens to return, K.

    Shapes:
        e_v (B, L, D_v) -> e_gv (B, K, D_c)

    Example:
        >>> MeanPooler(in_dim=8, cond_dim=6, tokens=4)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 4, 6])
    """

    def __init__(self, in_dim: int, cond_dim: int, *, tokens: int = 4) -> None:
        super().__init__()
        self.project = nn.Linear(in_dim, cond_dim)
        nn.init.normal_(self.project.weight)  # features of unit length come out with unit variance
        self.expand = nn.Conv1d(1, tokens, kernel_size=3, padding=1)
        nn.init.normal_(self.expand.weight, std=3**-0.5)

    def forward(self, e_v: Tensor) -> Tensor:
        return self.expand(self.pool(self.project(e_v)).unsqueeze(1))

    def pool(self, e: Tensor) -> Tensor:
        """e (B, L, D_c) -> (B, D_c)."""
        return e.mean(dim=1)


@register("global_pooler", "max")
class MaxPooler(MeanPooler):
    """The maximum over the frames of each channel, widened to K tokens as the attentive pooler does it.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        cond_dim: Width of the text tokens, D_c. Wired.
        tokens: How many tokens to return, K.

    Shapes:
        e_v (B, L, D_v) -> e_gv (B, K, D_c)
    """

    def pool(self, e: Tensor) -> Tensor:
        return e.amax(dim=1)


@register("global_pooler", "perceiver")
class PerceiverPooler(nn.Module):
    """K learnt queries that read the frames by cross attention, layer by layer (Jaegle et al. 2021).

    Args:
        in_dim: Width of the video features, D_v. Wired.
        cond_dim: Width of the text tokens, D_c. Wired.
        tokens: How many tokens to return, K.
        layers: Of cross attention and a small network.
        heads: Attention heads; the tokens' width must be a multiple.

    Shapes:
        e_v (B, L, D_v) -> e_gv (B, K, D_c)

    Example:
        >>> PerceiverPooler(in_dim=8, cond_dim=6, tokens=4, heads=2)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 4, 6])
    """

    def __init__(
        self, in_dim: int, cond_dim: int, *, tokens: int = 4, layers: int = 2, heads: int = 8
    ) -> None:
        super().__init__()
        if cond_dim % heads:
            raise RegistryError(
                f"global_pooler.perceiver.heads = {heads} does not divide {cond_dim}, the tokens' width. "
                "Give a divisor of it."
            )
        self.project = nn.Linear(in_dim, cond_dim)
        nn.init.normal_(self.project.weight)  # features of unit length come out with unit variance
        self.queries = nn.Parameter(torch.randn(tokens, cond_dim))
        self.layers = nn.ModuleList(PerceiverLayer(cond_dim, heads) for _ in range(layers))

    def forward(self, e_v: Tensor) -> Tensor:
        e, e_gv = self.project(e_v), self.queries.expand(e_v.shape[0], -1, -1)
        for layer in self.layers:
            e_gv = layer(e_gv, e)
        return e_gv


class PerceiverLayer(nn.Module):
    """Queries (B, K, D) read the frames (B, L, D), then think each for itself."""

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
