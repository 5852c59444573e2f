"""The condition fuser `my_name`: tokens of text and video for the denoiser's cross attention."""

import torch
from torch import Tensor, nn

from stav2a.registry import register


@register("condition_fuser", "my_name")
class MyName(nn.Module):
    """Text tokens followed by video tokens, each kind with a learned offset.

    Args:
        cond_dim: Width of the tokens, D_c. Wired.

    Shapes:
        e_text (B, K0, D_c), mask (B, K0), e_gv (B, K, D_c) -> c (B, K0+K, D_c), mask (B, K0+K)

    Example:
        >>> text, mask, video = torch.zeros(1, 3, 8), torch.zeros(1, 3, dtype=torch.bool), torch.ones(1, 2, 8)
        >>> c, mask = MyName(cond_dim=8)(text, mask, video)
        >>> c.shape, mask.tolist()
        (torch.Size([1, 5, 8]), [[False, False, False, True, True]])
    """

    def __init__(self, cond_dim: int) -> None:
        super().__init__()
        self.kinds = nn.Parameter(torch.zeros(2, cond_dim))

    def forward(self, e_text: Tensor, mask: Tensor, e_gv: Tensor) -> tuple[Tensor, Tensor]:
        c = torch.cat([e_text + self.kinds[0], e_gv + self.kinds[1]], dim=1)
        return c, torch.cat([mask, mask.new_ones(e_gv.shape[:2])], dim=1)
