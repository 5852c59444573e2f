"""A stage's loss as a compiled graph, held against the loss that it was compiled from."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from stav2a.errors import UsageError
from stav2a.training.objective import Batch

FAR = 0.05  # more than bfloat16 rounds
# Laid out anew by the compiler (torch 2.13, CPU), the U-Net's gradient came out wrong by half.
OPTIONS: dict[str, Any] = {"layout_optimization": False, "fallback_random": True}


class CompiledGradientError(UsageError):
    """A compiler that makes wrong gradients."""


def compiled(
    objective: nn.Module,
    rows: Batch,
    parameters: Sequence[Tensor],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Any:
    """Compile an objective, and compare its gradient with the eager one on some rows.

    Args:
        objective: A loss as a module.
        rows: What it is compared on.
        parameters: By which the gradient is taken.
        autocast: Gives the context in which both are computed.

    Raises:
        CompiledGradientError: The gradients differ by more than rounding.
    """
    made = torch.compile(objective, options=OPTIONS)
    buffers = [(buffer, buffer.clone()) for buffer in objective.buffers()]
    expected, found = (_gradient(each, rows, parameters, autocast) for each in (objective, made))
    for buffer, before in buffers:  # running statistics, for one
        buffer.copy_(before)
    error, size = (found - expected).norm(), expected.norm()
    if not error <= FAR * size:  # nor where it is no number
        raise CompiledGradientError(
            f"The compiled training step's gradient is {float(error / size):.0%} off the eager one's, with "
            f"torch {torch.__version__} on {expected.device.type}: a fault of the compiler. Bind "
            "trainer.accelerate.compiled = False, or trainer.accelerate.memory_format = 'contiguous_format'."
        )
    return made


def _gradient(objective: Any, rows: Batch, parameters: Sequence[Tensor], autocast: Any) -> Tensor:
    torch.manual_seed(0)
    with autocast():
        loss = objective(*rows)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    known = (torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True))
    return torch.cat([g.flatten().float() for g in known])
