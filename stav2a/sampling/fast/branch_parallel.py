"""Fast sampler with a GPU for each branch of guidance: about half the time of a step, for one sound."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stav2a.models.stav2a import STAV2A, Conditions
from stav2a.registry import register
from stav2a.sampling.fast.engines import Eager
from stav2a.sampling.fast.fast_sampler import FastSampler, StaticLoop
from stav2a.sampling.fast.scheduler_table import advance
from stav2a.sampling.fast.shortcuts import NoShortcut, PredictFn
from stav2a.sampling.fast.static_backbone import StaticBackbone, StaticBuffer, shared_copy
from stav2a.sampling.guiders import Branch
from stav2a.sampling.reference import SamplerError
from stav2a.slots import Guider
from stav2a.utils import distributed


@register("sampler", "fast_branch_parallel")
class BranchParallelSampler(FastSampler):
    """Fast sampler that computes each branch of guidance on a device of its own, in one process.

    Latents and predictions alone travel between the devices, once a step. It serves few sounds at a time: for
    many, a process a GPU is better.

    Args:
        precision: Type of the model's weights and activations; latents stay in float32 between steps.
        memory_format: Memory format of the model's images; see `sampler.fast`.
        engine: Execution of a branch's part of a step.
        text_bucket: Number of tokens, to a multiple of which prompts are padded, so that all run one graph.
        attention: Backends of attention on a GPU; see `sampler.fast`.
        devices: Devices of the branches, in turn, such as `('cuda:0', 'cuda:1')`. By default the model's and
            the machine's other GPUs.

    Raises:
        UsageError: There is no such device, or no such backend.
        SamplerError: The run has several processes, each of which would take all GPUs.
    """

    def __init__(
        self,
        *,
        precision: Literal["float32", "bfloat16", "float16"] = "float32",
        memory_format: Literal["contiguous_format", "channels_last"] = "contiguous_format",
        engine: Callable[..., Any] = Eager,
        text_bucket: int = 16,
        attention: Sequence[str] = (),
        devices: Sequence[str] = (),
    ) -> None:
        super().__init__(
            precision=precision,
            memory_format=memory_format,
            engine=engine,
            text_bucket=text_bucket,
            attention=attention,
        )
        self.devices = [distributed.device_named(name) for name in devices]
        self._copies: dict[torch.device, nn.Module] = {}  # of the weights, those of the model's device too

    def _forget(self) -> None:
        super()._forget()
        self._copies.clear()

    def _loop(
        self, model: STAV2A, conditions: Conditions, guider: Guider, branches: Sequence[Branch]
    ) -> StaticLoop:
        devices = self.devices or self._all_devices(conditions.c.device)
        parts = []
        for i, given in enumerate(split(conditions, len(branches))):
            device = devices[i % len(devices)]
            if device not in self._copies:
                self._copies[device] = shared_copy(self._backbone, self.form).to(device)
            static = StaticBackbone(self._copies[device], model.latent_shape, moved(given, device), self.form)
            parts.append(BranchPart(static, device))
        return BranchParallelLoop(parts, self.engine, guider)

    def _all_devices(self, first: torch.device) -> list[torch.device]:
        """The model's device, and the machine's other GPUs if it is one."""
        if first.type != "cuda":
            return [first]
        if distributed.count() > 1:
            raise SamplerError(
                f"sampler.fast_branch_parallel takes several GPUs, and each of the {distributed.count()} "
                "processes has one.",
                advice="Bind run.sampler = @sampler.fast, or start one process.",
            )
        others = [torch.device("cuda", i) for i in range(torch.cuda.device_count()) if i != first.index]
        return [first, *others]


class BranchPart:
    """One branch of guidance on its device: its latents and its prediction, both (B, C, T, F).

    Args:
        backbone: Backbone on static tensors of the device.
        device: The device.
    """

    def __init__(self, backbone: StaticBackbone, device: torch.device) -> None:
        self.backbone, self.device = backbone, device
        self.z_t, self.prediction = StaticBuffer(), StaticBuffer()

    def current(self) -> AbstractContextManager[Any]:
        """Context in which the device is the one that an engine takes."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def predict(self) -> None:
        """Compute the prediction of the latents."""
        inputs = self.backbone.inputs(self.z_t.value, branches=1)
        with self.backbone.form.attended():
            self.prediction.value.copy_(self.backbone.backbone(*inputs))


class BranchParallelLoop(StaticLoop):
    """Denoising loop whose branches are steps of their own.

    Args:
        parts: The branches.
        engine: Execution of a branch's part of a step.
        guider: Guider of the branches.
    """

    def __init__(self, parts: Sequence[BranchPart], engine: Any, guider: Guider) -> None:
        super().__init__(parts[0].backbone, NoShortcut(), engine, guider, branches=len(parts))
        self.parts = parts

    def _update(self, conditions: Conditions, timesteps: Tensor) -> None:
        for part, given in zip(self.parts, split(conditions, len(self.parts)), strict=True):
            part.backbone.update(moved(given, part.device), timesteps.to(part.device))

    def _select(self, i: int, weights: Tensor) -> None:
        self.weights.update(weights[i])
        for part in self.parts:
            part.backbone.select(i)

    def _prepared_step(self, predict_fn: PredictFn) -> Callable[[], None]:
        z_t, steps = self.state.value[0], []
        for part in self.parts:
            part.z_t.update(z_t.to(part.device))
            part.prediction.update(torch.zeros_like(part.z_t.value))  # in place before an engine looks
            with part.current():
                steps.append(self.engine(part.predict))
        return partial(self._step_apart, steps)

    def _step_apart(self, steps: Sequence[Callable[[], None]]) -> None:
        state = self.state.value
        for part, step in zip(self.parts, steps, strict=True):
            part.z_t.value.copy_(state[0], non_blocking=True)
            with part.current():
                step()
        predictions = [part.prediction.value.to(state.device, non_blocking=True) for part in self.parts]
        combined = (
            self.guider.combine(predictions, self.guidance.value) if predictions[1:] else predictions[0]
        )
        state.copy_(advance(self.weights.value, state, combined, self.noise.value))


def split(conditions: Conditions, branches: int) -> list[Conditions]:
    """Conditions of each branch."""
    parts = (each.chunk(branches) for each in (conditions.c, conditions.mask, conditions.e_lv))
    return [Conditions(*given) for given in zip(*parts, strict=True)]


def moved(conditions: Conditions, device: torch.device) -> Conditions:
    """The same conditions on a device."""
    return Conditions(*(each.to(device) for each in (conditions.c, conditions.mask, conditions.e_lv)))
