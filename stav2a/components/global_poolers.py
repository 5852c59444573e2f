"""Global poolers: a clip's meaning in K tokens for cross attention (sec. II-B2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.registry import register


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
