"""Weights from a folder, and into one: strict, whole or not at all, and clear about what is missing."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stav2a.errors import UsageError

NAMES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
WEIGHTS, CONFIG = NAMES[0], "config.json"
OURS = "stav2a"  # the entry of config.json that is ours; all others are for other programs
SHOWN = 5


class CheckpointError(ValueError):
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
    files = [Path(folder) / name for name in NAMES if (Path(folder) / name).is_file()]
    if not files:
        raise CheckpointError(
            f"{parameter} = {folder!r}: no weights there. Expected {' or '.join(NAMES)} in that folder. "
            "Put the converted public checkpoint there, or bind None to train from nothing."
        )
    weights, wanted = _read(files[0], f"{parameter} = {folder!r}"), state(module, without=without)
    if faults := _faults(weights, wanted):
        more = f", and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise CheckpointError(
            f"{parameter} = {folder!r}: {files[0].name} does not fit this model: "
            f"{'; '.join(faults[:SHOWN])}{more}. Give the sizes of the checkpoint, or another checkpoint."
        )
    module.load_state_dict(weights, strict=not without)


def state(module: Any, *, without: str = "") -> dict[str, Any]:
    """A module's tensors by name, but for those of a prefix."""
    tensors = module.state_dict()
    return {name: tensors[name] for name in tensors if not (without and name.startswith(without))}


def holder(module: Any) -> Any:
    """The part of a component that a checkpoint folder fills: itself, or the stock model that it wraps.

    A stock model's folder then has the stock model's own names, which other programs read as well.
    """
    for part in module.modules():
        if getattr(part, "fills_from_a_checkpoint", False):
            whole = len(part.state_dict()) == len(module.state_dict())
            return part if whole else module
    return module


def save_weights(path: Path, tensors: Mapping[str, Any]) -> None:
    """A safetensors file. What shares memory is written for each of its names; nothing else is copied."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage()
        alone = tensor.numel() * tensor.element_size() == storage.nbytes() and storage.data_ptr() not in seen
        apart[name] = tensor if alone else tensor.clone()
        seen.add(storage.data_ptr())
    save_file(apart, path, metadata={"format": "pt"})


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends without an error.

    Raises:
        UsageError: The name is taken, or can't be had.
    """
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} is there already. Choose another folder, or move it away first.")
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"{path} can't be made ({error.strerror}). Choose a folder of your own.") from None
    try:
        yield temporary
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(file: Path, told: str) -> dict[str, Any]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise CheckpointError(
            f"{told}: {file.name} can't be read ({error}). It is cut off or damaged: make it again."
        ) from None


def _faults(weights: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    faults = [f"missing {name}" for name in wanted if name not in weights]
    faults += [f"unknown {name}" for name in weights if name not in wanted]
    faults += [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    return faults
