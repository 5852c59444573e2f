"""An assembled model as a folder: one subfolder a block, and what joins them.

DIR/config.json                      duration, shape of the latent
DIR/local_head/config.json           the component and its parameters
DIR/local_head/model.safetensors     its weights, as its `checkpoint` parameter takes them
"""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from stav2a import __version__, registry
from stav2a.assembly import BLOCKS, STAV2A, assemble
from stav2a.checkpoints import (
    CONFIG,
    OURS,
    WEIGHTS,
    CheckpointError,
    holder,
    load_weights,
    new_folder,
    save_weights,
    state,
)
from stav2a.registry import Entry
from stav2a.store import write_json

FORMAT = 1
INSIDE = {"backbone": "unet."}  # what a block holds of another one


class PretrainedError(CheckpointError):
    """A folder that holds no model, or one of another version; or a model that can't be written down."""


def save(model: STAV2A, folder: Path) -> None:
    """Write a model down; the folder appears whole or not at all.

    Raises:
        PretrainedError: A block was made by something that is no registered component.
        UsageError: The folder is there already.
    """
    unknown = [slot for slot in BLOCKS if model.described.get(slot) is None]
    if unknown:
        raise PretrainedError(
            f"The {unknown[0]} was made by something that is no registered component with plain parameters, "
            "so another process could not make it again. Register it; see docs/components.md."
        )
    with new_folder(folder) as new:
        for slot in BLOCKS:
            _save_block(model.block(slot), slot, model.described[slot], new / slot)
        write_model(new, duration_s=model.duration_s)


def write_model(folder: Path, *, duration_s: float) -> None:
    """Say that the folders of blocks in a folder make up a model, and what joins them."""
    write_json(folder / CONFIG, {OURS: {"format": FORMAT, "version": __version__, "duration_s": duration_s}})


def load(folder: Path, others: Mapping[str, Callable[..., Any]]) -> STAV2A:
    """The model of a folder that `save` made, in evaluation mode.

    Args:
        folder: The folder.
        others: Factories by slot, in place of the folder's blocks, or for those that it lacks.

    Raises:
        PretrainedError: There is none, or one that this version can't make.
        CheckpointError: Weights do not fit their component.
        RegistryError: A component is not installed here.
    """
    facts = _config(folder)
    if facts.get("format") != FORMAT:
        raise PretrainedError(
            f"{folder} was written in format {facts.get('format')}, this version reads {FORMAT}. "
            "Save the model again with this version."
        )
    _check_slots(folder, others)
    registry.load()
    blocks = {slot: _config(folder / slot) for slot in BLOCKS if slot not in others}
    ours = {slot: _factory(slot, described, folder / slot) for slot, described in blocks.items()}
    model = assemble({**ours, **others}, duration_s=facts["duration_s"])
    for slot, described in blocks.items():
        _fill(model.block(slot), slot, described, folder / slot)
    return model.eval()


def _check_slots(folder: Path, others: Mapping[str, Any]) -> None:
    if strange := sorted(set(others) - set(BLOCKS)):
        raise PretrainedError(f"No block named {strange[0]!r}. {registry.did_you_mean(strange[0], BLOCKS)}")
    if missing := [slot for slot in BLOCKS if slot not in others and not (folder / slot).is_dir()]:
        raise PretrainedError(
            f"{folder} has no {' and no '.join(missing)}. Give what is to be there: "
            f"from_pretrained(DIR, {', '.join(f'{slot}=FACTORY' for slot in missing)})."
        )


def _save_block(block: nn.Module, slot: str, described: Mapping[str, Any], folder: Path) -> None:
    folder.mkdir()
    parameters = {name: value for name, value in described["parameters"].items() if name != "checkpoint"}
    ours = {"component": described["component"], "parameters": parameters, "trainable": _trains(block, slot)}
    if _from_hub(_entry(described["component"])):
        for part in _stock(block):
            part.save_pretrained(folder)
        known = json.loads((folder / CONFIG).read_text())
        write_json(folder / CONFIG, {**known, OURS: ours})
        return
    inside = INSIDE.get(slot, "")
    save_weights(folder / WEIGHTS, state(block if inside else holder(block), without=inside))
    write_json(folder / CONFIG, {OURS: ours})


def _fill(block: nn.Module, slot: str, described: Mapping[str, Any], folder: Path) -> None:
    if not _from_hub(_entry(described["component"])):
        inside = INSIDE.get(slot, "")
        load_weights(block if inside else holder(block), str(folder), parameter=slot, without=inside)
    if not described.get("trainable", True):
        for name, parameter in block.named_parameters():
            if not (slot in INSIDE and name.startswith(INSIDE[slot])):
                parameter.requires_grad_(False)


def _factory(slot: str, described: Mapping[str, Any], folder: Path) -> Any:
    """The component with its parameters; one from the hub takes its weights at once, the others later."""
    entry = _entry(described["component"])
    if entry.slot != slot:
        raise PretrainedError(f"{folder} holds {entry.selector}, which is no {slot}.")
    given = {name: _plain(value) for name, value in described["parameters"].items()}
    if strange := sorted(set(given) - set(entry.settable)):
        raise PretrainedError(
            f"{folder} sets {entry.selector}.{strange[0]}, which this version does not have. "
            f"{registry.did_you_mean(strange[0], entry.settable)} Save the model again with this version."
        )
    if _from_hub(entry):
        given["checkpoint"] = str(folder)
    return functools.partial(entry.factory, **given)


def _plain(value: Any) -> Any:
    """What JSON changed: components take tuples, and other components as they are."""
    if isinstance(value, list):
        return tuple(_plain(inner) for inner in value)
    if isinstance(value, dict) and set(value) == {"component", "parameters"}:
        given = {name: _plain(inner) for name, inner in value["parameters"].items()}
        return functools.partial(_entry(value["component"]).factory, **given)
    return value


def _entry(selector: str) -> Entry:
    slot, _, name = selector.partition(".")
    return registry.get(slot, name)


def _from_hub(entry: Entry) -> bool:
    """Whether the component can't be built without a checkpoint, in the layout of its stock model."""
    checkpoint = entry.settable.get("checkpoint")
    return checkpoint is not None and checkpoint.default is not None


def _stock(block: nn.Module) -> list[Any]:
    """The stock model in a component, and its tokenizer."""
    inside = [*block.children(), *vars(block).values()]
    return [part for part in inside if hasattr(part, "save_pretrained")]


def _trains(block: nn.Module, slot: str) -> bool:
    own = [p for name, p in block.named_parameters() if not name.startswith(INSIDE.get(slot, "\0"))]
    return not own or any(p.requires_grad for p in own)


def _config(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / CONFIG).read_text())[OURS]
    except (OSError, ValueError, KeyError, TypeError):
        raise PretrainedError(
            f"{folder} holds no model of ours: there is no {CONFIG} in it that says so. "
            "Give the folder that `save_pretrained` was given."
        ) from None
