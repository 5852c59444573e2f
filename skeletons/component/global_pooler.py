"""The global pooler `my_name`: the meaning of a clip in a few tokens."""

from torch import Tensor, nn
from torch.nn import functional

from stav2a.registry import register


@register("global_pooler", "my_name")
class MyName(nn.Module):
    """Means of equal parts of the clip, a token each.

    Args:
        in_dim: Width of the video features, D_v. Wired.
        cond_dim: Width of the text tokens, D_c. Wired.
        tokens: Number of tokens, K.

    Shapes:
        e_v (B, L, D_v) -> e_gv (B, K, D_c)

    Example:
        >>> import torch
        >>> MyName(in_dim=8, cond_dim=6, tokens=3)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 3, 6])
    """

    # The assembly supplies the wired arguments; a recipe sets those after the star, by name.
    def __init__(self, in_dim: int, cond_dim: int, *, tokens: int = 4) -> None:
        super().__init__()
        self.tokens = tokens
        self.project = nn.Linear(in_dim, cond_dim)
        nn.init.normal_(self.project.weight)  # features have unit length: see docs/components.md, Rules

    def forward(self, e_v: Tensor) -> Tensor:
        parts = functional.adaptive_avg_pool1d(e_v.transpose(1, 2), self.tokens)  # (B, D_v, K)
        return self.project(parts.transpose(1, 2))
