"""Fast sampler: the reference loop on static tensors, with constant work done once.

One step is a function without arguments, results or branches on tensor values. So the device is never waited
for, and a step can be compiled or recorded as a whole.
"""

import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stav2a.models.stav2a import STAV2A, Conditions, check_denoises
from stav2a.registry import expect, register, selector_of
from stav2a.sampling.fast.engines import Eager
from stav2a.sampling.fast.scheduler_table import SchedulerTable, advance, tabulate
from stav2a.sampling.fast.shortcuts import NoShortcut, PredictFn
from stav2a.sampling.fast.static_backbone import (
    ATTENTION,
    ComputeFormat,
    StaticBackbone,
    StaticBuffer,
    shared_copy,
)
from stav2a.sampling.guiders import EQUATION_7, Branch
from stav2a.sampling.reference import (
    Progress,
    SamplerError,
    branch_conditions,
    initial_noise,
    step_generators,
)
from stav2a.slots import Guider
from stav2a.utils.errors import UsageError

logger = logging.getLogger(__name__)
LOOPS = 4  # prepared at a time, each with its tensors and its recording


@register("sampler", "fast")
class FastSampler:
    """Sampler that does constant work once; gives the latents of the reference sampler, but for rounding.

    What it prepares serves later generations with the same weights: of the last few shapes, in any order.

    Args:
        precision: Type of the model's weights and activations; latents stay in float32 between steps.
        memory_format: Memory format of the model's images. On a GPU "channels_last" is for an engine that
            compiles: torch's own group norm gives contiguous images there, which are copied at every norm.
        engine: Execution of a step.
        shortcut: Parts of the model that each step computes; all but `shortcut.none` are approximate.
        text_bucket: Number of tokens, to a multiple of which prompts are padded, so that all run one graph.
        attention: Backends of scaled dot product attention on a GPU, the first choice first, such as
            `('cudnn',)`; the others follow in torch's order, for what the first ones can't do.

    Raises:
        UsageError: There is no such backend.
        SamplerError: No table can stand for the scheduler, or the shortcut does not fit the backbone.
    """

    later = ("attention",)  # left out of signatures with its default

    def __init__(
        self,
        *,
        precision: Literal["float32", "bfloat16", "float16"] = "float32",
        memory_format: Literal["contiguous_format", "channels_last"] = "contiguous_format",
        engine: Callable[..., Any] = Eager,
        shortcut: Callable[..., Any] = NoShortcut,
        text_bucket: int = 16,
        attention: Sequence[str] = (),
    ) -> None:
        if unknown := [name for name in attention if name not in ATTENTION]:
            raise UsageError(
                f"{self.selector}.attention has {unknown[0]!r}. Expected some of {', '.join(ATTENTION)}."
            )
        self.form = ComputeFormat(
            getattr(torch, precision), getattr(torch, memory_format), text_bucket, tuple(attention)
        )
        self.engine, self.shortcut = expect("engine", engine)(), expect("shortcut", shortcut)()
        self._tables: dict[Any, SchedulerTable] = {}
        self._weights: Any = None  # of the backbone that all loops have
        self._backbone: nn.Module
        self._loops: dict[Any, StaticLoop] = {}  # the least recently used first

    @property
    def selector(self) -> str:
        """Name in messages."""
        return selector_of("sampler", type(self))

    @property
    def fixed_shapes(self) -> bool:
        """True where a batch of another size takes long to prepare, so that the last one should be filled."""
        return getattr(self.engine, "fixed_shapes", False)

    @torch.no_grad()
    def __call__(
        self,
        model: STAV2A,
        e_v: Tensor,
        captions: Sequence[str],
        *,
        scheduler: Any,
        num_inference_steps: int,
        guidance_scale: float,
        seeds: Sequence[int],
        negative_captions: Sequence[str] | None = None,
        guider: Guider = EQUATION_7,
        e_tv: Tensor | None = None,
        progress: Progress = iter,
    ) -> Tensor:
        """Denoise one latent per clip; see `slots.Sampler`."""
        check_denoises(model, self.selector)
        self._check_device(e_v.device)
        table = self._table(scheduler, num_inference_steps)
        branches = guider.branches(guidance_scale)
        conditions = branch_conditions(model, e_v, captions, branches, negative_captions, e_tv)
        z_t = initial_noise(model.latent_shape, seeds).to(e_v) * table.init_noise_sigma
        loop = self._prepared(model, conditions, table, guider, branches)
        return loop.run(z_t, conditions, table, guidance_scale, step_generators(seeds), progress)

    def _check_device(self, device: torch.device) -> None:
        needed = getattr(self.engine, "device_type", device.type)
        if needed != device.type:
            raise SamplerError(
                f"{self.selector}.engine runs on {needed} alone, but the model is on {device.type}.",
                advice=f"Move the model to {needed}, or bind {self.selector}.engine = @engine.eager.",
            )

    def _check_format(self, device: torch.device) -> None:
        compiles = getattr(self.engine, "compiles", False)
        if device.type == "cuda" and self.form.memory_format is torch.channels_last and not compiles:
            logger.warning(
                "warning: %s.memory_format = 'channels_last' copies the images at every group norm of a GPU, "
                "unless the engine compiles. Bind %s.engine = @engine.compiled, or engine.cuda_graph.inner = "
                "@engine.compiled, or leave the format out.",
                self.selector,
                self.selector,
            )

    def _table(self, scheduler: Any, num_inference_steps: int) -> SchedulerTable:
        """The table of a scheduler's settings, made once."""
        key = (type(scheduler), json.dumps(dict(scheduler.config), default=str), num_inference_steps)
        if key not in self._tables:
            self._tables[key] = tabulate(scheduler, num_inference_steps)
        return self._tables[key]

    def _prepared(
        self,
        model: STAV2A,
        conditions: Conditions,
        table: SchedulerTable,
        guider: Guider,
        branches: Sequence[Branch],
    ) -> "StaticLoop":
        """The loop of an earlier generation where one fits, else a new one."""
        weights = [(each.data_ptr(), each._version) for each in model.backbone.parameters()]
        if (model.backbone, weights) != self._weights:
            self._check_format(conditions.c.device)
            self._forget()
            self._backbone = shared_copy(model.backbone, self.form)  # one in half precision for all loops
            self._weights = (model.backbone, weights)
        length = self.form.padded(conditions.c.shape[1])
        key = (guider, *branches, table.rows, conditions.e_lv.shape, length)
        loop = self._loops.pop(key, None)
        if loop is None:
            if len(self._loops) == LOOPS:
                del self._loops[next(iter(self._loops))]
            loop = self._loop(model, conditions, guider, branches)
        self._loops[key] = loop
        return loop

    def _forget(self) -> None:
        """Drop what was prepared for other weights."""
        self._loops.clear()

    def _loop(
        self, model: STAV2A, conditions: Conditions, guider: Guider, branches: Sequence[Branch]
    ) -> "StaticLoop":
        one_video = len({branch.video for branch in branches}) == 1
        static = StaticBackbone(
            self._backbone, model.latent_shape, conditions, self.form, one_video=one_video
        )
        return StaticLoop(static, self.shortcut, self.engine, guider, branches=len(branches))


class StaticLoop:
    """Denoising loop for latents of one shape and schedulers of one kind.

    Args:
        backbone: Backbone on static tensors.
        shortcut: Parts of the backbone that each step computes.
        engine: Execution of the steps.
        guider: Guider of the branches.
        branches: Number of branches.
    """

    def __init__(
        self, backbone: StaticBackbone, shortcut: Any, engine: Any, guider: Guider, *, branches: int
    ) -> None:
        self.backbone, self.shortcut, self.engine = backbone, shortcut, engine
        self.guider, self.branches = guider, branches
        self.state, self.noise = StaticBuffer(), StaticBuffer()
        self.weights, self.guidance = StaticBuffer(), StaticBuffer()
        self.predict_fns: dict[str, PredictFn] = dict(shortcut.predict_fns(backbone.backbone))
        self.steps: dict[str, Callable[[], None]] = {}

    def run(
        self,
        z_t: Tensor,
        conditions: Conditions,
        table: SchedulerTable,
        guidance_scale: float,
        generators: Sequence[torch.Generator],
        progress: Progress,
    ) -> Tensor:
        """Denoise z_t (B, C, T, F), float32, from the table's first noise level to its last."""
        weights = table.weights.to(z_t)
        plan = self.shortcut.plan(table.timesteps.tolist())
        start = torch.zeros(table.rows, *z_t.shape, device=z_t.device)
        start[0] = z_t
        self._update(conditions, table.timesteps.to(z_t.device))
        self.guidance.update(z_t.new_tensor(guidance_scale))
        self.noise.update(torch.zeros_like(z_t))
        self.state.update(start)
        self._select(0, weights)
        for name in dict.fromkeys(plan):
            if name not in self.steps:
                self.steps[name] = self._prepared_step(self.predict_fns[name])
        self.state.update(start)  # engines may have run the steps
        for i, _ in enumerate(progress(table.timesteps)):
            if table.noisy[i]:
                self.noise.update(step_noise(generators, z_t))
            self._select(i, weights)
            self.steps[plan[i]]()
        return self.state.value[0].clone()

    def _update(self, conditions: Conditions, timesteps: Tensor) -> None:
        self.backbone.update(conditions, timesteps)

    def _prepared_step(self, predict_fn: PredictFn) -> Callable[[], None]:
        if predict_fn.caches:
            self._step(predict_fn)  # makes its buffers, so that the engine finds them in place
        return self.engine(partial(self._step, predict_fn))

    def _select(self, i: int, weights: Tensor) -> None:
        self.weights.update(weights[i])
        self.backbone.select(i)

    def _step(self, predict_fn: PredictFn) -> None:
        state, branches = self.state.value, self.branches if predict_fn.guided else 1
        inputs = self.backbone.inputs(state[0], branches=branches)
        with self.backbone.form.attended():
            prediction = predict_fn.predict(self.backbone.backbone, *inputs).to(state.dtype)
        if branches > 1:
            prediction = self.guider.combine(prediction.chunk(branches), self.guidance.value)
        state.copy_(advance(self.weights.value, state, prediction, self.noise.value))


def step_noise(generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Fresh noise, one clip per generator, drawn as in diffusers and copied to the device without waiting."""
    noise = torch.stack([torch.randn(like.shape[1:], generator=each) for each in generators])
    return noise.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else noise
