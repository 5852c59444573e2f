"""Shortcuts: which parts of the model each step computes. All but `none` change the result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from stav2a.registry import register
from stav2a.sampling.fast.scheduler_table import SamplerError
from stav2a.sampling.fast.static_backbone import StaticBuffer
from stav2a.utils.errors import UsageError

LEVELS = 1000  # of noise, in training


@dataclass(frozen=True)
class PredictFn:
    """One way to predict.

    Args:
        predict: Takes the backbone and its five inputs, returns the prediction.
        guided: Whether both branches of guidance are computed, or the conditional one alone.
        keeps: Whether it keeps tensors for other ways, which its first run makes.
    """

    predict: Callable[..., Tensor]
    guided: bool = True
    keeps: bool = False


def whole(backbone: Any, *inputs: Tensor) -> Tensor:
    """The backbone as it is."""
    return backbone(*inputs)


@register("shortcut", "none")
class NoShortcut:
    """All of the model at every step: exact."""

    def ways(self, backbone: Any) -> Mapping[str, PredictFn]:
        return {"whole": PredictFn(whole)}

    def plan(self, timesteps: Sequence[int]) -> Sequence[str]:
        return ["whole"] * len(timesteps)


@register("shortcut", "guidance_interval")
class GuidanceInterval:
    """Guidance at the middle noise levels alone, the conditional branch elsewhere (Kynkäänniemi et al. 2024).

    Args:
        low: Guidance ends below this share of the noise levels.
        high: Guidance begins at this share of them; 1 is pure noise.

    Raises:
        UsageError: The bounds are not in order.
    """

    def __init__(self, *, low: float = 0.2, high: float = 0.8) -> None:
        if not 0 <= low < high <= 1:
            raise UsageError(
                f"shortcut.guidance_interval.low = {low}, high = {high}: expected 0 <= low < high <= 1."
            )
        self.low, self.high = low, high

    def ways(self, backbone: Any) -> Mapping[str, PredictFn]:
        return {"guided": PredictFn(whole), "conditional": PredictFn(whole, guided=False)}

    def plan(self, timesteps: Sequence[int]) -> Sequence[str]:
        inside = [self.low <= t / LEVELS <= self.high for t in timesteps]
        return ["guided" if guided else "conditional" for guided in inside]


@register("shortcut", "control_every")
class ControlEvery:
    """The ControlNet at every k-th step; in between, the U-Net takes what it gave last.

    Args:
        steps: k.

    Raises:
        UsageError: k is below 1.
        SamplerError: The backbone has no ControlNet that runs before its U-Net.
    """

    def __init__(self, *, steps: int = 2) -> None:
        self.steps = _at_least_one("control_every", steps)

    def ways(self, backbone: Any) -> Mapping[str, PredictFn]:
        _check_control("control_every", backbone)
        kept = CachedOutput()

        def anew(backbone: Any, *inputs: Tensor) -> Tensor:
            down, mid = backbone.control(*inputs)
            kept.hold([*down, mid])
            return backbone.controlled(*inputs[:4], down, mid)

        def again(backbone: Any, *inputs: Tensor) -> Tensor:
            *down, mid = kept.values()
            return backbone.controlled(*inputs[:4], down, mid)

        return {"anew": PredictFn(anew, keeps=True), "again": PredictFn(again)}

    def plan(self, timesteps: Sequence[int]) -> Sequence[str]:
        return every(self.steps, len(timesteps))


@register("shortcut", "deep_cache")
class DeepCache:
    """The outer resolutions at every step, the inner ones and the ControlNet at every k-th (Ma et al. 2024).

    Args:
        steps: k.

    Raises:
        UsageError: k is below 1.
        SamplerError: The backbone has no ControlNet that runs before its U-Net.
    """

    def __init__(self, *, steps: int = 2) -> None:
        self.steps = _at_least_one("deep_cache", steps)

    def ways(self, backbone: Any) -> Mapping[str, PredictFn]:
        _check_control("deep_cache", backbone)
        skips = backbone.unet.config.layers_per_block + 1  # that the last block takes
        entrance, control = Entrance(backbone.unet.up_blocks[-1]), CachedOutput()
        backbone.unet.up_blocks[-1] = entrance

        def anew(backbone: Any, *inputs: Tensor) -> Tensor:
            down, mid = backbone.control(*inputs)
            control.hold(down[:skips])
            return backbone.controlled(*inputs[:4], down, mid)

        def again(backbone: Any, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor:
            unet = backbone.unet
            tokens = {"encoder_hidden_states": c, "encoder_attention_mask": mask}
            temb = unet.time_embedding(unet.time_proj(t).to(z_t.dtype))
            x = unet.conv_in(z_t)
            states = [x, *unet.down_blocks[0](x, temb, **tokens)[1]]
            joined = tuple(x + y for x, y in zip(states, control.values(), strict=False))
            x = entrance.block(entrance.entered.value, joined, temb, **tokens)
            return unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))

        return {"anew": PredictFn(anew, keeps=True), "again": PredictFn(again)}

    def plan(self, timesteps: Sequence[int]) -> Sequence[str]:
        return every(self.steps, len(timesteps))


def every(k: int, steps: int) -> list[str]:
    """`anew` at every k-th step, `again` in between.

    Example:
        >>> every(3, 5)
        ['anew', 'again', 'again', 'anew', 'again']
    """
    return ["again" if i % k else "anew" for i in range(steps)]


class CachedOutput:
    """Tensors kept from a step to later ones, in their places."""

    def __init__(self) -> None:
        self.held: list[StaticBuffer] = []

    def hold(self, values: Sequence[Tensor]) -> None:
        if not self.held:
            self.held.extend(StaticBuffer() for _ in values)
        for held, value in zip(self.held, values, strict=True):
            held.hold(value)

    def values(self) -> list[Tensor]:
        return [held.value for held in self.held]


class Entrance(nn.Module):
    """In the place of a U-Net's last block, which it calls: keeps what enters there."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block, self.entered = block, StaticBuffer()
        self.resnets, self.has_cross_attention = block.resnets, getattr(block, "has_cross_attention", False)

    def forward(self, hidden_states: Tensor, **named: Any) -> Tensor:
        self.entered.hold(hidden_states)
        return self.block(hidden_states=hidden_states, **named)


def _at_least_one(name: str, steps: int) -> int:
    if steps < 1:
        raise UsageError(f"shortcut.{name}.steps = {steps}: expected 1 or more.")
    return steps


def _check_control(name: str, backbone: Any) -> None:
    if not hasattr(backbone, "controlled"):
        raise SamplerError(
            f"shortcut.{name} needs a ControlNet that runs before its U-Net, and {type(backbone).__name__} "
            "has none. Bind sampler.fast.shortcut = @shortcut.none."
        )
