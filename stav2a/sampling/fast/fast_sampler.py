"""The fast sampler: the reference's loop with all constant work done once, on static tensors."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stav2a.models.stav2a import STAV2A, Conditions
from stav2a.registry import expect, register
from stav2a.sampling.fast.engines import Eager
from stav2a.sampling.fast.scheduler_table import SchedulerTable, tabulate
from stav2a.sampling.fast.shortcuts import NoShortcut
from stav2a.sampling.fast.static_backbone import ComputeFormat, StaticBackbone
from stav2a.sampling.fast.static_loop import StaticLoop
from stav2a.sampling.reference import initial_noise, step_generators, text_conditions


@register("sampler", "fast")
class FastSampler:
    """The reference's latents within rounding, by the work that differs from step to step alone.

    What it prepares is kept for the next generation of the same shape with the same weights.

    Args:
        precision: Of the model's weights and activations; latents stay in float32 between steps.
        memory_format: Of the model's pictures.
        engine: How a step is carried out.
        shortcut: Which parts of the model each step computes; all but `shortcut.none` are approximate.
        text_bucket: Tokens are padded to a multiple of this, so that prompts of any length run one graph.

    Raises:
        SamplerError: No table can stand for the scheduler, or the shortcut does not go with the backbone.
    """

    def __init__(
        self,
        *,
        precision: Literal["float32", "bfloat16", "float16"] = "float32",
        memory_format: Literal["contiguous_format", "channels_last"] = "contiguous_format",
        engine: Callable[..., Any] = Eager,
        shortcut: Callable[..., Any] = NoShortcut,
        text_bucket: int = 16,
    ) -> None:
        self.form = ComputeFormat(getattr(torch, precision), getattr(torch, memory_format), text_bucket)
        self.engine, self.shortcut = expect("engine", engine)(), expect("shortcut", shortcut)()
        self._fitting: Any = None
        self._loop: StaticLoop

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
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> Tensor:
        """Denoise one latent for every clip; see `slots.Sampler`."""
        table = tabulate(scheduler, num_inference_steps)
        conditions = text_conditions(model, e_v, captions, guidance_scale)
        z_t = initial_noise(model.latent_shape, seeds).to(e_v) * table.init_noise_sigma
        loop = self._prepared(model, conditions, table, guided=guidance_scale != 1)
        return loop.run(z_t, conditions, table, guidance_scale, step_generators(seeds), progress)

    def _prepared(
        self, model: STAV2A, conditions: Conditions, table: SchedulerTable, *, guided: bool
    ) -> StaticLoop:
        """The loop of the generation before if it fits, else a new one."""
        length = self.form.padded(conditions.c.shape[1])
        fitting = (guided, table.rows, conditions.e_lv.shape, length, *_weights(model.backbone))
        if fitting != self._fitting:
            twin = StaticBackbone(model.backbone, model.latent_shape, conditions, self.form)
            self._loop = StaticLoop(twin, self.shortcut, self.engine, guided=guided)
            self._fitting = fitting
        return self._loop


def _weights(backbone: nn.Module) -> list[Any]:
    """Changes whenever a weight does."""
    return [backbone, *((each.data_ptr(), each._version) for each in backbone.parameters())]
