"""What a stage asks of the training loop: which clips to draw, their loss, and which modules to train."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, ...]  # of equal first dimension: one row a clip


@dataclass(frozen=True)
class Group:
    """Modules that share a learning rate."""

    modules: Sequence[nn.Module]
    learning_rate: float

    def parameters(self) -> list[nn.Parameter]:
        return [p for module in self.modules for p in module.parameters() if p.requires_grad]


@dataclass(frozen=True)
class TrainingSpec:
    """How long and how to train.

    A step's whole batch is drawn at once, and alike in every process; then each process takes its share, in
    pieces as large as its memory allows. So neither their number nor the pieces change what is learnt.

    Args:
        name: Of the stage, for logs.
        steps: Optimizer steps.
        draw: Called with a step's generator, returns that step's batch. Nothing in it needs a gradient.
        loss: Of some rows of a batch, their mean; called with the batch's tensors.
        groups: What is trained, and at which rates.
        held_out: The batch of the validation loss, noise included; None keeps the last weights.
        ema_decay: Of the running mean of weights; 0 switches it off.
        validations: How often to validate over the whole run; None leaves it to the trainer.
        divisible: Whether the loss is a mean over rows; one that compares them needs the whole batch.
    """

    name: str
    steps: int
    draw: Callable[[torch.Generator], Batch]
    loss: Callable[..., Tensor]
    groups: Sequence[Group]
    held_out: Callable[[], Batch] | None = None
    ema_decay: float = 0.0
    validations: int | None = None
    divisible: bool = True

    def modules(self) -> list[nn.Module]:
        return [module for group in self.groups for module in group.modules]


@dataclass(frozen=True)
class Piece:
    """Some rows of a batch, and their part of its loss."""

    rows: Batch
    weight: float


def pieces(batch: Batch, most: int | None, *, process: int = 0, processes: int = 1) -> Iterator[Piece]:
    """What one process computes of a batch, piece by piece.

    Args:
        batch: The whole batch, of at least as many rows as there are processes.
        most: Rows of a piece; None for no limit.
        process: Number of the process.
        processes: How many share the batch. The mean of what they compute is the loss of the whole batch.

    Example:
        >>> [piece.rows[0].tolist() for piece in pieces((torch.arange(5),), 2, process=0, processes=2)]
        [[0, 1], [2]]
    """
    total = len(batch[0])
    shares = [tensor.tensor_split(processes)[process] for tensor in batch]
    for rows in zip(*(share.split(most or total) for share in shares), strict=True):
        yield Piece(rows, len(rows[0]) * processes / total)
