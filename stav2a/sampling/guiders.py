"""Guiders: how the predictions of several branches of the denoiser become one.

A branch is the denoiser with some of its conditions. All branches of a step are one batch; what a guider
makes of them is a function of tensors alone, so that a step can be compiled or recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stav2a.registry import register
from stav2a.utils.errors import MAX_GUIDANCE, check_bounds

SMALLEST = torch.finfo(torch.float32).tiny  # divisor in place of a norm of 0


@dataclass(frozen=True)
class Branch:
    """Conditions of one branch.

    Args:
        video: The video's features, or zeros in their place.
        text: The caption, or in its place the null text or what is not wanted.
    """

    video: bool = True
    text: bool = True


NOTHING, VIDEO, BOTH = Branch(video=False, text=False), Branch(text=False), Branch()


@register("guider", "classifier_free")
@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-free guidance of the text alone, with the video in both branches (eq. 7).

    The prediction is null + w (conditional - null). At w = 1 the conditional branch alone is computed.

    Shapes:
        2 predictions (B, C, T, F), w () -> (B, C, T, F)
    """

    def branches(self, guidance_scale: float) -> Sequence[Branch]:
        return (BOTH,) if guidance_scale == 1 else (VIDEO, BOTH)

    def combine(self, predictions: Sequence[Tensor], guidance_scale: float | Tensor) -> Tensor:
        null, conditional = predictions
        return null + guidance_scale * (conditional - null)


EQUATION_7 = ClassifierFree()


@register("guider", "null_text")
@dataclass(frozen=True)
class NullText:
    """The prediction with the null text, or what is not wanted, in place of the caption: video alone.

    `run.guidance_scale` has no effect. The "w/o T" of Table I samples so.

    Shapes:
        1 prediction (B, C, T, F), w () -> (B, C, T, F)
    """

    def branches(self, guidance_scale: float) -> Sequence[Branch]:
        return (VIDEO,)

    def combine(self, predictions: Sequence[Tensor], guidance_scale: float | Tensor) -> Tensor:
        (prediction,) = predictions
        return prediction


@register("guider", "two_weights")
@dataclass(frozen=True, kw_only=True)
class TwoWeights:
    """Guidance of video and text with a weight each, as InstructPix2Pix has two (Brooks et al. 2023).

    With video v and text t it is eps(0, 0) + w_v (eps(v, 0) - eps(0, 0)) + w (eps(v, t) - eps(v, 0)): three
    branches, also without a prompt. The branch without video gets features of zeros; a model knows them that
    was trained with `stage.joint.video_dropout` above 0. At w_v = w it is eq. 7 of both together, at w_v = 1
    eq. 7 of the text.

    Args:
        video_scale: Weight w_v of the video; that of the text is `run.guidance_scale`.

    Shapes:
        3 predictions (B, C, T, F), w () -> (B, C, T, F)

    Raises:
        UsageError: The weight is out of its bounds.
    """

    video_scale: float = 2.0

    def __post_init__(self) -> None:
        check_bounds("guider.two_weights.video_scale", self.video_scale, 0, MAX_GUIDANCE)

    def branches(self, guidance_scale: float) -> Sequence[Branch]:
        return (BOTH,) if guidance_scale == self.video_scale == 1 else (NOTHING, VIDEO, BOTH)

    def combine(self, predictions: Sequence[Tensor], guidance_scale: float | Tensor) -> Tensor:
        nothing, video, both = predictions
        return nothing + self.video_scale * (video - nothing) + guidance_scale * (both - video)


@register("guider", "apg")
@dataclass(frozen=True, kw_only=True)
class AdaptiveProjected:
    """Eq. 7 with less of the difference that is parallel to the conditional prediction (Sadat et al. 2024).

    The parallel part raises the contrast, and saturates at large w. Differences from the paper: predictions
    are projected as the model gives them, not converted to clean latents, and there is no momentum, which
    would be a state between steps.

    Args:
        eta: Share of the parallel part that is kept; 1 is eq. 7.
        norm_threshold: Largest norm of the difference, over the latent of a clip; None for no limit.

    Shapes:
        2 predictions (B, C, T, F), w () -> (B, C, T, F)

    Raises:
        UsageError: A value is out of its bounds.
    """

    eta: float = 0.0
    norm_threshold: float | None = None

    def __post_init__(self) -> None:
        check_bounds("guider.apg.eta", self.eta, 0, 1)
        if self.norm_threshold is not None:
            check_bounds("guider.apg.norm_threshold", self.norm_threshold, 0)

    def branches(self, guidance_scale: float) -> Sequence[Branch]:
        return EQUATION_7.branches(guidance_scale)

    def combine(self, predictions: Sequence[Tensor], guidance_scale: float | Tensor) -> Tensor:
        null, conditional = predictions
        difference = conditional - null
        if self.norm_threshold is not None:
            norm = _product(difference, difference).sqrt().clamp(min=SMALLEST)
            difference = difference * (self.norm_threshold / norm).clamp(max=1)
        size = _product(conditional, conditional).clamp(min=SMALLEST)
        parallel = _product(difference, conditional) / size * conditional
        return conditional + (guidance_scale - 1) * (difference - (1 - self.eta) * parallel)


def _product(x: Tensor, y: Tensor) -> Tensor:
    """Inner products of each clip: (B, 1, 1, 1)."""
    return (x * y).sum(dim=(1, 2, 3), keepdim=True)
