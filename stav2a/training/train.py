"""Which stages there are to train, and which of them the store already holds."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stav2a.models.stav2a import BLOCKS, STAV2A
from stav2a.training.corpus import Corpus, TrainingContext
from stav2a.utils import distributed
from stav2a.utils.checkpoints import CheckpointError
from stav2a.utils.files import write_json
from stav2a.utils.store import Store, load_tensors, save_tensors

Log = Callable[[str, float, int], None]
Signature = Callable[[Any], str]


@dataclass(frozen=True)
class PlannedStage:
    """A stage, and the signature of all that its result depends on."""

    name: str
    stage: Any
    key: str


def plan_stages(
    stages: Sequence[tuple[str, Any, Any]],
    blocks: Mapping[str, Any],
    *,
    given: Mapping[str, Any],
    signature: Signature,
) -> list[PlannedStage]:
    """Give every stage its key: its settings, the blocks it uses, and the stages that trained them.

    Args:
        stages: Name, description and instance of every stage, in order.
        blocks: Description of every block, by slot.
        given: What all stages depend on: data, seed, format.
        signature: Turns a description into a key.
    """
    planned: list[PlannedStage] = []
    for name, described, stage in stages:
        if not stage.steps:  # its blocks come with their weights
            continue
        inputs = [each.key for each in planned if _trained(each.stage) & set(stage.uses)]
        used = {slot: blocks[slot] for slot in stage.uses}
        key = signature({"stage": described, "blocks": used, "inputs": inputs, "given": dict(given)})
        planned.append(PlannedStage(name, stage, key))
    return planned


def block_keys(
    planned: Sequence[PlannedStage], blocks: Mapping[str, Any], *, given: Any, signature: Signature
) -> dict[str, str]:
    """A key for what each block makes of the data: its description, and the stages that train it."""
    keys = {}
    for slot in BLOCKS:
        trained_by = [each.key for each in planned if slot in _trained(each.stage)]
        keys[slot] = signature([blocks[slot], trained_by, given])
    return keys


def _trained(stage: Any) -> set[str]:
    """The blocks that a stage changes: the U-Net is part of the backbone."""
    return set(stage.trains) | ({"unet"} if "backbone" in stage.trains else set())


def train_stages(
    planned: Sequence[PlannedStage],
    model: STAV2A,
    corpus: Corpus,
    *,
    store: Store,
    seed: int,
    prediction_type: str,
    trainer: Any,
    log: Log,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Run the stages in order, or take their results from the store; the model ends up trained.

    Returns:
        The losses of every stage, by its name.
    """
    frozen = frozenset(_pretrained(model))
    histories = {}
    for number, each in enumerate(planned, start=1):
        found = distributed.broadcast_from_main(store.has("stage", each.key, each.name))
        tell(f"stage {number}/{len(planned)}  {each.name}: {'from the store' if found else 'training'}")

        def work(folder: Path, frozen: frozenset[str] = frozen) -> TrainingContext:
            return TrainingContext(model, corpus, folder, seed, prediction_type, frozen, log, trainer)

        folder, history = _trained_in(store, each, work, log)
        load_part(model, load_tensors(folder / "model.safetensors"))
        histories[each.name] = history
        frozen |= set(each.stage.trains) - {"unet", "backbone"}
    return histories


def _trained_in(
    store: Store, planned: PlannedStage, work: Callable[[Path], TrainingContext], log: Log
) -> tuple[Path, dict[str, Any]]:
    """The store's folder of a finished stage, and its losses, which are logged now or were while training."""
    trained_here = False

    def train() -> Callable[[Path], None]:
        nonlocal trained_here
        trained_here, began = True, time.monotonic()
        surroundings = work(store.partial("stage", planned.key, planned.name))
        history = planned.stage.run(surroundings)
        seconds = round(time.monotonic() - began, 1)

        def keep(made: Path) -> None:
            save_tensors(made / "model.safetensors", _weights(surroundings.model, planned.stage.trains))
            write_json(made / "history.json", history)
            write_json(
                made / "facts.json",
                {"stage": planned.name, "steps": planned.stage.steps, "seconds": seconds},
            )

        return keep

    folder = store.obtain_together("stage", planned.key, train, planned.name)
    history = json.loads((folder / "history.json").read_text())
    if not trained_here:
        log_losses({planned.name: history}, log)
    return folder, history


def log_losses(histories: Mapping[str, Any], log: Log) -> None:
    """Tell a log again what it would have heard while the stages were trained."""
    for stage, history in histories.items():
        for name, points in history.items():
            for step, value in points:
                log(f"{stage}/{name}", value, step)


def _pretrained(model: STAV2A) -> list[str]:
    """Blocks that came with their weights, and froze them."""
    return [
        slot
        for slot in BLOCKS
        if (parameters := list(model.block(slot).parameters()))
        and not any(p.requires_grad for p in parameters)
    ]


def _weights(model: STAV2A, slots: Sequence[str]) -> dict[str, Tensor]:
    prefixes = tuple("backbone.unet." if slot == "unet" else f"{slot}." for slot in slots)
    return {name: t for name, t in model.state_dict().items() if name.startswith(prefixes)}


def load_part(model: STAV2A, weights: Mapping[str, Tensor]) -> None:
    """Put some of a model's weights in place; a name that the model lacks is an error."""
    unknown = model.load_state_dict(weights, strict=False).unexpected_keys
    if unknown:
        raise CheckpointError(
            f"The weights hold {len(unknown)} tensors that this model lacks, first {unknown[0]}."
        )
