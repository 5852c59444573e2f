"""What a converter writes: parts, each a component's tensors, found in a checkpoint by name and shape."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stav2a import registry
from stav2a.checkpoints import NAMES, holder, state
from stav2a.convert.reading import ConvertError

Shape = tuple[int, ...]
SHOWN = 50  # names of a kind


def _same(name: str) -> str:
    return name


@dataclass(frozen=True)
class Part:
    """A folder to write: a component with its sizes, and how a checkpoint calls its tensors.

    Args:
        folder: Below the output; "." where it is the output itself.
        component: Such as `autoencoder.kl`.
        parameters: What a recipe has to bind for these weights to fit.
        layout: Names and shapes of the component's tensors.
        prefix: Of all its keys in the checkpoint.
        theirs: Our name of a tensor -> the checkpoint's, without the prefix.
        their_shape: Our name and shape -> the shape in the checkpoint, of as many numbers.
        made: Tensors that a checkpoint does not hold, by our names.
        twins: Keys (theirs, prefix and all) that repeat another one; they may be left out, and must be equal.
        hub: What config.json says to other programs that read this layout.
        needs: What has to be put beside the weights by hand.
        notes: Further facts of the checkpoint, for config.json.
    """

    folder: str
    component: str
    parameters: Mapping[str, Any]
    layout: Mapping[str, Shape] = field(repr=False)
    prefix: str = ""
    theirs: Callable[[str], str] = _same
    their_shape: Callable[[str, Shape], Shape] = lambda name, shape: shape
    made: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    twins: Mapping[str, str] = field(default_factory=dict)
    hub: Mapping[str, Any] = field(default_factory=dict, repr=False)
    needs: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name of the weights: diffusers and transformers look for their own."""
        return NAMES[1] if "_diffusers_version" in self.hub else NAMES[0]

    def keys(self) -> dict[str, str]:
        """The checkpoint's keys -> our names."""
        return {f"{self.prefix}{self.theirs(name)}": name for name in self.layout if name not in self.made}

    def shapes(self) -> dict[str, Shape]:
        """The checkpoint's keys -> their shapes there."""
        return {key: self.their_shape(name, self.layout[name]) for key, name in self.keys().items()}

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors out of a checkpoint that `check` has found to fit."""
        taken = {name: tensors[key].reshape(self.layout[name]) for key, name in self.keys().items()}
        return taken | dict(self.made)

    def begun(self, tensors: Iterable[str]) -> bool:
        """Whether a checkpoint has any key of this part."""
        return any(key in self.keys() for key in tensors)


def check(parts: Sequence[Part], tensors: Mapping[str, Tensor], left_out: Callable[[str], bool]) -> None:
    """Every key is in its place, has its shape, and no other is there.

    Args:
        parts: What is to be written.
        tensors: The checkpoint.
        left_out: Keys that belong to the checkpoint, but to nothing here.

    Raises:
        ConvertError: Names every key that is missing, unexpected or of another shape.
    """
    shapes = {key: shape for part in parts for key, shape in part.shapes().items()}
    twins = {key: twin for part in parts for key, twin in part.twins.items()}
    faults = {
        "missing": [key for key in shapes if key not in tensors],
        "unexpected": [
            key for key in tensors if key not in shapes and key not in twins and not left_out(key)
        ],
        "of another shape": [
            f"{key} is {tuple(tensors[key].shape)}, expected {shape}"
            for key, shape in shapes.items()
            if key in tensors and tuple(tensors[key].shape) != shape
        ],
        "unlike their twins": [
            f"{key} is not {twin}"
            for key, twin in twins.items()
            if key in tensors and twin in tensors and not torch.equal(tensors[key], tensors[twin])
        ],
    }
    if any(faults.values()):
        raise ConvertError("\n".join(_listed(kind, keys) for kind, keys in faults.items() if keys))


def _listed(kind: str, keys: Sequence[str]) -> str:
    more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"  {len(keys)} {kind}: {', '.join(keys[:SHOWN])}{more}"


def meta(component: str, parameters: Mapping[str, Any], **wired: Any) -> Any:
    """A component without memory: all shapes, no numbers."""
    registry.load()
    with torch.device("meta"):
        return registry.get(*component.split(".")).factory(**wired, **parameters)


def layout_of(module: Any, *, without: str = "") -> dict[str, Shape]:
    """Names and shapes of what a checkpoint folder of this component holds."""
    tensors = state(module if without else holder(module), without=without)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
