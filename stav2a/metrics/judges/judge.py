"""Base of the judges: published weights that may be missing, a model that is loaded at the first sound."""

import contextlib
import functools
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stav2a.utils.checkpoints import CheckpointError
from stav2a.utils.contents import file_hash
from stav2a.utils.errors import StaV2AError
from stav2a.utils.resampling import resample_audio

if TYPE_CHECKING:
    from torch import Tensor, device

logger = logging.getLogger(__name__)

ENVIRONMENT = "STAV2A_WEIGHTS"
TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # either of both
PUT_TOKENIZER = "Put its tokenizer.json, or vocab.json and merges.txt, and its config.json into that folder."
AT_ONCE, AT_ONCE_S = 32, 320  # sounds, and seconds of them, that a GPU judges together
_FOLDER: ContextVar[Path | None] = ContextVar("weights_folder", default=None)
_DEVICE: ContextVar[str] = ContextVar("judges_device", default="auto")


@contextlib.contextmanager
def weights_in(folder: Path | None) -> Iterator[None]:
    """Set the folder of judges whose weights have no path of their own; None changes nothing."""
    token = _FOLDER.set(folder if folder is not None else _FOLDER.get())
    try:
        yield
    finally:
        _FOLDER.reset(token)


@contextlib.contextmanager
def judges_on(device: str) -> Iterator[None]:
    """Set the device of the judges that are made meanwhile: auto, cpu, cuda or cuda:1."""
    token = _DEVICE.set(device)
    try:
        yield
    finally:
        _DEVICE.reset(token)


class PublishedJudge(ABC):
    """A judge with published weights.

    Args:
        weights: Path of the weights; None is their published name in the folder of all weights.
    """

    name: ClassVar[str]  # in a table
    published: ClassVar[str]  # the weights' file, or folder
    source: ClassVar[str]  # address that has it
    sample_rate: ClassVar[int]
    uses_torch: ClassVar[bool] = True  # so that it runs in the main process

    def __init__(self, *, weights: str | None = None) -> None:
        self.path = self.default_weights() if weights is None else Path(weights)
        self.device_name = _DEVICE.get()

    @classmethod
    def default_weights(cls) -> Path | None:
        """Path of the weights if none is given: their published name in the folder of all weights, if any."""
        folder = _FOLDER.get() or os.environ.get(ENVIRONMENT)
        return Path(folder, cls.published) if folder else None

    @property
    def missing(self) -> tuple[str, str] | None:
        """Missing weights, and the remedy; None where they are there."""
        if self.path is None:
            where = f"into a folder that the environment variable {ENVIRONMENT} names"
        elif not self.path.exists():
            where = f"here: {self.path}"
        else:
            return None
        return f"weights of {self.name} not found", f"put {self.published}, from {self.source}, {where}"

    @property
    def fault(self) -> str | None:
        """Reason why it can't judge, and what to do; None where it can."""
        return ": ".join(self.missing) if self.missing else None

    @functools.cached_property
    def definition(self) -> str:
        """Name, front end and a hash of the weights: equal for judges that give equal results.

        Raises:
            CheckpointError: A folder lies where the file was expected.
        """
        file = self.file
        if file.is_dir():
            raise CheckpointError(
                f"{file} is a folder; the weights of {self.name} are a file.",
                advice=f"Give {self.published} itself, from {self.source}.",
            )
        return f"{self.name} ({self.front_end}; weights {file_hash(file)[:12]})"

    @property
    def file(self) -> Path:
        """The file of the weights."""
        assert self.path is not None and self.fault is None, "asked before its fault was"
        return self.path

    @functools.cached_property
    def device(self) -> "device":
        """Device of the model: the process's GPU or the CPU, if `judges_on` named no other.

        Raises:
            UsageError: It is not there.
        """
        from stav2a.utils.distributed import device_named

        return device_named(self.device_name)

    @property
    @abstractmethod
    def front_end(self) -> str:
        """Description of how sound is prepared."""

    @functools.cached_property
    def model(self) -> Any:
        """The model on its device, in evaluation mode.

        Raises:
            CheckpointError: See `load`.
            StaV2AError: The memory of the GPU is too small for it.
        """
        with self._room():
            return self.load().eval().to(self.device)

    @abstractmethod
    def load(self) -> Any:
        """The model with its weights, strictly loaded.

        Raises:
            CheckpointError: The weights belong to another model, or can't be read.
        """

    def prepare(self) -> None:
        """Load all that judging needs, so that errors come before the first sound.

        Raises:
            CheckpointError: See `model`.
        """
        self.model  # noqa: B018

    @functools.cached_property
    def at_once(self) -> int:
        """Number of sounds judged together, at most: 1 on a CPU, where more are no faster and change bits."""
        return 1 if self.device.type == "cpu" else AT_ONCE

    @property
    def samples(self) -> int:
        """Number of samples of the sounds judged together, unless one sound alone has more."""
        return AT_ONCE_S * self.sample_rate

    def batch_size(self, length: int) -> int:
        """Number of sounds of this many samples that are judged together."""
        return max(1, min(self.at_once, self.samples // max(1, length)))

    def __call__(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        return self.judge_together([self.resampled(audio, sample_rate)])[0]

    def resampled(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        """A sound at the model's own rate.

        Shapes:
            (S,) -> (S',) float32
        """
        return resample_audio(np.asarray(audio, np.float32), sample_rate, self.sample_rate)

    def judge_together(self, sounds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Features of sounds of equal length at the model's own rate.

        Where a GPU runs out of memory, batches are halved from then on, and a line is logged.

        Raises:
            StaV2AError: The memory of the GPU is too small for a single sound.
        """
        import torch

        found: list[np.ndarray] = []
        while len(found) < len(sounds):
            batch = np.stack(sounds[len(found) :][: self.batch_size(len(sounds[0]))])
            try:
                with self._room(), torch.no_grad():
                    found += self.judge_batch(batch)
            except NoRoomError:
                if len(batch) == 1:
                    raise
                self.at_once = len(batch) // 2
                told = "%s has no room for %s and %d sounds: from now on at most %d at once."
                logger.warning(told, self.device, self.name, len(batch), self.at_once)
        return found

    @abstractmethod
    def judge_batch(self, sounds: np.ndarray) -> Sequence[np.ndarray]:
        """Features of each of some sounds of equal length at the model's own rate.

        Shapes:
            (B, S) -> B features
        """

    def __getstate__(self) -> dict[str, Any]:
        """All but the model and its device: another process loads its own, on its own device."""
        own = ("model", "device", "at_once")
        return {name: value for name, value in vars(self).items() if name not in own}

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        """Context that turns a lack of memory of the GPU into an error of ours."""
        import torch

        try:
            yield
        except torch.OutOfMemoryError as error:
            reason = next(iter(str(error).splitlines()), "out of memory")
            raise NoRoomError(
                f"{self.device} has no room for {self.name}: {reason}",
                advice="Free its memory, take another --device, or --device cpu.",
            ) from None

    def tensor(self, array: np.ndarray) -> "Tensor":
        """The array on the model's device."""
        import torch

        return torch.from_numpy(array).to(self.device)


class NoRoomError(StaV2AError):
    """A GPU whose memory is too small for a judge's model, or for one sound or picture."""


class AudioVisualJudge(PublishedJudge):
    """A judge of the picture too: sound and picture are judged apart, each once a file."""

    @abstractmethod
    def frame_times_s(self, duration_s: float) -> np.ndarray:
        """Times of the frames that it takes of a clip.

        Shapes:
            seconds -> (L,)

        Raises:
            MetricError: The clip is too short.
        """

    def film_times_s(self, film_s: np.ndarray, duration_s: float) -> np.ndarray:
        """Times of the frames that it takes of a clip, where they depend on those of all frames of its film.

        Shapes:
            (N,), seconds -> (L,)
        """
        return self.frame_times_s(duration_s)

    @abstractmethod
    def fit(self, frame: np.ndarray) -> np.ndarray:
        """One frame as `watch` takes it: resized, cropped.

        Shapes:
            (H, W, 3) uint8 RGB -> (h, w, 3) uint8
        """

    def watched(self, frames: np.ndarray) -> np.ndarray:
        """Features of a picture, as `__call__` gives those of a sound.

        Shapes:
            (L, h, w, 3) uint8, fitted -> features

        Raises:
            StaV2AError: The memory of the GPU is too small for it.
        """
        import torch

        with self._room(), torch.no_grad():
            return self.watch(frames)

    @abstractmethod
    def watch(self, frames: np.ndarray) -> np.ndarray:
        """Features of the fitted frames."""


class TokenizerBeside(PublishedJudge):
    """A judge of texts whose weights' file has a folder of its tokenizer beside it."""

    tokenizer_name: ClassVar[str]  # of the folder
    tokenizer_source: ClassVar[str]  # address that has it

    @property
    def missing(self) -> tuple[str, str] | None:
        tokenizer = f"a folder {self.tokenizer_name} with the tokenizer of {self.tokenizer_source} beside it"
        if lacking := super().missing:
            return lacking[0], f"{lacking[1]}, and {tokenizer}"
        if not self.tokenizer_folder.is_dir():
            return f"tokenizer of {self.name} not found", f"put {tokenizer}: {self.tokenizer_folder}"
        return None

    @property
    def tokenizer_folder(self) -> Path:
        """Folder of the tokenizer, as transformers reads it."""
        assert self.path is not None, "asked before what is missing was"
        return self.path.parent / self.tokenizer_name


def tokenizer_in(folder: Path) -> Any:
    """Tokenizer of a judge of texts, as transformers reads it.

    Raises:
        CheckpointError: Its files are missing, or can't be read.
    """
    from transformers import AutoTokenizer

    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZER_FILES):
        raise CheckpointError(f"{folder}: no tokenizer there.", advice=PUT_TOKENIZER)  # or it would be empty
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{folder}: no tokenizer there ({reason}).", advice=PUT_TOKENIZER) from None


def padded(sound: np.ndarray, samples: int) -> np.ndarray:
    """The sound or sounds, padded with silence to a model's shortest input.

    Shapes:
        (…, S) -> (…, max(S, samples))
    """
    return np.pad(sound, [(0, 0)] * (sound.ndim - 1) + [(0, max(0, samples - sound.shape[-1]))])


def records(kind: np.dtype, embeddings: "Tensor", logits: "Tensor") -> list[np.ndarray]:
    """A classifier's outputs, one record a sound.

    Shapes:
        (B, D), (B, C) -> B records (): embedding (D,), logits (C,)
    """
    both = zip(embeddings.cpu().numpy(), logits.cpu().numpy(), strict=True)
    return [np.array(each, dtype=kind) for each in both]
