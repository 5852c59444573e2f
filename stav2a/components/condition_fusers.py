"""Condition fusers: text tokens and video tokens become the keys and values of cross attention."""

import torch
from torch import Tensor, nn

from stav2a.registry import register


@register("condition_fuser", "concat")
class Concat(nn.Module):
    """The text's tokens, then the video's (sec. II-C2, eq. 5). Video tokens are never masked.

    Shapes:
        e_text (B, K0, D_c), mask (B, K0), e_gv (B, K, D_c) -> c (B, K0+K, D_c), mask (B, K0+K)

    Example:
        >>> c, mask = Concat()(torch.zeros(1, 3, 8), torch.zeros(1, 3, dtype=torch.bool), torch.ones(1, 2, 8))
        >>> c.shape, mask.tolist()
        (torch.Size([1, 5, 8]), [[False, False, False, True, True]])
    """

    def forward(self, e_text: Tensor, mask: Tensor, e_gv: Tensor) -> tuple[Tensor, Tensor]:
        kept = mask.new_ones(e_gv.shape[:2])
        return torch.cat([e_text, e_gv], dim=1), torch.cat([mask, kept], dim=1)


@register("condition_fuser", "sum")
class Sum(nn.Module):
    """Every text token that counts, plus the sum of the video's: as many tokens as the text has.

    Shapes:
        e_text (B, K0, D_c), mask (B, K0), e_gv (B, K, D_c) -> c (B, K0, D_c), mask (B, K0)

    Example:
        >>> c, mask = Sum()(torch.zeros(1, 2, 1), torch.tensor([[True, False]]), torch.ones(1, 4, 1))
        >>> c.flatten().tolist(), mask.tolist()
        ([4.0, 0.0], [[True, False]])
    """

    def forward(self, e_text: Tensor, mask: Tensor, e_gv: Tensor) -> tuple[Tensor, Tensor]:
        return e_text + mask.unsqueeze(-1) * e_gv.sum(dim=1, keepdim=True), mask
