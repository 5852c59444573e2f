"""Sampler of models of codes: code after code, in place of a denoising loop."""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from stav2a.models.stav2a import STAV2A, check_predicts_codes
from stav2a.registry import register
from stav2a.sampling.guiders import EQUATION_7
from stav2a.sampling.reference import Progress, branch_conditions, generator
from stav2a.slots import Guider
from stav2a.utils.errors import check_bounds


@register("sampler", "autoregressive")
class AutoregressiveSampler:
    """Codes drawn one step after the other from a model of codes (Im2Wav, Sheffer and Adi 2022).

    The guider combines the logits of its branches as it would predictions. There is one step a latent frame,
    and F - 1 more: the scheduler and the number of denoising steps have no influence. A step computes all
    earlier ones again.

    Args:
        temperature: Factor of the randomness; 0 takes the likeliest code.
        top_k: Number of the likeliest codes that are drawn from; None for all.

    Raises:
        UsageError: A value is out of its bounds, or the model is a denoiser.
    """

    def __init__(self, *, temperature: float = 1.0, top_k: int | None = None) -> None:
        check_bounds("sampler.autoregressive.temperature", temperature, 0)
        if top_k is not None:
            check_bounds("sampler.autoregressive.top_k", top_k, 1)
        self.temperature, self.top_k = temperature, top_k

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
        progress: Progress = iter,
    ) -> Tensor:
        """Draw the codes of one latent per clip; see `slots.Sampler`."""
        check_predicts_codes(model, "sampler.autoregressive")
        backbone: Any = model.backbone
        unet, (_, frames, bins) = backbone.unet, model.latent_shape
        branches = guider.branches(guidance_scale)
        conditions = branch_conditions(model, e_v, captions, branches, negative_captions)
        generators = [generator(seed) for seed in seeds]
        steps = unet.delay(torch.zeros(len(e_v), frames, bins, dtype=torch.long, device=e_v.device))
        exists = steps != unet.codes
        # in as many parts as there would be denoising steps, by which progress is counted
        for part in progress(torch.arange(steps.shape[1]).tensor_split(num_inference_steps)):
            for s in part.tolist():
                earlier = steps[:, :s].repeat(len(branches), 1, 1)
                logits = backbone.logits(earlier, conditions.c, conditions.mask, conditions.e_lv)[:, -1]
                if len(branches) > 1:
                    parts = rearrange(logits, "b f k -> b k 1 f").chunk(len(branches))  # as (B, C, T, F)
                    logits = rearrange(guider.combine(parts, guidance_scale), "b k 1 f -> b f k")
                steps[:, s] = torch.where(exists[:, s], self._drawn(logits, generators), steps[:, s])
        return unet.decode(unet.undelay(steps))

    def _drawn(self, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Codes (B, F) drawn from logits (B, F, codes), each clip's by its own generator."""
        if self.top_k is not None:
            least = logits.topk(min(self.top_k, logits.shape[-1])).values[..., -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        uniform = torch.stack([torch.rand(logits.shape[1:], generator=each) for each in generators])
        gumbel = -(-uniform.clamp(min=1e-20).log()).log()  # the largest sum is a draw from the softmax
        return (logits + self.temperature * gumbel.to(logits)).argmax(dim=-1)
