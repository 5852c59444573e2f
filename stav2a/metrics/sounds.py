"""What is listened to, and the ears that listen. Arrays in, arrays out."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import NamedTuple, Protocol

import numpy as np

from stav2a.metrics.errors import MetricError

# audio (S,) and its rate in Hz -> what this ear makes of it: onsets, embeddings. Equal sounds, equal arrays.
Ear = Callable[[np.ndarray, int], np.ndarray]


class Heard(NamedTuple):
    """What an ear made of each clip's two sounds, in the order of the clips."""

    generated: list[np.ndarray]
    references: list[np.ndarray]


class Sounds(Protocol):
    """Generated sounds beside the real ones, clip by clip, both as long as the shorter of them."""

    @property
    def definition(self) -> str:
        """Which sounds: for the definition of a score."""

    def __len__(self) -> int: ...

    def hear(self, ear: Ear) -> Heard:
        """What an ear makes of all of them; listened to once, however many metrics ask."""

    def duration_s(self, clip: int) -> float:
        """How long both sounds of a clip are taken, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Sounds in memory.

    Args:
        generated: Generated sounds, (S_i,) each, in [-1, 1].
        references: The clips' real sounds, (S_i,) each.
        sample_rate: Of both, in Hz.

    Raises:
        MetricError: Different numbers of sounds; a sound that is empty, not mono, or not finite.
    """

    generated: Sequence[np.ndarray]
    references: Sequence[np.ndarray]
    sample_rate: int
    _heard: dict[object, Heard] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.generated) != len(self.references):
            raise MetricError(
                f"{len(self.generated)} generated sounds but {len(self.references)} real ones. "
                "Give one of each a clip."
            )
        for side in ("generated", "references"):
            for place, sound in enumerate(getattr(self, side)):
                _check_sound(sound, f"sound {place} of the {side}")

    @property
    def definition(self) -> str:
        return f"sound at {self.sample_rate} Hz"

    def __len__(self) -> int:
        return len(self.generated)

    def duration_s(self, clip: int) -> float:
        return min(len(self.generated[clip]), len(self.references[clip])) / self.sample_rate

    def hear(self, ear: Ear) -> Heard:
        key = _key(ear)
        if key not in self._heard:
            self._heard[key] = self._listen(ear)
        return self._heard[key]

    def _listen(self, ear: Ear) -> Heard:
        heard = Heard([], [])
        for ours, theirs in zip(self.generated, self.references, strict=True):
            samples = min(len(ours), len(theirs))
            heard.generated.append(np.asarray(ear(ours[:samples], self.sample_rate)))
            heard.references.append(np.asarray(ear(theirs[:samples], self.sample_rate)))
        return heard


def describe(ear: Ear) -> str:
    """An ear in words, for definitions: its own `definition`, or its name and public settings."""
    if definition := getattr(ear, "definition", None):
        return str(definition)
    if isinstance(ear, FunctionType):
        return ear.__name__
    settings = ", ".join(f"{k}={v!r}" for k, v in vars(ear).items() if not k.startswith("_"))
    return f"{type(ear).__name__}({settings})"


def _key(ear: Ear) -> object:
    """Equal for ears of equal definition, or class and settings; the ear itself where that can't be told."""
    if definition := getattr(ear, "definition", None):
        return definition
    try:
        return pickle.dumps(ear)
    except (pickle.PicklingError, AttributeError, TypeError):
        return ear


def _check_sound(sound: np.ndarray, what: str) -> None:
    if np.ndim(sound) != 1 or not np.size(sound):
        raise MetricError(f"{what} is of shape {np.shape(sound)}. Give mono samples (S,), at least one.")
    if not np.isfinite(sound).all():
        raise MetricError(f"{what} holds samples that are not finite.")
