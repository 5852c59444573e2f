"""Training of all stages, each taken from the store where it is finished."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from stav2a.models.adapters import is_adapter
from stav2a.models.stav2a import STAV2A
from stav2a.slots import Objective, Trainer
from stav2a.training.corpus import Corpus
from stav2a.training.objective import History, Log, TrainingContext
from stav2a.utils.checkpoints import CheckpointError
from stav2a.utils.files import write_json
from stav2a.utils.progress import followed_by
from stav2a.utils.store import POLL_EVERY_S, Store, StoreTask, in_turn, save_tensors

# Time of a step against one of text to audio, at laptop scale: it weighs the stages in the time that is left.
STEP_COST = {"contrastive": 0.6, "text_contrastive": 0.35, "onset": 0.06, "joint": 1.4}


@dataclass(frozen=True)
class PlannedStage:
    """A stage, and the signature of all that its result depends on."""

    name: str
    stage: Any
    key: str
    needs: frozenset[str] = frozenset()  # keys of the stages before it that change, or read, what it reads

    def cost(self, corpus: Corpus) -> float:
        """Its time, in steps of text to audio."""
        return float(self.stage.count_steps(corpus) * STEP_COST.get(self.name, 1.0))


def train_stages(
    planned: Sequence[PlannedStage],
    model: STAV2A,
    corpus: Corpus,
    *,
    store: Store,
    seed: int,
    objective: Objective,
    trainer: Trainer,
    log: Log,
    print_line: Callable[[str], None],
    later: float = 0.0,
    others: Sequence[StoreTask] = (),
    poll_every_s: float = POLL_EVERY_S,
) -> dict[str, History]:
    """Train the stages, or take their results from the store; the model ends up trained.

    A stage waits for those that it needs. What several processes on one store have to train they train side
    by side: each what no other one is training.

    Args:
        later: Time of what follows the stages, in steps of text to audio.
        others: Tasks besides, which need no stage.
        poll_every_s: Time between two looks at the store while waiting for another process.

    Returns:
        The losses of every stage, by its name, in the order of the plan.
    """
    histories: dict[str, History] = {}
    frozen = frozen_before(planned, model)

    def do(number: int) -> None:
        each = planned[number - 1]
        told = f"stage {number}/{len(planned)}  {each.name}"
        model.merge_adapters(changed_by(each.stage))

        def train(folder: Path) -> History:
            print_line(f"{told}: training")
            blocks = frozen[number - 1]
            return each.stage.run(
                TrainingContext(model, corpus, folder, seed, objective, blocks, log, trainer)
            )

        left = [
            other
            for other in planned
            if other is not each
            and not store.has("stage", other.key, other.name)
            and not store.is_being_made("stage", other.key, other.name)
        ]
        with followed_by((sum(other.cost(corpus) for other in left) + later) / each.cost(corpus)):
            weights, history, trained_here = train_once(
                train,
                partial(_weights, model, each.stage.trains),
                store=store,
                kind="stage",
                key=each.key,
                name=each.name,
                facts={"stage": each.name, "steps": each.stage.count_steps(corpus)},
            )
        if not trained_here:
            attach_adapter(each.stage, model)
        load_part(model, weights)
        if not trained_here:
            print_line(f"{told}: from the store")
            log_losses({each.name: history}, log)
        histories[each.name] = history

    stages = [
        StoreTask("stage", each.key, each.name, each.needs, partial(do, number))
        for number, each in enumerate(planned, start=1)
    ]

    def say_waiting(task: StoreTask) -> None:
        print_line(f"{task.name or task.kind}: waiting for the process that makes it")

    for task in in_turn([*stages, *others], store, say_waiting, poll_every_s):
        task.do()
    return {each.name: histories[each.name] for each in planned}


def frozen_before(planned: Sequence[PlannedStage], model: STAV2A) -> list[frozenset[str]]:
    """Blocks that are finished before each stage: those that are frozen now, and those trained so far."""
    own = {slot: list(model.block(slot).parameters()) for slot in model.slots}
    frozen = frozenset(slot for slot in own if own[slot] and not any(p.requires_grad for p in own[slot]))
    before = []
    for each in planned:
        before.append(frozen)
        frozen |= set(each.stage.trains) - {"unet", "backbone"}
    return before


def train_once(
    train: Callable[[Path], History],
    weights: Callable[[], Mapping[str, Tensor]],
    *,
    store: Store,
    kind: str,
    key: str,
    facts: Mapping[str, Any],
    name: str = "",
) -> tuple[dict[str, Tensor], History, bool]:
    """Train, in all processes of a run together, what the store does not have yet.

    `train` is given a folder for unfinished checkpoints; `facts` are kept beside the duration.

    Returns:
        Weights and losses, and whether they were trained now.
    """
    trained_here = False

    def make() -> Callable[[Path], None]:
        nonlocal trained_here
        trained_here, began = True, time.monotonic()
        history = train(store.partial(kind, key, name))
        seconds = round(time.monotonic() - began, 1)

        def fill(folder: Path) -> None:
            save_tensors(folder / "model.safetensors", weights())
            write_json(folder / "history.json", history)
            write_json(folder / "facts.json", {**facts, "seconds": seconds})

        return fill

    folder = store.obtain_together(kind, key, make, name)
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    return load_file(folder / "model.safetensors"), history, trained_here


def log_losses(histories: Mapping[str, History], log: Log) -> None:
    """Log the losses of stages that were trained before."""
    for stage, history in histories.items():
        for name, points in history.items():
            for step, value in points:
                log(f"{stage}/{name}", value, step)


def changed_by(stage: Any) -> set[str]:
    """The blocks that a stage changes: the U-Net is part of the backbone."""
    return set(stage.trains) | ({"unet"} if "backbone" in stage.trains else set())


def attach_adapter(stage: Any, model: STAV2A) -> None:
    """Attach the adapter of a finished stage, if it has one, for its weights to be loaded."""
    if hasattr(stage, "adapter"):
        model.attach(stage.adapter)


def _weights(model: STAV2A, slots: Sequence[str]) -> dict[str, Tensor]:
    """Tensors of blocks; of those with an adapter the adapter's alone."""
    trained, adapted = _prefixes(slots), _prefixes(model.adapters)
    return {
        name: t
        for name, t in model.state_dict().items()
        if name.startswith(trained) and (is_adapter(name) or not name.startswith(adapted))
    }


def _prefixes(slots: Iterable[str]) -> tuple[str, ...]:
    return tuple("backbone.unet." if slot == "unet" else f"{slot}." for slot in slots)


def load_part(model: STAV2A, weights: Mapping[str, Tensor]) -> None:
    """Put some of a model's weights in place.

    Raises:
        CheckpointError: The model lacks one of the names.
    """
    unknown = model.load_state_dict(weights, strict=False).unexpected_keys
    if unknown:
        raise CheckpointError(
            f"The weights hold {len(unknown)} tensors that this model lacks, first {unknown[0]}."
        )
