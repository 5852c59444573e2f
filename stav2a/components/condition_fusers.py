"""Condition fusers: joining text and video tokens for cross attention."""

import torch
from torch import Tensor, nn

from stav2a.registry import register


@register("condition_fuser", "concat")
class Concat(nn.Module):
    """Text tokens followed by video tokens (sec. II-C2, eq. 5). Video tokens are never masked.

    Shapes:
        e_text (B, K0, D_c), mask (B, K0), e_gv (B, K, D_c) -> c (B, K0+K, D_c), mask (B, K0+K)

    Example:
        >>> c, mask = Concat()(torch.zeros(1, 3, 8), torch.zeros(1, 3, dtype=torch.bool), torch.ones(1, 2, 8))
        >>> c.shape, mask.tolist()
        (torch.Size([1, 5, 8]), [[False, False, False, True, True]])
    """

    def forward(self, e_text: Tensor, mask: Tensor, e_gv: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([e_text, e_gv], dim=1), torch.cat([mask, mask.new_ones(e_gv.shape[:2])], dim=1)


@register("condition_fuser", "sum")
class Sum(nn.Module):
    """Sum of the video tokens added to every unmasked text token; the number of tokens stays the text's.

    Shapes:
        e_text (B, K0, D_c), mask (B, K0), e_gv (B, K, D_c) -> c (B, K0, D_c), mask (B, K0)

    Example:
        >>> c, mask = Sum()(torch.zeros(1, 2, 1), torch.tensor([[True, False]]), torch.ones(1, 4, 1))
        >>> c.flatten().tolist(), mask.tolist()
        ([4.0, 0.0], [[True, False]])
    """

    def forward(self, e_text: Tensor, mask: Tensor, e_gv: Tensor) -> tuple[Tensor, Tensor]:
        return e_text + mask.unsqueeze(-1) * e_gv.sum(dim=1, keepdim=True), mask
