"""Optimizers, as recipes choose them."""

from collections.abc import Iterable
from typing import Any

import torch

from stav2a.errors import UsageError
from stav2a.registry import register


@register("optimizer", "adamw")
def adamw(
    params: Iterable[Any], *, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.01
) -> Any:
    """AdamW in one fused pass over all parameters (sec. III-A).

    Args:
        params: Parameter groups, each with its rate. Wired.
        betas: Decay of the running means of the gradient and of its square.
        weight_decay: Decay of the weights, times the rate.
    """
    return torch.optim.AdamW(params, betas=betas, weight_decay=weight_decay, fused=True)


@register("optimizer", "adamw_8bit")
def adamw_8bit(
    params: Iterable[Any], *, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.01
) -> Any:
    """AdamW whose two means take a byte each: 2 bytes a parameter for 8 (bitsandbytes; needs a GPU).

    Args:
        params: Parameter groups, each with its rate. Wired.
        betas: Decay of the running means of the gradient and of its square.
        weight_decay: Decay of the weights, times the rate.

    Raises:
        UsageError: bitsandbytes is not installed.
    """
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise UsageError(
            "optimizer.adamw_8bit needs bitsandbytes, which is not installed: pip install bitsandbytes. "
            "Or bind trainer.accelerate.optimizer = @optimizer.adamw."
        ) from None
    return AdamW8bit(params, betas=betas, weight_decay=weight_decay)
