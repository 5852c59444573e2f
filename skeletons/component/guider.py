"""The guider `my_name`: how the predictions with and without the text become one."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from stav2a.registry import register
from stav2a.sampling.guiders import EQUATION_7, Branch


@register("guider", "my_name")
@dataclass(frozen=True, kw_only=True)
class MyName:
    """Guidance of eq. 7, of which a share is kept.

    Args:
        share: Share of the difference of both predictions; 1 is eq. 7.

    Shapes:
        2 predictions (B, C, T, F), w () -> (B, C, T, F)

    Example:
        >>> import torch
        >>> null, conditional = torch.zeros(1), torch.ones(1)
        >>> MyName(share=0.5).combine([null, conditional], 3.0).item()
        1.5
    """

    share: float = 1.0

    def branches(self, guidance_scale: float) -> Sequence[Branch]:
        return EQUATION_7.branches(guidance_scale)

    def combine(self, predictions: Sequence[Tensor], guidance_scale: float | Tensor) -> Tensor:
        null, conditional = predictions
        return null + self.share * guidance_scale * (conditional - null)
