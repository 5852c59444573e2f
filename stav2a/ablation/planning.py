"""What a study comes to: every run with its signature, and what of it is there. Nothing is trained here."""

import logging
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stav2a import recipe
from stav2a.ablation.study import Loaded, Row, StudyError
from stav2a.experiment import Experiment
from stav2a.keys import Keys, Part
from stav2a.registry import did_you_mean
from stav2a.run_folder import RunFolder
from stav2a.store import Store

Measured = dict[str, str]  # the better direction of every metric; "" stands for metrics that don't tell


@dataclass(frozen=True)
class Overlay:
    """What is laid over every row.

    Args:
        recipes: Such as a scale.
        bindings: Laid over them.
        trust: Let recipes import any module.

    Raises:
        StudyError: A binding of the seed, which is the study's to set.
    """

    recipes: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()
    trust: bool = False

    def __post_init__(self) -> None:
        for binding in self.bindings:
            if binding.replace(" ", "").startswith("run.seed="):
                raise StudyError(f"--bind {binding!r}: a study sets the seeds. Write --seeds 0 1 2.")


@dataclass(frozen=True)
class PlannedRun:
    """One row with one seed.

    Args:
        row: Of the study.
        seed: Of everything random in it.
        recipes: What `stav2a run --gin` is given.
        bindings: What `stav2a run --bind` is given.
        signature: Of the whole configuration.
        folder: Where the run is, or will be.
        parts: What it takes from the store or makes, in order.
        described: The whole configuration.
    """

    row: Row
    seed: int
    recipes: tuple[str, ...]
    bindings: tuple[str, ...]
    signature: str
    folder: RunFolder
    parts: tuple[Part, ...]
    described: Any = field(repr=False)

    @property
    def title(self) -> str:
        """How people are told of it."""
        return f"{self.row.name}, seed {self.seed}"

    def lacks(self, store: Store) -> list[Part]:
        """What it will make; nothing where it is finished."""
        if self.folder.finished:
            return []
        return [part for part in self.parts if not store.has(part.kind, part.key)]

    def may_start(self, store: Store, claimed: Container[str]) -> bool:
        """Whether it would begin with something else than to wait.

        Args:
            store: What is finished by now.
            claimed: Keys of what the running ones lacked when they were started.
        """
        lacking = self.lacks(store)
        return not lacking or lacking[0].key not in claimed


@dataclass(frozen=True)
class Plan:
    """All runs of a study, row by row over the seeds, so that neighbours train different stages.

    Args:
        study: What was asked for.
        runs: In the order in which they are started.
        store: What is finished already.
        overlay: What is laid over every row.
    """

    study: Loaded
    runs: tuple[PlannedRun, ...]
    store: Store
    overlay: Overlay

    def to_make(self) -> list[Part]:
        """What is lacking, each once, in the order in which it is made."""
        return list({(p.kind, p.key): p for run in self.runs for p in run.lacks(self.store)}.values())

    def signature(self) -> str:
        """A key for the study as it stands: its runs, and how they are compared."""
        runs = [[run.row.name, run.row.builds_on, run.seed, run.signature] for run in self.runs]
        study = self.study
        return recipe.signature([study.name, runs, study.baseline, study.metrics, study.published])


def plan(study: Loaded, output: Path, overlay: Overlay | None = None) -> Plan:
    """Load every row's recipe with every seed, one after another, and see what the store has of it.

    Args:
        study: What to plan.
        output: Holds the run folders and the store.
        overlay: What is laid over every row.

    Raises:
        RecipeError: A row's recipe doesn't load.
        StudyError: Two rows are the same, or a metric is measured by no row.
    """
    store, overlay, measured = Store(output / "store"), overlay or Overlay(), Measured()
    with _each_warning_once():
        runs = tuple(
            _planned(row, seed, store, overlay, measured) for row in study.rows for seed in study.seeds
        )
    _check_metrics(study, measured)
    _check_different(study, runs)
    return Plan(study, runs, store, overlay)


def _planned(row: Row, seed: int, store: Store, overlay: Overlay, measured: Measured) -> PlannedRun:
    recipes = (*(recipe.shown(path) for path in row.recipes), *overlay.recipes)
    bindings = (*row.bindings, *overlay.bindings, f"run.seed = {seed}")
    loaded = recipe.load(recipes, bindings, trust=overlay.trust)
    experiment = Experiment()  # type: ignore[call-arg]  # gin supplies every argument
    for factory in experiment.metrics:
        sheet = getattr(factory(), "sheet", None)
        measured[sheet.name if sheet else ""] = "higher" if sheet and sheet.higher_is_better else "lower"
    described, signature = loaded.described(), loaded.signature()
    return PlannedRun(
        row=row,
        seed=seed,
        recipes=recipes,
        bindings=bindings,
        signature=signature,
        folder=RunFolder(store.root.parent / f"{loaded.named[0].stem}-{signature[:8]}"),
        parts=tuple(Keys(experiment).parts()),
        described=described,
    )


def _check_metrics(study: Loaded, measured: Measured) -> None:
    """Refuse now what would be found only after the training."""
    for name, direction in study.metrics.items():
        place = study.place("metrics", name)
        if name in measured and direction != measured[name]:
            message = f"study.metrics: {name} is better when it is {measured[name]}, not {direction}."
            raise StudyError(message, place, f"Write {name!r}: {measured[name]!r}.")
        if name not in measured and "" not in measured:
            message = f"study.metrics: no row measures {name!r}."
            raise StudyError(message, place, did_you_mean(name, measured))


def _check_different(study: Loaded, runs: Sequence[PlannedRun]) -> None:
    first: dict[str, PlannedRun] = {}
    for run in runs:
        other = first.setdefault(run.signature, run)
        if other is not run:
            message = f"Rows {other.row.name!r} and {run.row.name!r} are the same: every setting is equal."
            advice = "Leave one out; or see whether what is laid over all rows hides their difference."
            raise StudyError(message, study.place("rows", run.row.name), advice)


@contextmanager
def _each_warning_once() -> Iterator[None]:
    """The seeds of a row warn of the same."""
    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not (message in seen or seen.add(message))  # type: ignore[func-returns-value]

    logger = logging.getLogger("stav2a.recipe")
    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)
