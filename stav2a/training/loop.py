"""One training loop for every stage: its steps, running mean, validation and checkpoints."""

import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from stav2a.training.objective import (
    Batch,
    History,
    Inputs,
    TrainingContext,
    TrainingSpec,
    generator,
    on_device,
    pieces,
)
from stav2a.training.train import log_losses
from stav2a.utils import distributed
from stav2a.utils.checkpoints import save_weights, tensors_hash
from stav2a.utils.errors import StaV2AError, UsageError
from stav2a.utils.files import atomic

if TYPE_CHECKING:
    from stav2a.training.trainer import AccelerateTrainer

logger = logging.getLogger(__name__)

CHECKPOINT_S = 15.0  # time between checkpoints, which is what kill -9 costs at most,
SAVING = 0.02  # where saving takes no more of the time than this
LOG_EVERY = 10

# Largest relative error of a compiled gradient, above the rounding of bfloat16.
TOLERANCE = 0.05
# With layout_optimization (torch 2.13, CPU), the error of the U-Net's gradient was half of it.
OPTIONS: dict[str, Any] = {"layout_optimization": False, "fallback_random": True}


class DivergedError(StaV2AError):
    """A loss that is not finite: the settings make training impossible."""


class NothingToTrainError(StaV2AError):
    """A stage whose blocks are all frozen."""


class BatchSizeError(StaV2AError):
    """A batch that can't be shared by all processes."""


class CompiledGradientError(UsageError):
    """A compiler that makes wrong gradients."""


def unused(
    objective: nn.Module,
    inputs: Inputs,
    parameters: Sequence[Tensor],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> list[Tensor]:
    """Parameters that a loss does not depend on, found by one gradient."""
    buffers = [(buffer, buffer.clone()) for buffer in objective.buffers()]
    found = _gradients(objective, inputs, parameters, autocast)
    _restore(buffers)
    return [p for p, gradient in zip(parameters, found, strict=True) if gradient is None]


def compiled(
    objective: nn.Module,
    inputs: Inputs,
    parameters: Sequence[Tensor],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Any:
    """Compile an objective, and compare its gradient with the eager one on a piece of a batch.

    Raises:
        CompiledGradientError: The gradients differ by more than rounding.
    """
    made = torch.compile(objective, options=OPTIONS)
    buffers = [(buffer, buffer.clone()) for buffer in objective.buffers()]
    expected, found = (_gradient(each, inputs, parameters, autocast) for each in (objective, made))
    _restore(buffers)
    error, size = (found - expected).norm(), expected.norm()
    if not error <= TOLERANCE * size:  # also true of NaN
        raise CompiledGradientError(
            f"The compiled training step's gradient is {float(error / size):.0%} off the eager one's, with "
            f"torch {torch.__version__} on {expected.device.type}: a fault of the compiler. Bind "
            "trainer.accelerate.compiled = False, or trainer.accelerate.memory_format = 'contiguous_format'."
        )
    return made


def _gradients(
    objective: Any, inputs: Inputs, parameters: Sequence[Tensor], autocast: Any
) -> Sequence[Tensor | None]:
    torch.manual_seed(0)
    with autocast():
        loss = objective(*inputs)
    return torch.autograd.grad(loss, parameters, allow_unused=True)


def _gradient(objective: Any, inputs: Inputs, parameters: Sequence[Tensor], autocast: Any) -> Tensor:
    """The whole gradient as one row, zeros where there is none."""
    found = zip(parameters, _gradients(objective, inputs, parameters, autocast), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten().float() for p, g in found])


def _restore(buffers: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Put back buffers such as running statistics."""
    for buffer, before in buffers:
        buffer.copy_(before)


class LossModule(nn.Module):
    """The loss as a module's forward, so that autocast and data parallelism wrap all of it."""

    def __init__(self, trained: nn.ModuleList, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.trained, self.loss = trained, loss

    def forward(self, *inputs: Any) -> Tensor:
        return self.loss(*inputs)


def parameter_groups(plan: TrainingSpec, work: TrainingContext) -> list[dict[str, Any]]:
    """Parameters that a plan trains, in the groups of its optimizer.

    Raises:
        NothingToTrainError: All of it is frozen.
        UsageError: A parameter of the model requires a gradient, and is in no group.
    """
    groups: list[dict[str, Any]] = [
        {"params": group.parameters(), "lr": group.learning_rate} for group in plan.groups
    ]
    known = {id(p) for group in groups for p in group["params"]}
    if not known:
        raise NothingToTrainError(
            f"{plan.name}: nothing to train, since its blocks are frozen or came with their weights. "
            f"Bind stage.{plan.name}.steps = 0, or leave the stage out of run.stages."
        )
    lost = [name for name, p in work.model.named_parameters() if p.requires_grad and id(p) not in known]
    if lost:
        raise UsageError(
            f"{plan.name}: {len(lost)} parameters require a gradient and are in no group of its optimizer, "
            f"first {lost[0]}.",
            advice="Put the blocks that `work.train_only` gives into the plan's groups.",
        )
    return groups


@dataclass
class TrainingState:
    """A stage's progress, which a checkpoint holds beside tensors."""

    step: int = 0
    best_loss: float = math.inf
    history: History = field(default_factory=dict)


class TrainingRun:
    """State of one training run: parameters, optimizer, averaged and best weights, progress."""

    def __init__(self, plan: TrainingSpec, work: TrainingContext, settings: "AccelerateTrainer") -> None:
        self.plan, self.work, self.settings = plan, work, settings
        self.accelerator = _accelerator(settings)
        self.progress = TrainingState()
        self.file = work.folder / f"{plan.name}.safetensors"
        self.saved, self.pause = time.monotonic(), CHECKPOINT_S
        self.trained = nn.ModuleList(module for group in plan.groups for module in group.modules)
        if settings.gradient_checkpointing:
            for part in work.model.modules():
                enable: Any = getattr(part, "enable_gradient_checkpointing", None)
                if enable and getattr(part, "_supports_gradient_checkpointing", True):  # that of diffusers
                    enable()
        self._set_memory_format(settings.memory_format)
        groups = parameter_groups(plan, work)
        self.parameters: list[Tensor] = [p for group in groups for p in group["params"]]
        objective: Any = LossModule(self.trained, plan.loss)
        if torch.distributed.is_initialized():  # data parallelism waits for the gradient of every parameter
            inputs, _ = self._inputs(0)[0]
            for parameter in unused(objective, inputs, self.parameters, self.accelerator.autocast):
                parameter.requires_grad_(False)
        if settings.compiled:
            inputs, _ = self._inputs(0)[0]
            used = [p for p in self.parameters if p.requires_grad]
            objective = compiled(objective, inputs, used, self.accelerator.autocast)
        self.objective = self.accelerator.prepare_model(objective)
        self.optimizer = self.accelerator.prepare_optimizer(settings.optimizer(groups))
        self.ema = [p.detach().clone() for p in self.parameters] if plan.ema_decay else self.parameters
        self.best = self._best_weights()
        self.validate_every = max(1, plan.steps // (plan.validations or settings.validations))
        self.ahead = ThreadPoolExecutor(1, "fetching") if settings.prefetch else None
        self.fetched: Future[list[tuple[Inputs, float]]] | None = None

    def step(self) -> float:
        """Take one optimizer step, log and validate when it is time, and return the loss of the batch."""
        rng = generator(self.work.seed, self.plan.name, self.progress.step)
        # dropout draws from the global generator, and differently in each process
        torch.manual_seed(rng.initial_seed() + self.accelerator.process_index)
        loss = self._backward(self._next_inputs())
        self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        rate = self._rate()
        for group, planned in zip(self.optimizer.param_groups, self.plan.groups, strict=True):
            group["lr"] = planned.learning_rate * rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.plan.ema_decay:
            decay = min(self.plan.ema_decay, (1 + self.progress.step) / (10 + self.progress.step))
            with torch.no_grad():
                torch._foreach_lerp_(self.ema, self.parameters, 1 - decay)
        self.progress.step += 1
        step = self.progress.step
        if not math.isfinite(loss):
            raise DivergedError(
                f"{self.plan.name}: the loss became {loss} at step {step}. Lower its learning rate."
            )
        if step % LOG_EVERY == 0:
            self._log("loss", loss)
        if self.plan.held_out and (step % self.validate_every == 0 or step == self.plan.steps):
            self._validate(self.plan.held_out())
        return loss

    def _rate(self) -> float:
        """Factor of the learning rate: linear warm-up over a tenth of the run, then a cosine down to 0.1."""
        step, warmup = self.progress.step, max(1, self.plan.steps // 10)
        if step < warmup:
            return (step + 1) / warmup
        return 0.55 + 0.45 * math.cos(math.pi * (step - warmup) / max(1, self.plan.steps - warmup))

    def _next_inputs(self) -> list[tuple[Inputs, float]]:
        """The inputs of the present step; a thread fetches those of the next meanwhile, if asked for."""
        step = self.progress.step
        if self.ahead is None:
            return self._inputs(step)
        fetched = self.fetched or self.ahead.submit(self._inputs, step)
        self.fetched = self.ahead.submit(self._inputs, step + 1) if step + 1 < self.plan.steps else None
        return fetched.result()

    @torch.no_grad()
    def _inputs(self, step: int) -> list[tuple[Inputs, float]]:
        """The inputs of this process's pieces of a step's batch, on the device, with their weights."""
        batch = self.plan.draw(generator(self.work.seed, self.plan.name, step))
        return [(self._fetch(rows), weight) for rows, weight in self._share(batch)]

    def _fetch(self, rows: Batch) -> Inputs:
        return on_device(self.plan.fetch(*rows), self.accelerator.device)

    def _backward(self, mine: Sequence[tuple[Inputs, float]]) -> float:
        """The gradient of the whole batch's loss, and the loss; each process computes its share."""
        total = torch.zeros((), device=self.accelerator.device)
        for number, (inputs, weight) in enumerate(mine, start=1):
            last = number == len(mine)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.objective):
                loss = self.objective(*inputs) * weight
                self.accelerator.backward(loss)
            total += loss.detach()
        return self.accelerator.reduce(total, "mean").item()

    def _share(self, batch: Batch) -> list[tuple[Batch, float]]:
        """This process's pieces of a batch."""
        if not self.plan.divisible:
            return list(pieces(batch, None))
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        if len(batch[0]) < processes:
            raise BatchSizeError(
                f"{self.plan.name}: a batch of {len(batch[0])} can't be shared by {processes} processes. "
                f"Bind stage.{self.plan.name}.batch_size = {processes} or more, or start fewer processes."
            )
        most = self.settings.per_device_batch_size
        return list(pieces(batch, most, process=process, processes=processes))

    def _log(self, name: str, value: float) -> None:
        self.progress.history.setdefault(name, []).append((self.progress.step, value))
        self.work.log(f"{self.plan.name}/{name}", value, self.progress.step)

    @torch.no_grad()
    def _validate(self, batch: Batch) -> None:
        """The loss on fixed clips and noise, with the averaged weights; every process computes all of it."""
        own = [p.detach().to("cpu", copy=True) for p in self.parameters] if self.plan.ema_decay else []
        modes = [(module, module.training) for module in self.trained.modules()]
        if own:
            self._use(self.ema)
        self.trained.eval()
        most = self.settings.per_device_batch_size if self.plan.divisible else None
        with self.accelerator.autocast():
            losses = [self.plan.loss(*self._fetch(rows)) * weight for rows, weight in pieces(batch, most)]
        loss = torch.stack(losses).sum().item()
        if loss < self.progress.best_loss:
            self.progress.best_loss, self.best = loss, self._best_weights()
        for module, training in modes:
            module.training = training
        if own:
            self._use(own)
        self._log("validation_loss", loss)

    @torch.no_grad()
    def _use(self, weights: Sequence[Tensor]) -> None:
        """Put weights in place: those of the parameters, or of the parameters and buffers."""
        for tensor, weight in zip((*self.parameters, *self.trained.buffers()), weights, strict=False):
            tensor.copy_(weight)

    def _best_weights(self) -> list[Tensor]:
        """Copies of the present parameters and buffers, outside a GPU's memory; none in other processes."""
        kept = (*self.parameters, *self.trained.buffers()) if self.accelerator.is_main_process else ()
        return [t.detach().to("cpu", copy=True) for t in kept]

    def finish(self) -> None:
        """Leave the best weights, or without validation the averaged ones, in the modules."""
        if self.ahead:
            self.ahead.shutdown()
        self._use(self.ema if self.plan.held_out is None else self.best)
        with torch.no_grad():
            distributed.copy_from_main([*self.parameters, *self.trained.buffers()])
        self.trained.eval()
        self._set_memory_format("contiguous_format")

    def _set_memory_format(self, memory_format: str) -> None:
        for tensor in (*self.trained.parameters(), *self.trained.buffers()):
            if tensor.ndim == 4:  # convolutions over time and picture have another format
                tensor.data = tensor.data.to(memory_format=getattr(torch, memory_format))

    def _tensors(self) -> dict[str, Tensor]:
        """Tensors of a checkpoint beside the optimizer's, by name; they share memory with the live ones."""
        kinds: dict[str, Sequence[Tensor]] = {
            "parameter": self.parameters,
            "buffer": list(self.trained.buffers()),
            "ema": self.ema if self.plan.ema_decay else [],
            "best": self.best,
        }
        return {f"{kind}.{i}": t.detach() for kind, ts in kinds.items() for i, t in enumerate(ts)}

    def save_when_due(self) -> None:
        """Write a checkpoint every CHECKPOINT_S seconds, or less often where one takes long."""
        began, scaler = time.monotonic(), self.accelerator.scaler
        if not self.accelerator.is_main_process or began - self.saved <= self.pause:
            return
        state = dict(_flat({"optimizer": self.optimizer.state_dict()["state"]}))
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        tensors |= self._tensors()
        facts = {
            "progress": vars(self.progress),
            "optimizer": {name: value for name, value in state.items() if name not in tensors},
            "scaler": scaler.state_dict() if scaler else {},
            "sha256": tensors_hash(tensors),
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with atomic(self.file) as temporary:
            save_weights(temporary, tensors, facts=json.dumps(facts))
        self.saved = time.monotonic()
        self.pause = max(CHECKPOINT_S, (self.saved - began) / SAVING)

    @torch.no_grad()
    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one that is whole."""
        if not self.file.exists():
            return
        try:
            facts, saved = self._read()
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s is damaged (%s): the stage is trained from its beginning.", self.file, error)
            return
        scaler = self.accelerator.scaler
        for name, tensor in self._tensors().items():
            tensor.copy_(saved[name])
        kept = {name: tensor for name, tensor in saved.items() if name.startswith("optimizer.")}
        nested = _nested({**kept, **facts["optimizer"]}).get("optimizer", {})
        state = {int(number): known for number, known in nested.items()}
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        if scaler and facts["scaler"]:
            scaler.load_state_dict(facts["scaler"])
        self.progress = TrainingState(**facts["progress"])
        log_losses({self.plan.name: self.progress.history}, self.work.log)

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Facts and tensors of the checkpoint, held against their hash."""
        with safe_open(self.file, framework="pt") as saved:
            facts = json.loads(saved.metadata()["facts"])
            tensors = {name: saved.get_tensor(name) for name in saved.keys()}
        if facts.get("sha256") not in (None, tensors_hash(tensors)):  # an older version kept none
            raise ValueError("its tensors are not what was written")
        return facts, tensors


def _flat(nested: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings, each under its keys joined by dots."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings of the values that `_flat` gives."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *keys, last = name.split(".")
        inside = nested
        for key in keys:
            inside = inside.setdefault(key, {})
        inside[last] = value
    return nested


def _accelerator(settings: "AccelerateTrainer") -> Any:
    from accelerate import Accelerator, DistributedDataParallelKwargs

    ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True)  # every parameter left has a gradient
    distributed.wait()  # joins the group of processes first, as `processes` knows it
    return Accelerator(
        mixed_precision=settings.mixed_precision, cpu=distributed.on_cpu(), kwargs_handlers=[ddp]
    )
