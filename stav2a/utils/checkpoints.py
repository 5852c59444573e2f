"""Weights from a folder, and into one: strict, whole or not at all, and clear about what is missing."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from stav2a.utils.errors import StaV2AError

NAMES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
WEIGHTS, CONFIG = NAMES[0], "config.json"
OURS = "stav2a"  # the entry of config.json that is ours; all others are for other programs
SHOWN = 5


class CheckpointError(StaV2AError):
    """Weights that are not there, or belong to another model."""


def load_weights(module: Any, folder: str | None, *, parameter: str, without: str = "") -> None:
    """Put the weights of a checkpoint folder into a module; None leaves it as it is.

    Args:
        module: Built with the checkpoint's sizes.
        folder: Holds `model.safetensors` or `diffusion_pytorch_model.safetensors`.
        parameter: The recipe's name of `folder`, for messages: `unet.stable_diffusion.checkpoint`.
        without: Prefix of the module's keys that are kept elsewhere, and stay as they are.

    Raises:
        CheckpointError: No such folder or file, or keys that are missing, unknown or of another shape.
    """
    module.fills_from_a_checkpoint = True  # see `holder`
    if folder is None:
        return
    told, wanted = f"{parameter} = {folder!r}", state(module, without=without)

    def take(read: Callable[[Path, str], Mapping[str, Any]]) -> Mapping[str, Any]:
        file = _file(folder, told)
        weights = read(file, told)
        _check(weights, wanted, f"{told}: {file.name}")
        return weights

    if not left_out(parameter, folder, lambda: take(_shapes)):
        module.load_state_dict(take(_read), strict=not without)


def load_state(module: Any, tensors: Mapping[str, Any], told: str) -> None:
    """Put tensors into a module, all of them and no others.

    Args:
        module: Of the sizes of the weights.
        tensors: By the module's own names.
        told: Which weights they are, for messages.

    Raises:
        CheckpointError: Keys that are missing, unknown or of another shape.
    """
    _check(tensors, state(module), told)
    module.load_state_dict(tensors)


@dataclass(frozen=True)
class RequestedWeights:
    """Weights that a component asked for while none were read.

    Args:
        parameter: The recipe's name of their folder.
        folder: What the recipe says.
        fault: Why they could not be loaded here; None where they could.
    """

    parameter: str
    folder: str
    fault: str | None


_ASKED: ContextVar[list[RequestedWeights] | None] = ContextVar("asked", default=None)


@contextlib.contextmanager
def no_weights() -> Iterator[list[RequestedWeights]]:
    """Inside, components are built without their weights, as if they had them; what they ask for is noted.

    Example:
        >>> with no_weights() as asked:
        ...     load_weights(torch.nn.Linear(1, 1), "nowhere", parameter="unet.mine.checkpoint")
        >>> asked[0].parameter, "no weights there" in asked[0].fault
        ('unet.mine.checkpoint', True)
    """
    asked: list[RequestedWeights] = []
    token = _ASKED.set(asked)
    try:
        yield asked
    finally:
        _ASKED.reset(token)


def left_out(parameter: str, folder: str, check: Callable[[], object]) -> bool:
    """Whether weights are to be left where they are: inside `no_weights`, which notes what `check` finds.

    Args:
        parameter: The recipe's name of `folder`.
        folder: Of the weights.
        check: Raises a `CheckpointError` if they can't be loaded; called inside `no_weights` alone.
    """
    asked = _ASKED.get()
    if asked is None:
        return False
    fault = None
    try:
        check()
    except CheckpointError as error:
        fault = str(error)
    asked.append(RequestedWeights(parameter, folder, fault))
    return True


def state(module: Any, *, without: str = "") -> dict[str, Any]:
    """A module's tensors by name, but for those of a prefix."""
    tensors = module.state_dict()
    return {name: tensors[name] for name in tensors if not (without and name.startswith(without))}


def fingerprint(module: Any) -> str:
    """A hash of all tensors of a module: with its settings, all that its output depends on."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        numbers = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + numbers.tobytes())
    return found.hexdigest()


def holder(module: Any) -> Any:
    """The part of a component that a checkpoint folder fills: itself, or the stock model that it wraps.

    A stock model's folder then has the stock model's own names, which other programs read as well.
    """
    for part in module.modules():
        if getattr(part, "fills_from_a_checkpoint", False):
            whole = len(part.state_dict()) == len(module.state_dict())
            return part if whole else module
    return module


def save_weights(path: Path, tensors: Mapping[str, Any], **facts: str) -> None:
    """A safetensors file. What shares memory is written for each of its names; nothing else is copied.

    Args:
        path: The file.
        tensors: By name, on any device.
        facts: Kept in the file's metadata.
    """
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage()
        alone = tensor.numel() * tensor.element_size() == storage.nbytes() and storage.data_ptr() not in seen
        apart[name] = tensor if alone else tensor.clone()
        seen.add(storage.data_ptr())
    save_file(apart, path, metadata={"format": "pt", **facts})


def _file(folder: str, told: str) -> Path:
    files = [Path(folder) / name for name in NAMES if (Path(folder) / name).is_file()]
    if not files:
        raise CheckpointError(
            f"{told}: no weights there. Expected {' or '.join(NAMES)} in that folder. "
            "Put the converted public checkpoint there, or bind None to train from nothing."
        )
    return files[0]


def _read(file: Path, told: str) -> dict[str, Any]:
    with _readable(file, told):
        return load_file(file)


def _shapes(file: Path, told: str) -> dict[str, Any]:
    """What is in a file, without its numbers."""
    with _readable(file, told), safe_open(file, framework="pt") as saved:
        shapes = {name: saved.get_slice(name).get_shape() for name in saved.keys()}
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@contextlib.contextmanager
def _readable(file: Path, told: str) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise CheckpointError(
            f"{told}: {file.name} can't be read ({error}). It is cut off or damaged: make it again."
        ) from None


def _check(weights: Mapping[str, Any], wanted: Mapping[str, Any], told: str) -> None:
    if faults := _faults(weights, wanted):
        more = f", and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise CheckpointError(
            f"{told} does not fit this model: {'; '.join(faults[:SHOWN])}{more}. "
            "Give the sizes of the checkpoint, or another checkpoint."
        )


def _faults(weights: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    faults = [f"missing {name}" for name in wanted if name not in weights]
    faults += [f"unknown {name}" for name in weights if name not in wanted]
    faults += [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    return faults
