"""The ladder: what is compared, and how much each rung was expected to help."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stav2a.models.stav2a import STAV2A
from stav2a.sampling import (
    Compiled,
    ControlEvery,
    CudaGraph,
    DeepCache,
    FastSampler,
    GuidanceInterval,
    ReferenceSampler,
    initial_noise,
)
from stav2a.sampling.guiders import EQUATION_7
from stav2a.sampling.reference import branch_conditions, step_generators, takes_generator

Sampler = Callable[..., Tensor]


@dataclass(frozen=True)
class Arm:
    """One rung.

    Args:
        make: Makes its sampler; called once, so that what it prepares serves all rounds.
        expected: Time over the baseline's, written down before it was measured; by scale.
        exact: Whether it computes the same, but for rounding in its precision.
        precision: Type of its products: float32, tf32 (in which a GPU may multiply float32) or bfloat16.
        predicted_ms: Lowest and highest time of a step, written down before it was measured; by batch, at the
            paper's size.
    """

    make: Callable[[], Sampler]
    expected: dict[str, float]
    exact: bool = True
    precision: str = "float32"
    predicted_ms: dict[int, tuple[float, float]] = field(default_factory=dict)


@torch.no_grad()
def plain(
    model: STAV2A,
    e_v: Tensor,
    captions: Any,
    *,
    scheduler: Any,
    num_inference_steps: int,
    guidance_scale: float,
    seeds: Any,
    dtype: torch.dtype = torch.float32,
    backbone: Any = None,
) -> Tensor:
    """The loop of diffusers' own ControlNet pipeline, on its two models, with guidance on."""
    both = branch_conditions(model, e_v, captions, EQUATION_7.branches(guidance_scale))
    backbone = model.backbone if backbone is None else backbone
    unet, controlnet = backbone.unet, backbone.controlnet
    c, mask, e_lv = both.c.to(dtype), both.mask, both.e_lv.to(dtype)
    scheduler.set_timesteps(num_inference_steps, device=e_v.device)
    latents = initial_noise(model.latent_shape, seeds).to(e_v.device, dtype) * scheduler.init_noise_sigma
    extra = {"generator": step_generators(seeds)} if takes_generator(scheduler) else {}
    for t in scheduler.timesteps:
        doubled = scheduler.scale_model_input(torch.cat([latents] * 2), t)
        down, mid = controlnet(doubled, t, c, controlnet_cond=e_lv, return_dict=False)
        predicted = unet(
            doubled,
            t,
            c,
            encoder_attention_mask=mask,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]
        null, conditional = predicted.chunk(2)
        predicted = null + guidance_scale * (conditional - null)
        latents = scheduler.step(predicted, t, latents, **extra).prev_sample
    return latents.float()


class PlainHalf:
    """The plain loop with models and latents in bfloat16, as by diffusers' `pipe.to(torch.bfloat16)`."""

    backbone: Any = None

    def __call__(self, model: STAV2A, *given: Any, **settings: Any) -> Tensor:
        self.backbone = self.backbone or copy.deepcopy(model.backbone).to(torch.bfloat16)
        return plain(model, *given, dtype=torch.bfloat16, backbone=self.backbone, **settings)


def fast(**settings: Any) -> Callable[[], Sampler]:
    return partial(FastSampler, **settings)


BF16 = {"precision": "bfloat16"}
LAST = {"memory_format": "channels_last"}

HALF: dict[str, Any] = {"exact": True, "precision": "bfloat16"}
APPROXIMATE: dict[str, Any] = {"exact": False}
PLAIN = "plain diffusers loop"
PLAIN_HALF, PLAIN_TF32 = "plain, bfloat16", "plain, TF32"
# The plain loop of each precision: the error that another rung of it may have.
PLAIN_OF = {"float32": PLAIN, "tf32": PLAIN_TF32, "bfloat16": PLAIN_HALF}

ON_CPU = {
    PLAIN: Arm(lambda: plain, {"laptop": 1.0, "quarter": 1.0, "paper": 1.0}),
    "sampler.reference": Arm(ReferenceSampler, {"laptop": 1.0, "quarter": 1.0, "paper": 1.0}),
    "fast": Arm(fast(), {"laptop": 0.9, "quarter": 0.98, "paper": 0.99}),
    "fast, channels_last": Arm(fast(**LAST), {"laptop": 0.95, "quarter": 0.95}),
    "fast, compiled": Arm(fast(engine=Compiled), {"laptop": 0.8, "quarter": 0.9}),
    "fast, compiled, channels_last": Arm(
        fast(engine=Compiled, **LAST), {"laptop": 0.6, "quarter": 0.8}
    ),
    PLAIN_HALF: Arm(PlainHalf, {"laptop": 0.85, "quarter": 0.7, "paper": 0.65}, **HALF),
    "fast, bfloat16": Arm(fast(**BF16), {"laptop": 0.75, "quarter": 0.65, "paper": 0.6}, **HALF),
    "fast, bfloat16, compiled": Arm(
        fast(engine=Compiled, **BF16), {"laptop": 0.5, "quarter": 0.6}, **HALF
    ),
    "fast, bfloat16, compiled, channels_last": Arm(
        fast(engine=Compiled, **BF16, **LAST), {"laptop": 0.5, "quarter": 0.6}, **HALF
    ),
    "fast, guidance from 0.2 to 0.8": Arm(
        fast(shortcut=GuidanceInterval), {"laptop": 0.8, "quarter": 0.8}, **APPROXIMATE
    ),
    "fast, ControlNet every 2nd step": Arm(
        fast(shortcut=ControlEvery), {"laptop": 0.75, "quarter": 0.8}, **APPROXIMATE
    ),
    "fast, DeepCache every 2nd step": Arm(
        fast(shortcut=DeepCache), {"laptop": 0.65, "quarter": 0.75}, **APPROXIMATE
    ),
}  # fmt: skip

# On a GPU the baseline is what users of diffusers run: bfloat16, or TF32 for those who keep float32.
GRAPH, COMPILED_GRAPH = CudaGraph, partial(CudaGraph, inner=Compiled)
CUDNN = {"attention": ("cudnn", "flash")}
TO_GRAPH = {1: (8.0, 8.0), 8: (32.0, 45.0), 32: (120.0, 165.0)}
TO_COMPILED_GRAPH = {1: (5.0, 6.0), 8: (32.0, 45.0), 32: (120.0, 165.0)}
ON_GPU = {
    PLAIN_HALF: Arm(PlainHalf, {}, **HALF),
    PLAIN_TF32: Arm(lambda: plain, {}, precision="tf32"),
    PLAIN: Arm(lambda: plain, {}),
    "fast, TF32, graph": Arm(fast(engine=GRAPH), {}, precision="tf32"),
    "fast, bfloat16": Arm(fast(**BF16), {}, **HALF),
    "fast, bfloat16, graph": Arm(fast(engine=GRAPH, **BF16), {}, **HALF, predicted_ms=TO_GRAPH),
    "fast, bfloat16, compiled graph": Arm(
        fast(engine=COMPILED_GRAPH, **BF16), {}, **HALF, predicted_ms=TO_COMPILED_GRAPH
    ),
    "fast, bfloat16, cuDNN attention, channels_last, compiled graph": Arm(
        fast(engine=COMPILED_GRAPH, **BF16, **CUDNN, **LAST), {}, **HALF, predicted_ms=TO_COMPILED_GRAPH
    ),
    # alone: the attention, the layout
    "fast, bfloat16, cuDNN attention, graph": Arm(fast(engine=GRAPH, **BF16, **CUDNN), {}, **HALF),
    "fast, bfloat16, channels_last, graph": Arm(fast(engine=GRAPH, **BF16, **LAST), {}, **HALF),
    "fast, bfloat16, channels_last, compiled graph": Arm(
        fast(engine=COMPILED_GRAPH, **BF16, **LAST), {}, **HALF
    ),
}
ALONE = [  # which no ladder runs unless they are named
    "fast, bfloat16, cuDNN attention, graph",
    "fast, bfloat16, channels_last, graph",
    "fast, bfloat16, channels_last, compiled graph",
]
