"""What Accelerate is told of a stage: its precision, and what data parallelism wraps."""

from typing import Any

from torch import Tensor, nn

from stav2a import processes
from stav2a.training.objective import Plan


class Objective(nn.Module):
    """The loss as a module's forward, so that autocast and data parallelism wrap all of it."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.trained = nn.ModuleList(plan.modules())
        self.loss = plan.loss

    def forward(self, *rows: Tensor) -> Tensor:
        return self.loss(*rows)


def accelerator(settings: Any) -> Any:
    """Accelerate's `Accelerator` for the settings of an `AccelerateTrainer`."""
    from accelerate import Accelerator, DistributedDataParallelKwargs

    # Every step uses the same parameters, though not all: the joint stage has no use for onset logits. A
    # static graph says so at no cost, but can't be accumulated (torch 2.13); then they are sought each time.
    accumulated = settings.per_device_batch_size is not None
    ddp = DistributedDataParallelKwargs(static_graph=not accumulated, find_unused_parameters=accumulated)
    processes.wait()  # joins the group of processes first, as `processes` knows it
    return Accelerator(
        mixed_precision=settings.mixed_precision, cpu=processes.on_cpu(), kwargs_handlers=[ddp]
    )


def checkpoint_gradients(model: nn.Module) -> None:
    """Let all diffusers models in it compute activations again in the backward pass."""
    from diffusers import ModelMixin

    for part in model.modules():
        if isinstance(part, ModelMixin) and part._supports_gradient_checkpointing:
            part.enable_gradient_checkpointing()
