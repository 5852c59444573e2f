"""The contract between stages and the training loop: a stage's surroundings, and its plan of training."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stav2a.models.stav2a import STAV2A
from stav2a.registry import entry_of
from stav2a.slots import Objective, Trainer
from stav2a.training.corpus import Corpus
from stav2a.utils import distributed
from stav2a.utils.errors import UsageError, check_bounds

Batch = tuple[Tensor, ...]  # of equal first dimension: one row a clip
Inputs = tuple[Any, ...]  # tensors, or lists of captions
History = dict[str, list[tuple[int, float]]]  # (step, value) pairs under each loss's name
Log = Callable[[str, float, int], None]  # takes a loss: its name, its value and the step


@dataclass(frozen=True)
class Group:
    """Modules that share a learning rate."""

    modules: Sequence[nn.Module]
    learning_rate: float

    def parameters(self) -> list[nn.Parameter]:
        return [p for module in self.modules for p in module.parameters() if p.requires_grad]


@dataclass(frozen=True)
class TrainingSpec:
    """A stage's training: its length, its batches, its loss and the modules that it changes.

    A step's whole batch is drawn at once, and alike in every process: row numbers, timesteps, seeds. Each
    process takes its share, in pieces as large as its memory allows, and fetches what the pieces name. So
    neither their number nor the pieces change the result.

    Args:
        name: Name of the stage, for logs.
        steps: Optimizer steps.
        draw: Function of a step's generator that returns that step's batch; cheap, without data of the clips.
        loss: Function of a piece's inputs, on the device, that returns the mean loss of its rows.
        groups: Modules to train, with their learning rates.
        fetch: Function of some rows of a batch that returns the inputs of the loss, without a gradient and
            on any device; by default the rows themselves.
        held_out: The batch of the validation loss, noise included; None keeps the last weights.
        ema_decay: Decay of the running mean of weights; 0 switches it off.
        validations: Number of validations over the whole run; None leaves it to the trainer.
        divisible: Whether the loss is a mean over rows; one that compares them needs the whole batch.
    """

    name: str
    steps: int
    draw: Callable[[torch.Generator], Batch]
    loss: Callable[..., Tensor]
    groups: Sequence[Group]
    fetch: Callable[..., Inputs] = lambda *rows: rows
    held_out: Callable[[], Batch] | None = None
    ema_decay: float = 0.0
    validations: int | None = None
    divisible: bool = True


@dataclass(frozen=True)
class TrainingContext:
    """A stage's surroundings.

    Args:
        model: The assembled model; the stage leaves its result in it.
        corpus: The clips.
        folder: Folder for checkpoints of unfinished training.
        seed: Seed of all randomness in the stage.
        objective: Target of the denoiser, and its noise levels.
        frozen: Blocks that an earlier stage has finished.
        log: Callback for losses.
        trainer: Training loop; see `training.trainer`.
    """

    model: STAV2A
    corpus: Corpus
    folder: Path
    seed: int
    objective: Objective
    frozen: frozenset[str]
    log: Log
    trainer: Trainer

    @property
    def device(self) -> torch.device:
        return distributed.device()

    def fit(self, plan: TrainingSpec) -> History:
        """Train as planned, and return the losses."""
        return self.trainer.fit(plan, self)

    def train_only(self, *slots: str) -> list[nn.Module]:
        """Freeze the model but for these blocks; those that an earlier stage finished stay frozen.

        They are put on the device, which encoders that the corpus does not need are not.
        """
        self.model.requires_grad_(False).eval()
        blocks = [self.model.block(slot).to(self.device) for slot in slots if slot not in self.frozen]
        for block in blocks:
            block.requires_grad_(True).train()
        return blocks


def adapted(work: TrainingContext, factory: Callable[..., Any], blocks: list[nn.Module]) -> list[nn.Module]:
    """Attach an adapter, and return the modules to train: the given ones, and other blocks that it adapts.

    Its initial weights follow from the seed alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(work.seed)  # not the GPUs', which would stay so
        work.model.attach(factory)
    own = [work.model.block(slot).to(work.device) for slot in factory().blocks]
    there = {id(each) for block in blocks for each in block.modules()}
    return blocks + [block for block in own if id(block) not in there]


def generator(seed: int, name: str, step: int) -> torch.Generator:
    """Random generator of one step of one stage: it carries nothing over, so a run resumes at any step."""
    return torch.Generator().manual_seed((seed * 1_000_003 + zlib.crc32(name.encode())) * 1_000_003 + step)


def draw_rows(rows: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Random rows, with replacement: (count,)."""
    return rows[torch.randint(len(rows), (count,), generator=rng)]


def draw_seeds(count: int, rng: torch.Generator) -> Tensor:
    """Random seeds (count,) for `noise`."""
    return torch.randint(2**62, (count,), generator=rng)


def noise(seeds: Tensor, *shape: int) -> Tensor:
    """Standard normal numbers (B, *shape); each row depends on its own seed alone.

    Example:
        >>> both, second = noise(torch.tensor([3, 4]), 2, 16), noise(torch.tensor([4]), 2, 16)
        >>> torch.equal(both[1:], second)
        True
    """
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()]
    return torch.stack(rows)


def on_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Inputs with their tensors on a device; copies to a GPU pass beside its computations."""
    pinned = (x.pin_memory() if _goes_to_gpu(x, device) else x for x in inputs)
    return tuple(x.to(device, non_blocking=True) if isinstance(x, Tensor) else x for x in pinned)


def _goes_to_gpu(value: Any, device: torch.device) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu" and device.type == "cuda"


def pieces(
    batch: Batch, most: int | None, *, process: int = 0, processes: int = 1
) -> Iterator[tuple[Batch, float]]:
    """One process's rows of a batch, piece by piece, each with its part of the whole batch's loss.

    The loss of the whole batch is the mean over the processes of their sums of weighted losses.

    Args:
        batch: The whole batch, of at least as many rows as there are processes.
        most: Largest number of rows of a piece; None for no limit.
        process: Number of the process.
        processes: Number of processes that share the batch.

    Example:
        >>> [rows[0].tolist() for rows, _ in pieces((torch.arange(5),), 2, process=0, processes=2)]
        [[0, 1], [2]]
    """
    total = len(batch[0])
    shares = [tensor.tensor_split(processes)[process] for tensor in batch]
    for rows in zip(*(share.split(most or total) for share in shares), strict=True):
        yield rows, len(rows[0]) * processes / total


def check_training(settings: Any) -> None:
    """Refuse numbers of steps, epochs and clips, and learning rates, that nothing can be trained with.

    Raises:
        UsageError: With the bounds; or steps and epochs are given both, or neither.
    """
    entry = entry_of(type(settings))
    name = entry.selector if entry else type(settings).__name__
    steps, epochs = settings.steps, getattr(settings, "epochs", None)
    if (steps is None) == (epochs is None):
        raise UsageError(
            f"{name}.steps = {steps} and {name}.epochs = {epochs}: expected one of them, the other None.",
            advice=f"For a length in epochs bind {name}.steps = None, for one in steps {name}.epochs = None.",
        )
    least = {"steps": 0, "epochs": 0, "batch_size": 1, "learning_rate": 0}
    least |= {"validation_clips": 1, "validation_times": 1}
    for parameter, bound in least.items():
        if (value := getattr(settings, parameter, None)) is not None:
            check_bounds(f"{name}.{parameter}", value, bound)
