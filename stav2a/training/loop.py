"""One training loop for every stage: its steps, running mean, validation and checkpoints."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from tqdm import tqdm

from stav2a.training.corpus import TrainingContext, generator
from stav2a.training.objective import Batch, TrainingSpec, pieces
from stav2a.utils import distributed
from stav2a.utils.checkpoints import save_weights
from stav2a.utils.errors import StaV2AError, UsageError
from stav2a.utils.files import atomic

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


class Objective(nn.Module):
    """The loss as a module's forward, so that autocast and data parallelism wrap all of it."""

    def __init__(self, plan: TrainingSpec) -> None:
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
    distributed.wait()  # joins the group of processes first, as `processes` knows it
    return Accelerator(
        mixed_precision=settings.mixed_precision, cpu=distributed.on_cpu(), kwargs_handlers=[ddp]
    )


def checkpoint_gradients(model: nn.Module) -> None:
    """Let all diffusers models in it compute activations again in the backward pass."""
    from diffusers import ModelMixin

    for part in model.modules():
        if isinstance(part, ModelMixin) and part._supports_gradient_checkpointing:
            part.enable_gradient_checkpointing()


@dataclass
class TrainingState:
    """How far a stage has come: what a checkpoint holds beside tensors."""

    step: int = 0
    best_loss: float = math.inf
    history: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def note(self, name: str, value: float) -> None:
        self.history.setdefault(name, []).append((self.step, value))


def write_checkpoint(
    file: Path, tensors: Mapping[str, Tensor], optimizer: Any, scaler: Any, progress: TrainingState
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        file: The checkpoint.
        tensors: All that is to be restored in place, by name.
        optimizer: A torch optimizer; what it knows of each parameter is kept.
        scaler: fp16's gradient scaler, or None.
        progress: How far the run has come.
    """
    state = {
        f"optimizer.{number}.{name}": value
        for number, known in optimizer.state_dict()["state"].items()
        for name, value in known.items()
    }
    numbers = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    facts = {
        "progress": vars(progress),
        "optimizer": numbers,
        "scaler": scaler.state_dict() if scaler else {},
    }
    kept = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    with atomic(file) as temporary:
        save_weights(temporary, {**tensors, **kept}, facts=json.dumps(facts))


@torch.no_grad()
def read_checkpoint(file: Path, tensors: Mapping[str, Tensor], optimizer: Any, scaler: Any) -> TrainingState:
    """Put everything back that `write_checkpoint` kept, and return how far the run had come."""
    with safe_open(file, framework="pt") as saved:
        facts = json.loads(saved.metadata()["facts"])
        for name, tensor in tensors.items():
            tensor.copy_(saved.get_tensor(name))
        kept = {name: saved.get_tensor(name) for name in saved.keys() if name.startswith("optimizer.")}
    state: dict[int, dict[str, Any]] = {}
    for full, value in {**kept, **facts["optimizer"]}.items():
        _, number, name = full.split(".", 2)
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    if scaler and facts["scaler"]:
        scaler.load_state_dict(facts["scaler"])
    return TrainingState(**facts["progress"])


CHECKPOINT_S = 15.0  # what kill -9 costs at most,
SAVING = 0.02  # where saving takes no more of the time than this
LOG_EVERY = 10
History = dict[str, list[tuple[int, float]]]


class DivergedError(StaV2AError):
    """A loss that is no number: the settings make training impossible."""


class NothingToTrainError(StaV2AError):
    """A stage whose blocks are all frozen."""


class BatchSizeError(StaV2AError):
    """A batch that can't be shared by all processes."""


def fit(plan: TrainingSpec, work: TrainingContext, settings: Any) -> History:
    """See `AccelerateTrainer.fit`, whose settings these are."""
    run = _Run(plan, work, settings)
    run.resume()
    bar = tqdm(
        total=plan.steps,
        initial=run.progress.step,
        desc=plan.name,
        unit="step",
        leave=False,
        disable=not run.accelerator.is_main_process,
    )
    with bar:
        while run.progress.step < plan.steps:
            loss = run.step()
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update()
            run.save_when_due()
    run.finish()
    return run.progress.history


class _Run:
    """The moving parts of one training run."""

    def __init__(self, plan: TrainingSpec, work: TrainingContext, settings: Any) -> None:
        self.plan, self.work, self.settings = plan, work, settings
        self.accelerator = accelerator(settings)
        self.progress = TrainingState()
        self.file = work.folder / f"{plan.name}.safetensors"
        self.saved, self.pause = time.monotonic(), CHECKPOINT_S
        if settings.gradient_checkpointing:
            checkpoint_gradients(work.model)
        self._lay_out(settings.memory_format)
        groups = [{"params": g.parameters(), "lr": g.learning_rate} for g in plan.groups]
        self.parameters: list[Tensor] = [p for group in groups for p in group["params"]]  # type: ignore[attr-defined]
        if not self.parameters:
            raise NothingToTrainError(
                f"{plan.name}: nothing to train, since its blocks are frozen or came with their weights. "
                f"Bind stage.{plan.name}.steps = 0, or leave the stage out of run.stages."
            )
        _check_all_trained(work.model, self.parameters)
        self.objective = self.accelerator.prepare_model(self._objective())
        self.optimizer = self.accelerator.prepare_optimizer(settings.optimizer(groups))
        self.ema = [p.detach().clone() for p in self.parameters] if plan.ema_decay else self.parameters
        self.best = self._weights()
        self.validate_every = max(1, plan.steps // (plan.validations or settings.validations))

    def _objective(self) -> nn.Module:
        objective = Objective(self.plan)
        if not self.settings.compiled:
            return objective
        with torch.no_grad():
            batch = self.plan.draw(generator(self.work.seed, self.plan.name, 0))
        return compiled(objective, self._share(batch)[0].rows, self.parameters, self.accelerator.autocast)

    def _rate(self, step: int) -> float:
        """Linear warm-up over a tenth of the run, then a cosine down to a tenth of the rate."""
        warmup = max(1, self.plan.steps // 10)
        if step < warmup:
            return (step + 1) / warmup
        return 0.55 + 0.45 * math.cos(math.pi * (step - warmup) / max(1, self.plan.steps - warmup))

    def step(self) -> float:
        rng = generator(self.work.seed, self.plan.name, self.progress.step)
        # dropout draws from the global generator, and differently in each process
        torch.manual_seed(rng.initial_seed() + self.accelerator.process_index)
        with torch.no_grad():
            batch = self.plan.draw(rng)
        loss = self._backward(batch)
        self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        for group, planned in zip(self.optimizer.param_groups, self.plan.groups, strict=True):
            group["lr"] = planned.learning_rate * self._rate(self.progress.step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._average()
        self.progress.step += 1
        self._report(loss)
        return loss

    def _backward(self, batch: Batch) -> float:
        """The gradient of the whole batch's loss, and the loss; each process computes its share."""
        mine = self._share(batch)
        total = torch.zeros((), device=self.accelerator.device)
        for number, piece in enumerate(mine, start=1):
            last = number == len(mine)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.objective):
                loss = self.objective(*piece.rows) * piece.weight
                self.accelerator.backward(loss)
            total += loss.detach()
        return self.accelerator.reduce(total, "mean").item()

    def _share(self, batch: Batch) -> list[Any]:
        if not self.plan.divisible:
            return list(pieces(batch, None))
        sharing = self.accelerator.num_processes
        if len(batch[0]) < sharing:
            raise BatchSizeError(
                f"{self.plan.name}: a batch of {len(batch[0])} can't be shared by {sharing} processes. "
                f"Bind stage.{self.plan.name}.batch_size = {sharing} or more, or start fewer processes."
            )
        return list(
            pieces(
                batch,
                self.settings.per_device_batch_size,
                process=self.accelerator.process_index,
                processes=sharing,
            )
        )

    def _average(self) -> None:
        if self.plan.ema_decay:
            decay = min(self.plan.ema_decay, (1 + self.progress.step) / (10 + self.progress.step))
            with torch.no_grad():
                torch._foreach_lerp_(self.ema, self.parameters, 1 - decay)

    def _report(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"{self.plan.name}: the loss became {loss} at step {self.progress.step}. "
                "Lower its learning rate."
            )
        step = self.progress.step
        if step % LOG_EVERY == 0:
            self._log("loss", loss)
        if self.plan.held_out and (step % self.validate_every == 0 or step == self.plan.steps):
            self._validate(self.plan.held_out())

    def _log(self, name: str, value: float) -> None:
        self.progress.note(name, value)
        self.work.log(f"{self.plan.name}/{name}", value, self.progress.step)

    @torch.no_grad()
    def _validate(self, batch: Batch) -> None:
        """The loss on fixed clips and noise, with the averaged weights; every process computes all of it."""
        own = [p.detach().to("cpu", copy=True) for p in self.parameters] if self.plan.ema_decay else []
        modes = [(m, m.training) for module in self.plan.modules() for m in module.modules()]
        if own:
            self._use(self.ema)
        for module in self.plan.modules():
            module.eval()
        most = self.settings.per_device_batch_size if self.plan.divisible else None
        with self.accelerator.autocast():
            losses = [self.plan.loss(*piece.rows) * piece.weight for piece in pieces(batch, most)]
        loss = torch.stack(losses).sum().item()
        if loss < self.progress.best_loss:
            self.progress.best_loss, self.best = loss, self._weights()
        for m, training in modes:
            m.training = training
        if own:
            self._use(own)
        self._log("validation_loss", loss)

    @torch.no_grad()
    def _use(self, weights: Sequence[Tensor]) -> None:
        for p, weight in zip(self.parameters, weights, strict=True):
            p.copy_(weight)

    def _weights(self) -> list[Tensor]:
        """Copies of the present parameters and buffers, outside a GPU's memory."""
        return [t.detach().to("cpu", copy=True) for t in (*self.parameters, *self._buffers())]

    def _buffers(self) -> list[Tensor]:
        return [b for module in self.plan.modules() for b in module.buffers()]

    @torch.no_grad()
    def finish(self) -> None:
        """Leave the best weights, or without validation the averaged ones, in the modules."""
        if self.plan.held_out is None:
            self._use(self.ema)
        else:
            for tensor, best in zip((*self.parameters, *self._buffers()), self.best, strict=True):
                tensor.copy_(best)
        for module in self.plan.modules():
            module.eval()
        self._lay_out("contiguous_format")

    def _lay_out(self, memory_format: str) -> None:
        for module in self.plan.modules():
            module.to(memory_format=getattr(torch, memory_format))  # type: ignore[call-overload]

    def _tensors(self) -> dict[str, Tensor]:
        """What a resumed run needs beside the optimizer's state, by name; the tensors are the live ones."""
        kinds: dict[str, Sequence[Tensor]] = {
            "parameter": self.parameters,
            "buffer": self._buffers(),
            "ema": self.ema if self.plan.ema_decay else [],
            "best": self.best,
        }
        return {f"{kind}.{i}": t.detach() for kind, ts in kinds.items() for i, t in enumerate(ts)}

    def save_when_due(self) -> None:
        """Write a checkpoint every CHECKPOINT_S seconds, or less often where one takes long."""
        began = time.monotonic()
        if self.accelerator.is_main_process and began - self.saved > self.pause:
            write_checkpoint(
                self.file, self._tensors(), self.optimizer, self.accelerator.scaler, self.progress
            )
            self.saved = time.monotonic()
            self.pause = max(CHECKPOINT_S, (self.saved - began) / SAVING)

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        if not self.file.exists():
            return
        self.progress = read_checkpoint(self.file, self._tensors(), self.optimizer, self.accelerator.scaler)
        for name, points in self.progress.history.items():
            for step, value in points:
                self.work.log(f"{self.plan.name}/{name}", value, step)


def _check_all_trained(model: nn.Module, parameters: Sequence[Tensor]) -> None:
    known = {id(p) for p in parameters}
    lost = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in known]
    if lost:
        raise AssertionError(f"Parameters that require a gradient but are not in the optimizer: {lost}")
