"""One training loop for every stage: AdamW, EMA, best validation, resumable to the bit."""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from stav2a.training.work import Work, generator

CHECKPOINT_S = 15.0  # what kill -9 costs at most
LOG_EVERY = 10


class DivergedError(ValueError):
    """A loss that is no number: the settings make training impossible."""


class NothingToTrainError(ValueError):
    """A stage whose blocks are all frozen."""


@dataclass(frozen=True)
class Group:
    """Modules that share a learning rate."""

    modules: Sequence[nn.Module]
    learning_rate: float

    def parameters(self) -> list[nn.Parameter]:
        return [p for module in self.modules for p in module.parameters() if p.requires_grad]


@dataclass(frozen=True)
class Plan:
    """How long and how to train.

    Args:
        name: Of the stage, for logs.
        steps: Optimizer steps.
        loss: Called with a step's generator, returns that step's loss.
        groups: What is trained, and at which rates.
        validate: Loss on fixed data and noise; None keeps the last weights.
        ema_decay: Of the running mean of weights; 0 switches it off.
        weight_decay: AdamW's.
        validations: How often to validate over the whole run.
    """

    name: str
    steps: int
    loss: Callable[[torch.Generator], Tensor]
    groups: Sequence[Group]
    validate: Callable[[], float] | None = None
    ema_decay: float = 0.0
    weight_decay: float = 0.01
    validations: int = 4

    def modules(self) -> list[nn.Module]:
        return [module for group in self.groups for module in group.modules]


@dataclass
class Progress:
    """How far a stage has come: all that a checkpoint holds beside tensors."""

    step: int = 0
    best_loss: float = math.inf
    history: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def note(self, name: str, value: float) -> None:
        self.history.setdefault(name, []).append((self.step, value))


def fit(plan: Plan, work: Work) -> dict[str, list[tuple[int, float]]]:
    """Train, leaving the best weights in the modules.

    Returns:
        The losses logged, as (step, value) pairs under each name.
    """
    run = _Run(plan, work)
    run.resume()
    bar = tqdm(total=plan.steps, initial=run.progress.step, desc=plan.name, unit="step", leave=False)
    saved = time.monotonic()
    with bar:
        while run.progress.step < plan.steps:
            loss = run.step()
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update()
            if time.monotonic() - saved > CHECKPOINT_S:
                run.save()
                saved = time.monotonic()
    run.finish()
    return run.progress.history


class _Run:
    """The moving parts of one training run."""

    def __init__(self, plan: Plan, work: Work) -> None:
        self.plan, self.work = plan, work
        self.progress = Progress()
        self.file = work.folder / f"{plan.name}.safetensors"
        groups = [{"params": g.parameters(), "lr": g.learning_rate} for g in plan.groups]
        self.parameters = [p for group in groups for p in group["params"]]  # type: ignore[attr-defined]
        if not self.parameters:
            raise NothingToTrainError(
                f"{plan.name}: nothing to train, since its blocks are frozen or came with their weights. "
                f"Bind stage.{plan.name}.steps = 0, or leave the stage out of run.stages."
            )
        _check_all_trained(work.model, self.parameters)
        self.optimizer = torch.optim.AdamW(
            groups, betas=(0.9, 0.99), weight_decay=plan.weight_decay, fused=True
        )
        self.ema = [p.detach().clone() for p in self.parameters] if plan.ema_decay else self.parameters
        self.best = self._weights()

    def _rate(self, step: int) -> float:
        """Linear warm-up over a tenth of the run, then a cosine down to a tenth of the rate."""
        warmup = max(1, self.plan.steps // 10)
        if step < warmup:
            return (step + 1) / warmup
        return 0.55 + 0.45 * math.cos(math.pi * (step - warmup) / max(1, self.plan.steps - warmup))

    def step(self) -> float:
        rng = generator(self.work.seed, self.plan.name, self.progress.step)
        torch.manual_seed(rng.initial_seed())  # dropout draws from the global generator
        loss = self.plan.loss(rng)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group, planned in zip(self.optimizer.param_groups, self.plan.groups, strict=True):
            group["lr"] = planned.learning_rate * self._rate(self.progress.step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._average()
        self.progress.step += 1
        self._report(loss.item())
        return loss.item()

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
        if self.progress.step % LOG_EVERY == 0:
            self._log("loss", loss)
        every = max(1, self.plan.steps // self.plan.validations)
        if self.plan.validate and (self.progress.step % every == 0 or self.progress.step == self.plan.steps):
            self._validate(self.plan.validate)

    def _log(self, name: str, value: float) -> None:
        self.progress.note(name, value)
        self.work.log(f"{self.plan.name}/{name}", value, self.progress.step)

    def _validate(self, validate: Callable[[], float]) -> None:
        own = [p.detach().clone() for p in self.parameters]
        modes = [(m, m.training) for module in self.plan.modules() for m in module.modules()]
        self._use(self.ema)
        for module in self.plan.modules():
            module.eval()
        with torch.no_grad():
            loss = validate()
        if loss < self.progress.best_loss:
            self.progress.best_loss, self.best = loss, self._weights()
        for m, training in modes:
            m.training = training
        self._use(own)
        self._log("validation_loss", loss)

    @torch.no_grad()
    def _use(self, weights: Sequence[Tensor]) -> None:
        for p, weight in zip(self.parameters, weights, strict=True):
            p.copy_(weight)

    def _weights(self) -> list[Tensor]:
        """Copies of the present parameters and buffers."""
        return [t.detach().clone() for t in (*self.parameters, *self._buffers())]

    def _buffers(self) -> list[Tensor]:
        return [b for module in self.plan.modules() for b in module.buffers()]

    @torch.no_grad()
    def finish(self) -> None:
        """Leave the best weights, or without validation the averaged ones, in the modules."""
        if self.plan.validate is None:
            self._use(self.ema)
        else:
            for tensor, best in zip((*self.parameters, *self._buffers()), self.best, strict=True):
                tensor.copy_(best)
        for module in self.plan.modules():
            module.eval()

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, by name; the tensors are the live ones."""
        # a parameter that never had a gradient has no state, and needs none
        state = [self.optimizer.state.get(p) or self._fresh_state(p) for p in self.parameters]
        kinds: dict[str, Sequence[Tensor]] = {
            "parameter": self.parameters,
            "buffer": self._buffers(),
            "ema": self.ema,
            "best": self.best,
            "exp_avg": [s["exp_avg"] for s in state],
            "exp_avg_sq": [s["exp_avg_sq"] for s in state],
        }
        return {f"{kind}.{i}": t.detach() for kind, ts in kinds.items() for i, t in enumerate(ts)}

    def save(self) -> None:
        """Write a checkpoint, whole or not at all."""
        temporary = self.file.with_suffix(f".{os.getpid()}")
        # .clone(): safetensors refuses tensors that share memory, as ema and parameters may
        tensors = {name: t.clone().contiguous() for name, t in self._tensors().items()}
        save_file(tensors, temporary, metadata={"progress": json.dumps(vars(self.progress))})
        os.replace(temporary, self.file)

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        if not self.file.exists():
            return
        with safe_open(self.file, framework="pt") as saved:
            self.progress = Progress(**json.loads(saved.metadata()["progress"]))
            for p in self.parameters:
                self.optimizer.state[p] = self._fresh_state(p)
            with torch.no_grad():
                for name, tensor in self._tensors().items():
                    tensor.copy_(saved.get_tensor(name))
        for name, points in self.progress.history.items():
            for step, value in points:
                self.work.log(f"{self.plan.name}/{name}", value, step)

    def _fresh_state(self, p: Tensor) -> dict[str, Any]:
        zeros = torch.zeros_like(p)
        return {
            "step": torch.tensor(float(self.progress.step)),
            "exp_avg": zeros,
            "exp_avg_sq": zeros.clone(),
        }


def _check_all_trained(model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
    known = {id(p) for p in parameters}
    lost = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in known]
    if lost:
        raise AssertionError(f"Parameters that require a gradient but are not in the optimizer: {lost}")
