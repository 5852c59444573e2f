"""Weights read from a folder and written into one: strict, whole or not at all; or set to zero."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from stav2a.utils.errors import StaV2AError
from stav2a.utils.files import give_rights

Module = TypeVar("Module", bound=nn.Module)

NAMES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
WEIGHTS, CONFIG = NAMES[0], "config.json"
OURS = "stav2a"  # the entry of config.json that is ours; all others are for other programs
SHOWN = 5


class CheckpointError(StaV2AError):
    """Weights that are missing, or belong to another model."""


def zeroed(module: Module) -> Module:
    """A new module whose weights start at zero, so that it changes nothing at first."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def load_weights(module: Any, folder: str | None, *, parameter: str, without: str = "") -> None:
    """Put the weights of a checkpoint folder into a module; None leaves it as it is.

    Args:
        module: Module of the checkpoint's sizes.
        folder: Folder with `model.safetensors` or `diffusion_pytorch_model.safetensors`.
        parameter: The recipe's name of `folder`, for messages: `unet.stable_diffusion.checkpoint`.
        without: Prefix of the module's keys that are kept elsewhere, and stay as they are.

    Raises:
        CheckpointError: No such folder or file, or keys that are missing, unknown or of another shape.
    """
    module.fills_from_a_checkpoint = True  # see `holder`
    if folder is None:
        return

    def checked() -> Path:
        what = f"{parameter} = {folder!r}"
        file = next((each for name in NAMES if (each := Path(folder) / name).is_file()), None)
        if file is None:
            advice = "Put the converted public checkpoint there, or bind None to train from nothing."
            expected = f"Expected {' or '.join(NAMES)} in that folder."
            raise CheckpointError(f"{what}: no weights there.", advice=f"{expected} {advice}")
        try:
            with safe_open(file, framework="pt") as saved:
                shapes = {name: saved.get_slice(name).get_shape() for name in saved.keys()}
        except SafetensorError as error:
            message = f"{what}: {file.name} can't be read ({error})."
            raise CheckpointError(message, advice="It is cut off or damaged: make it again.") from None
        _check(shapes, state(module, without=without), f"{what}: {file.name}")
        return file

    if not skips_weights(parameter, folder, checked):
        module.load_state_dict(load_file(checked()), strict=not without)


def converted_facts(folder: str | None) -> dict[str, Any]:
    """Facts that a folder of `stav2a convert` has of its checkpoint; none of other folders."""
    if folder is None:
        return {}
    try:
        found = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))[OURS]["converted"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(found)


def load_state(module: Any, tensors: Mapping[str, Any], what: str) -> None:
    """Put tensors, by the module's own names, into a module: all of them, which messages name `what`.

    Raises:
        CheckpointError: Keys that are missing, unknown or of another shape.
    """
    _check({name: tensor.shape for name, tensor in tensors.items()}, state(module), what)
    module.load_state_dict(tensors)


def load_some(module: Any, file: Path, chosen: Callable[[str], bool]) -> None:
    """Put the tensors of a file into a module: all those whose names are chosen, and no others.

    Raises:
        CheckpointError: The file can't be read, or has keys that are missing, unknown or of another shape.
    """
    try:
        found = load_file(file)
    except (SafetensorError, OSError) as error:
        message = f"{file} can't be read ({error})."
        raise CheckpointError(message, advice="It is missing, cut off or damaged: make it again.") from None
    expected = {name: tensor for name, tensor in module.state_dict().items() if chosen(name)}
    _check({name: tensor.shape for name, tensor in found.items()}, expected, str(file))
    module.load_state_dict(found, strict=False)


@dataclass(frozen=True)
class RequestedWeights:
    """Weights that a component requested inside `no_weights`, and the reason, if any, why they can't load."""

    parameter: str
    folder: str
    fault: CheckpointError | None


_REQUESTED: ContextVar[list[RequestedWeights] | None] = ContextVar("requested", default=None)


@contextlib.contextmanager
def no_weights() -> Iterator[list[RequestedWeights]]:
    """Build components without their weights, as if they had them; the weights they request are listed.

    Example:
        >>> with no_weights() as requested:
        ...     load_weights(torch.nn.Linear(1, 1), "nowhere", parameter="unet.mine.checkpoint")
        >>> requested[0].parameter, "no weights there" in requested[0].fault.message
        ('unet.mine.checkpoint', True)
    """
    requested: list[RequestedWeights] = []
    token = _REQUESTED.set(requested)
    try:
        yield requested
    finally:
        _REQUESTED.reset(token)


def skips_weights(parameter: str, folder: str, check: Callable[[], object]) -> bool:
    """True inside `no_weights`, where the request and the fault that `check` finds are listed.

    Args:
        parameter: The recipe's name of `folder`.
        folder: Folder of the weights.
        check: Raises a `CheckpointError` if they can't be loaded; called inside `no_weights` alone.
    """
    requested = _REQUESTED.get()
    if requested is None:
        return False
    fault = None
    try:
        check()
    except CheckpointError as error:
        fault = error
    requested.append(RequestedWeights(parameter, folder, fault))
    return True


def state(module: Any, *, without: str = "") -> dict[str, Any]:
    """A module's tensors by name, without those of a prefix."""
    tensors = module.state_dict()
    return {name: tensors[name] for name in tensors if not (without and name.startswith(without))}


def fingerprint(module: Any) -> str:
    """Hash of all tensors of a module: with its settings, all that its output depends on."""
    return tensors_hash(module.state_dict())


def tensors_hash(tensors: Mapping[str, Any]) -> str:
    """Hash of tensors with their names, shapes and types."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        numbers = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + numbers.tobytes())
    return found.hexdigest()


def holder(module: Any) -> Any:
    """Part of a component that a checkpoint folder fills: itself, or the stock model that it wraps.

    The folder of a stock model has the stock model's own names, which other programs read as well.
    """
    for part in module.modules():
        if getattr(part, "fills_from_a_checkpoint", False):
            whole = len(part.state_dict()) == len(module.state_dict())
            return part if whole else module
    return module


def save_weights(path: Path, tensors: Mapping[str, Any], **facts: str) -> None:
    """Write a safetensors file of tensors by name, on any device, and of facts for its metadata.

    Tensors that share memory are copied, one for each name, and those of a GPU, whose memory is left alone.

    Raises:
        OSError: The file can't be written.
    """
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        alone = tensor.numel() * tensor.element_size() == storage.nbytes() and storage.data_ptr() not in seen
        apart[name] = tensor if alone else tensor.clone()
        seen.add(storage.data_ptr())
    try:
        save_file(apart, path, metadata={"format": "pt", **facts})
    except SafetensorError as error:  # of a full disk, too; not of tensors, which have no fault here
        raise OSError(f"{path} can't be written ({error}). Make room, or choose another folder.") from None
    give_rights(path)


def _check(found: Mapping[str, Any], module: Mapping[str, Any], what: str) -> None:
    """Compare the shapes found in a checkpoint with a module's tensors."""
    expected = {name: list(tensor.shape) for name, tensor in module.items()}
    faults = [f"missing {name}" for name in expected if name not in found]
    faults += [f"unknown {name}" for name in found if name not in expected]
    faults += [
        f"{name} is {tuple(found[name])}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and list(found[name]) != shape
    ]
    if faults:
        more = f", and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        message = f"{what} does not fit this model: {'; '.join(faults[:SHOWN])}{more}."
        raise CheckpointError(message, advice="Give the sizes of the checkpoint, or another checkpoint.")
