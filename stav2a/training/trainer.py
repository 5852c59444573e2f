"""Optimizers, and the trainer: the hardware, the precision and the pieces in which stages are trained."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from stav2a.registry import expect, register
from stav2a.training.loop import TrainingRun
from stav2a.training.objective import History, TrainingContext, TrainingSpec
from stav2a.utils.errors import UsageError
from stav2a.utils.progress import progress


@register("optimizer", "adamw")
def adamw(
    params: Iterable[Any], *, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.01
) -> Any:
    """AdamW in one fused pass over all parameters (sec. III-A).

    Args:
        params: Parameter groups, each with its learning rate. Wired.
        betas: Decay of the running means of the gradient and of its square.
        weight_decay: Decay of the weights, times the learning rate.
    """
    return torch.optim.AdamW(params, betas=betas, weight_decay=weight_decay, fused=True)


@register("optimizer", "adamw_8bit")
def adamw_8bit(
    params: Iterable[Any], *, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.01
) -> Any:
    """AdamW whose two means take a byte each: 2 bytes a parameter for 8 (bitsandbytes; needs a GPU).

    Args:
        params: Parameter groups, each with its learning rate. Wired.
        betas: Decay of the running means of the gradient and of its square.
        weight_decay: Decay of the weights, times the learning rate.

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


@register("trainer", "accelerate")
@dataclass(frozen=True, kw_only=True)
class AccelerateTrainer:
    """Train with Hugging Face Accelerate: on the CPU, on one GPU, or data-parallel under `torchrun`.

    `batch_size` of a stage is the whole batch of a step. What the devices can't hold at once is accumulated.

    Args:
        optimizer: `@optimizer.adamw`, or one of the others.
        mixed_precision: Precision of the passes; weights, gradients and optimizer stay in float32.
        memory_format: Memory format of weights and activations with two spatial axes, while training.
        compiled: Let torch.compile make graphs of the loss and its gradient when a stage begins; the
            gradient is compared with the eager one first.
        per_device_batch_size: Clips that a device holds at once; None for its whole share of a batch.
        gradient_checkpointing: Compute activations again in the backward pass instead of keeping them.
        prefetch: Let a thread fetch the next step's clips, with the same result; for GPUs, as on a CPU it
            takes time from the computation.
        max_grad_norm: Norm to which larger gradients are reduced.
        validations: Number of validations of a stage; its best weights are kept.
    """

    optimizer: Callable[..., Any] = adamw
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    memory_format: Literal["contiguous_format", "channels_last"] = "contiguous_format"
    compiled: bool = False
    per_device_batch_size: int | None = None
    gradient_checkpointing: bool = False
    prefetch: bool = False
    max_grad_norm: float = 1.0
    validations: int = 4

    def __post_init__(self) -> None:
        expect("optimizer", self.optimizer)

    def fit(self, plan: TrainingSpec, work: TrainingContext) -> History:
        """Train, leave the best weights in the plan's modules, and return the losses.

        Raises:
            NothingToTrainError: All of it is frozen.
            BatchSizeError: There are fewer clips a step than processes.
            DivergedError: The loss became NaN or infinite.
            CompiledGradientError: A compiled step has another gradient than an eager one.
        """
        run = TrainingRun(plan, work, self)
        run.resume()
        begun, shown = run.progress.step, run.accelerator.is_main_process
        bar = progress(plan.steps, plan.name, "step", initial=begun, leave=False, shown=shown)
        with bar:
            while run.progress.step < plan.steps:
                loss = run.step()
                bar.note(f"loss {loss:.4f}")
                bar.update()
                run.save_when_due()
        run.finish()
        return run.progress.history
