"""Shortcuts: which parts of the model each step computes. All but `none` change the result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from stav2a.registry import register


@dataclass(frozen=True)
class Way:
    """One way to predict.

    Args:
        predict: Takes the backbone and its five inputs, returns the prediction.
        guided: Whether both branches of guidance are computed, or the conditional one alone.
    """

    predict: Callable[..., Tensor]
    guided: bool = True


def whole(backbone: Any, *inputs: Tensor) -> Tensor:
    """The backbone as it is."""
    return backbone(*inputs)


@register("shortcut", "none")
class NoShortcut:
    """All of the model at every step: exact."""

    def ways(self, backbone: Any) -> Mapping[str, Way]:
        return {"whole": Way(whole)}

    def plan(self, timesteps: Sequence[int]) -> Sequence[str]:
        return ["whole"] * len(timesteps)
