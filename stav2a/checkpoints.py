"""Weights from a folder: strict, and clear about what is missing."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

NAMES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
SHOWN = 5


class CheckpointError(ValueError):
    """Weights that are not there, or belong to another model."""


def load_weights(module: Any, folder: str | None, *, parameter: str) -> None:
    """Put the weights of a checkpoint folder into a module; None leaves it as it is.

    Args:
        module: Built with the checkpoint's sizes.
        folder: Holds `model.safetensors` or `diffusion_pytorch_model.safetensors`.
        parameter: The recipe's name of `folder`, for messages: `unet.stable_diffusion.checkpoint`.

    Raises:
        CheckpointError: No such folder or file, or keys that are missing, unknown or of another shape.
    """
    if folder is None:
        return
    files = [Path(folder) / name for name in NAMES if (Path(folder) / name).is_file()]
    if not files:
        raise CheckpointError(
            f"{parameter} = {folder!r}: no weights there. Expected {' or '.join(NAMES)} in that folder. "
            "Put the converted public checkpoint there, or bind None to train from nothing."
        )
    weights, wanted = load_file(files[0]), module.state_dict()
    faults = [f"missing {name}" for name in wanted if name not in weights]
    faults += [f"unknown {name}" for name in weights if name not in wanted]
    faults += [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    if faults:
        more = f", and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise CheckpointError(
            f"{parameter} = {folder!r}: {files[0].name} does not fit this model: "
            f"{'; '.join(faults[:SHOWN])}{more}. Give the sizes of the checkpoint, or another checkpoint."
        )
    module.load_state_dict(weights)
