"""Shortcuts: parts of the model that each step computes. All but `none` change the result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from stav2a.registry import register
from stav2a.sampling.fast.static_backbone import StaticBuffer, UpBlockWrapper
from stav2a.sampling.reference import SamplerError
from stav2a.utils.errors import UsageError

LEVELS = 1000  # noise levels in training


@dataclass(frozen=True)
class PredictFn:
    """Prediction function.

    Args:
        predict: Function from the backbone and its five inputs to the prediction.
        guided: Compute all branches of guidance, or the one with all conditions alone.
        caches: True where it writes buffers that other functions read.
    """

    predict: Callable[..., Tensor]
    guided: bool = True
    caches: bool = False


def whole(backbone: Any, *inputs: Tensor) -> Tensor:
    """Prediction of the whole backbone."""
    return backbone(*inputs)


@register("shortcut", "none")
class NoShortcut:
    """All of the model at every step: exact."""

    def predict_fns(self, backbone: Any) -> Mapping[str, PredictFn]:
        return {"whole": PredictFn(whole)}

    def plan(self, timesteps: Sequence[int]) -> Sequence[str]:
        return ["whole"] * len(timesteps)


@register("shortcut", "guidance_interval")
class GuidanceInterval:
    """Guidance at the middle noise levels alone, the conditional branch elsewhere (Kynkäänniemi et al. 2024).

    Args:
        low: Lower bound of guidance, as a share of the noise levels.
        high: Upper bound of guidance, as a share of the noise levels; 1 is pure noise.

    Raises:
        UsageError: The bounds are not in order.
    """

    def __init__(self, *, low: float = 0.2, high: float = 0.8) -> None:
        if not 0 <= low < high <= 1:
            raise UsageError(
                f"shortcut.guidance_interval.low = {low}, high = {high}: expected 0 <= low < high <= 1."
            )
        self.low, self.high = low, high

    def predict_fns(self, backbone: Any) -> Mapping[str, PredictFn]:
        return {"guided": PredictFn(whole), "conditional": PredictFn(whole, guided=False)}

    def plan(self, timesteps: Sequence[int]) -> Sequence[str]:
        return ["guided" if self.low <= t / LEVELS <= self.high else "conditional" for t in timesteps]


class ControlShortcut:
    """Base of the shortcuts that run the ControlNet at every k-th step, and cached values in between."""

    name: ClassVar[str]

    def __init__(self, *, steps: int = 2) -> None:
        if steps < 1:
            raise UsageError(f"shortcut.{self.name}.steps = {steps}: expected 1 or more.")
        self.steps = steps

    def plan(self, timesteps: Sequence[int]) -> Sequence[str]:
        return ["cached" if i % self.steps else "full" for i in range(len(timesteps))]

    def check(self, backbone: Any) -> None:
        if not hasattr(backbone, "controlled"):
            raise SamplerError(
                f"shortcut.{self.name} needs a ControlNet that runs before its U-Net, and "
                f"{type(backbone).__name__} has none.",
                advice="Bind sampler.fast.shortcut = @shortcut.none.",
            )


@register("shortcut", "control_every")
class ControlEvery(ControlShortcut):
    """ControlNet at every k-th step; in between, the U-Net takes the residuals of the last one.

    Args:
        steps: Number of steps per run of the ControlNet, k.

    Raises:
        UsageError: k is below 1.
        SamplerError: The backbone has no ControlNet that runs before its U-Net.
    """

    name = "control_every"

    def predict_fns(self, backbone: Any) -> Mapping[str, PredictFn]:
        self.check(backbone)
        residuals = CachedOutput()

        def full(backbone: Any, *inputs: Tensor) -> Tensor:
            down, mid = backbone.control(*inputs)
            residuals.update([*down, mid])
            return backbone.controlled(*inputs[:4], down, mid)

        def cached(backbone: Any, *inputs: Tensor) -> Tensor:
            *down, mid = residuals.values()
            return backbone.controlled(*inputs[:4], down, mid)

        return {"full": PredictFn(full, caches=True), "cached": PredictFn(cached)}


@register("shortcut", "deep_cache")
class DeepCache(ControlShortcut):
    """Outer resolutions at every step, inner ones and the ControlNet at every k-th (Ma et al. 2024).

    Args:
        steps: Number of steps per run of the whole model, k.

    Raises:
        UsageError: k is below 1.
        SamplerError: The backbone has no ControlNet that runs before its U-Net.
    """

    name = "deep_cache"

    def predict_fns(self, backbone: Any) -> Mapping[str, PredictFn]:
        self.check(backbone)
        skips = backbone.unet.config.layers_per_block + 1  # of the last block
        last, residuals = CachedInput(backbone.unet.up_blocks[-1]), CachedOutput()
        backbone.unet.up_blocks[-1] = last

        def full(backbone: Any, *inputs: Tensor) -> Tensor:
            down, mid = backbone.control(*inputs)
            residuals.update(down[:skips])
            return backbone.controlled(*inputs[:4], down, mid)

        def cached(backbone: Any, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor:
            unet, tokens = backbone.unet, backbone.tokens(c, mask)
            temb = unet.time_embedding(unet.time_proj(t).to(z_t.dtype))
            x = unet.conv_in(z_t)
            states = [x, *unet.down_blocks[0](x, temb, **tokens)[1]]
            joined = tuple(x + y for x, y in zip(states, residuals.values(), strict=False))
            x = last.block(last.input.value, joined, temb, **tokens)
            return unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))

        return {"full": PredictFn(full, caches=True), "cached": PredictFn(cached)}


class CachedOutput:
    """Tensors that one step writes in place and later ones read."""

    def __init__(self) -> None:
        self.buffers: list[StaticBuffer] = []

    def update(self, values: Sequence[Tensor]) -> None:
        if not self.buffers:
            self.buffers.extend(StaticBuffer() for _ in values)
        for buffer, value in zip(self.buffers, values, strict=True):
            buffer.update(value)

    def values(self) -> list[Tensor]:
        return [buffer.value for buffer in self.buffers]


class CachedInput(UpBlockWrapper):
    """Wrapper of the last block of a U-Net that keeps its input."""

    def __init__(self, block: Any) -> None:
        super().__init__(block)
        self.input = StaticBuffer()

    def forward(self, hidden_states: Tensor, **options: Any) -> Tensor:
        self.input.update(hidden_states)
        return self.block(hidden_states=hidden_states, **options)
