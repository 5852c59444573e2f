"""The denoising loop on static tensors: one step is one function without arguments, results or questions.

Nothing in it depends on a number that Python would have to read from a tensor, so that the device is never
waited for, and a step can be compiled or recorded as a whole.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stav2a.models.stav2a import Conditions
from stav2a.sampling.fast.scheduler_table import SchedulerTable, advance
from stav2a.sampling.fast.shortcuts import PredictFn
from stav2a.sampling.fast.static_backbone import StaticBackbone, StaticBuffer


class StaticLoop:
    """A loop for latents of one shape and schedulers of one kind.

    Args:
        twin: Predicts.
        shortcut: Which parts of it each step computes.
        engine: Carries out the steps.
        guided: Whether the twin holds the conditions of both branches.
    """

    def __init__(self, twin: StaticBackbone, shortcut: Any, engine: Any, *, guided: bool) -> None:
        self.twin, self.shortcut, self.engine, self.guided = twin, shortcut, engine, guided
        self.carried, self.noise, self.weights, self.guidance = (
            StaticBuffer(),
            StaticBuffer(),
            StaticBuffer(),
            StaticBuffer(),
        )
        self.ways: dict[str, PredictFn] = dict(shortcut.ways(twin.backbone))
        self.steps: dict[str, Callable[[], None]] = {}

    def run(
        self,
        z_t: Tensor,
        conditions: Conditions,
        table: SchedulerTable,
        guidance_scale: float,
        generators: Sequence[torch.Generator],
        progress: Callable[[Iterable[Any]], Iterable[Any]],
    ) -> Tensor:
        """Denoise z_t (B, C, T, F), float32, from the table's first noise level to its last."""
        weights = table.weights.to(z_t)
        plan = self.shortcut.plan(table.timesteps.tolist())
        start = torch.zeros(table.rows, *z_t.shape, device=z_t.device)
        start[0] = z_t
        self.twin.hold(conditions, table.timesteps.to(z_t.device))
        self.guidance.hold(z_t.new_tensor(guidance_scale))
        self.noise.hold(torch.zeros_like(z_t))
        self._begin(start, weights, plan)
        for i, _ in enumerate(progress(table.timesteps)):
            if table.noisy[i]:
                self.noise.hold(drawn(generators, z_t))
            self._turn(i, weights)
            self.steps[plan[i]]()
        return self.carried.value[0].clone()

    def _begin(self, start: Tensor, weights: Tensor, plan: Sequence[str]) -> None:
        """Make the steps that are not there yet, which may run them; then set what they carry."""
        self.carried.hold(start)
        self._turn(0, weights)
        for name in dict.fromkeys(plan):
            if name not in self.steps:
                if self.ways[name].keeps:
                    self._step(self.ways[name])  # by itself, so that the engine finds what it keeps in place
                self.steps[name] = self.engine(partial(self._step, self.ways[name]))
        self.carried.hold(start)

    def _turn(self, i: int, weights: Tensor) -> None:
        """Turn to step i."""
        self.weights.hold(weights[i])
        self.twin.show(i)

    def _step(self, way: PredictFn) -> None:
        carried, guided = self.carried.value, self.guided and way.guided
        inputs = self.twin.inputs(carried[0], guided=guided)
        prediction = way.predict(self.twin.backbone, *inputs).to(carried.dtype)
        if guided:
            null, conditional = prediction.chunk(2)
            prediction = null + self.guidance.value * (conditional - null)  # eq. 7
        carried.copy_(advance(self.weights.value, carried, prediction, self.noise.value))


def drawn(generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Fresh noise, each clip's from its own generator, as diffusers draws it; on its way to the device."""
    noise = torch.stack([torch.randn(like.shape[1:], generator=each) for each in generators])
    return noise.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else noise
