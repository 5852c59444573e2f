"""Encoders of the transformers library: with random weights, or from a local folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stav2a.checkpoints import CheckpointError, left_out

ADVICE = "Give a folder with config.json and model.safetensors, or bind None to train from nothing."


def build(kind: Any, config: Any, checkpoint: str | None, name: str, same: Mapping[str, str]) -> Any:
    """A transformers model.

    Args:
        kind: Its class.
        config: Its configuration where there is no checkpoint.
        checkpoint: A folder, whose own configuration counts; None gives random weights.
        name: Of the component.
        same: Fields of the configuration that a checkpoint must share, with the component's names for them.

    Raises:
        CheckpointError: No such model there, one of other sizes, or only a part of it.
    """
    if checkpoint is None:
        return kind(config)
    where = f"feature_encoder.{name}.checkpoint = {checkpoint!r}"

    def agreed() -> Any:
        return _agreed(config, where, checkpoint, name, same)

    if left_out(f"feature_encoder.{name}.checkpoint", checkpoint, agreed):
        return kind(config)
    found = agreed()
    options = {"config": found, "dtype": torch.float32, "output_loading_info": True}
    model, told = _from_folder(kind, where, checkpoint, **options)
    if missing := sorted(told["missing_keys"]):
        raise CheckpointError(
            f"{where} lacks {len(missing)} of the weights of {kind.__name__}, first {missing[0]}. "
            "Give the folder of such a model, as transformers saves it."
        )
    return model


def _agreed(config: Any, where: str, checkpoint: str, name: str, same: Mapping[str, str]) -> Any:
    """The checkpoint's own configuration, which shares what it must."""
    if not (Path(checkpoint) / "config.json").is_file():  # transformers would take its defaults
        raise CheckpointError(f"{where}: no config.json there. {ADVICE}")
    found = _from_folder(type(config), where, checkpoint)
    for field, parameter in same.items():
        selector = f"feature_encoder.{name}.{parameter}"
        _compare(where, selector, getattr(config, field), getattr(found, field))
    return found


def _from_folder(kind: Any, where: str, checkpoint: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(checkpoint, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{where} can't be loaded: {str(error).splitlines()[0]} {ADVICE}") from error


def _compare(where: str, selector: str, wanted: object, found: object) -> None:
    if wanted != found:
        raise CheckpointError(
            f"{where}: the checkpoint has {found} where {selector} = {wanted}. Bind {selector} = {found}, "
            "or give another checkpoint."
        )
