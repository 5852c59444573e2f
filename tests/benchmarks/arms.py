"""The ladder: what is compared, and how much each rung was expected to help."""

from collections.abc import Callable
from dataclasses import dataclass
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
        expected: Time over the plain loop's, written down before it was measured; by scale.
        exact: Whether it computes the same, but for rounding in float32.
    """

    make: Callable[[], Sampler]
    expected: dict[str, float]
    exact: bool = True


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
) -> Tensor:
    """The loop of diffusers' own ControlNet pipeline, on its two models, with guidance on."""
    both = branch_conditions(model, e_v, captions, EQUATION_7.branches(guidance_scale))
    unet, controlnet = model.backbone.unet, model.backbone.controlnet
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


def fast(**settings: Any) -> Callable[[], Sampler]:
    return partial(FastSampler, **settings)


BF16 = {"precision": "bfloat16"}
LAST = {"memory_format": "channels_last"}

ON_CPU = {
    "plain diffusers loop": Arm(lambda: plain, {"laptop": 1.0, "quarter": 1.0, "paper": 1.0}),
    "sampler.reference": Arm(ReferenceSampler, {"laptop": 1.0, "quarter": 1.0, "paper": 1.0}),
    "fast": Arm(fast(), {"laptop": 0.9, "quarter": 0.98, "paper": 0.99}),
    "fast, channels_last": Arm(fast(**LAST), {"laptop": 0.95, "quarter": 0.95}),
    "fast, compiled": Arm(fast(engine=Compiled), {"laptop": 0.8, "quarter": 0.9}),
    "fast, compiled, channels_last": Arm(
        fast(engine=Compiled, **LAST), {"laptop": 0.6, "quarter": 0.8}
    ),
    "fast, bfloat16": Arm(fast(**BF16), {"laptop": 0.75, "quarter": 0.65, "paper": 0.6}, exact=False),
    "fast, bfloat16, compiled": Arm(
        fast(engine=Compiled, **BF16), {"laptop": 0.5, "quarter": 0.6}, exact=False
    ),
    "fast, bfloat16, compiled, channels_last": Arm(
        fast(engine=Compiled, **BF16, **LAST), {"laptop": 0.5, "quarter": 0.6}, exact=False
    ),
    "fast, guidance from 0.2 to 0.8": Arm(
        fast(shortcut=GuidanceInterval), {"laptop": 0.8, "quarter": 0.8}, exact=False
    ),
    "fast, ControlNet every 2nd step": Arm(
        fast(shortcut=ControlEvery), {"laptop": 0.75, "quarter": 0.8}, exact=False
    ),
    "fast, DeepCache every 2nd step": Arm(
        fast(shortcut=DeepCache), {"laptop": 0.65, "quarter": 0.75}, exact=False
    ),
}  # fmt: skip

GRAPH = CudaGraph
COMPILED_GRAPH = partial(CudaGraph, inner=Compiled)
ON_GPU = {
    "plain diffusers loop": Arm(lambda: plain, {"paper": 1.0}),
    "sampler.reference": Arm(ReferenceSampler, {"paper": 1.0}),
    "fast": Arm(fast(), {"paper": 0.95}),
    "fast, bfloat16": Arm(fast(**BF16), {"paper": 0.5}, exact=False),
    "fast, bfloat16, channels_last": Arm(fast(**BF16, **LAST), {"paper": 0.45}, exact=False),
    "fast, bfloat16, graph": Arm(fast(engine=GRAPH, **BF16), {"paper": 0.2}, exact=False),
    "fast, bfloat16, channels_last, graph": Arm(
        fast(engine=GRAPH, **BF16, **LAST), {"paper": 0.17}, exact=False
    ),
    "fast, bfloat16, channels_last, compiled graph": Arm(
        fast(engine=COMPILED_GRAPH, **BF16, **LAST), {"paper": 0.13}, exact=False
    ),
}
