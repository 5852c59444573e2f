"""What judges have in common: weights that may be missing, a model that is loaded at the first sound."""

import functools
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from stav2a.data.io import resample_audio
from stav2a.judges import weights


class PublishedJudge(ABC):
    """A judge with published weights.

    Args:
        weights: Where they are; None is their published name in the folder of all weights.
    """

    name: ClassVar[str]  # in a table
    published: ClassVar[str]  # the weights' file, or folder
    sample_rate: ClassVar[int]
    uses_torch: ClassVar[bool] = True  # so that it hears in the main process

    def __init__(self, given: str | None) -> None:
        self.path = weights.place(given, self.published)

    @property
    def fault(self) -> str | None:
        """Why it can't judge: its weights are not there."""
        return weights.missing(self.name, self.path, self.published)

    @functools.cached_property
    def definition(self) -> str:
        """Name, front end and weights: judges that hear alike have the same."""
        return f"{self.name} ({self.front_end}; weights {weights.fingerprint(self.file)})"

    @property
    def file(self) -> Path:
        """The file of the weights."""
        assert self.path is not None and self.fault is None, "asked before its fault was"
        return self.path

    @property
    @abstractmethod
    def front_end(self) -> str:
        """How sound is prepared, in words."""

    @functools.cached_property
    @abstractmethod
    def model(self) -> Any:
        """The model with its weights, strictly loaded, in evaluation mode.

        Raises:
            CheckpointError: They belong to another model, or can't be read.
        """

    def prepare(self) -> None:
        """Load all that judging needs, so that what is wrong is told before the first sound.

        Raises:
            CheckpointError: See `model`.
        """
        self.model  # noqa: B018

    def __call__(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        import torch

        sound = resample_audio(np.asarray(audio, np.float32), sample_rate, self.sample_rate)
        with torch.no_grad():
            return self.judge(sound)

    @abstractmethod
    def judge(self, sound: np.ndarray) -> np.ndarray:
        """What the model makes of a sound at its own rate."""


def at_least(sound: np.ndarray, samples: int) -> np.ndarray:
    """The sound, ended with silence if it is shorter than a model can hear."""
    return np.pad(sound, (0, max(0, samples - len(sound))))
