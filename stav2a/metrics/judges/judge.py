"""What judges have in common: weights that may be missing, a model that is loaded at the first sound."""

import contextlib
import functools
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from stav2a.utils.resampling import resample_audio

ENVIRONMENT = "STAV2A_WEIGHTS"
_FOLDER: ContextVar[Path | None] = ContextVar("weights_folder", default=None)


@contextlib.contextmanager
def looked_for_in(folder: Path | None) -> Iterator[None]:
    """Inside, judges whose weights have no path of their own look into this folder; None changes nothing."""
    token = _FOLDER.set(folder if folder is not None else _FOLDER.get())
    try:
        yield
    finally:
        _FOLDER.reset(token)


def place(given: str | None, published: str) -> Path | None:
    """Where weights should be: a path that was given, or the published name in the folder of all.

    Args:
        given: A judge's own setting.
        published: The name under which the weights are published.
    """
    if given is not None:
        return Path(given)
    folder = _FOLDER.get() or os.environ.get(ENVIRONMENT)
    return Path(folder) / published if folder else None


def missing(what: str, at: Path | None, published: str) -> str | None:
    """What to say of weights that are not there; None where they are."""
    if at is None:
        return (
            f"weights of {what} not found: put {published} into a folder and name it with --weights-dir or "
            f"${ENVIRONMENT}"
        )
    return None if at.exists() else f"weights of {what} not found: put {published} here: {at}"


def fingerprint(file: Path) -> str:
    """The first letters of a file's sha256, to tell weights apart in definitions."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:12]


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
        self.path = place(given, self.published)

    @property
    def fault(self) -> str | None:
        """Why it can't judge: its weights are not there."""
        return missing(self.name, self.path, self.published)

    @functools.cached_property
    def definition(self) -> str:
        """Name, front end and weights: judges that hear alike have the same."""
        return f"{self.name} ({self.front_end}; weights {fingerprint(self.file)})"

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
