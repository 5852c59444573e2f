"""What a study comes to: every run with its signature, and what of it is there. Nothing is trained here."""

import json
import logging
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stav2a import recipe
from stav2a.experiments.ablation.study import LoadedStudy, StudyError, StudyRow
from stav2a.experiments.experiment import Experiment, Keys, StoreEntry
from stav2a.experiments.run_folder import RunFolder
from stav2a.recipe import describing, parsing
from stav2a.registry import did_you_mean
from stav2a.utils.store import Store

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

    row: StudyRow
    seed: int
    recipes: tuple[str, ...]
    bindings: tuple[str, ...]
    signature: str
    folder: RunFolder
    parts: tuple[StoreEntry, ...]
    described: Any = field(repr=False)

    @property
    def title(self) -> str:
        """How people are told of it."""
        return f"{self.row.name}, seed {self.seed}"

    def lacks(self, store: Store) -> list[StoreEntry]:
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
class StudyPlan:
    """All runs of a study, row by row over the seeds, so that neighbours train different stages.

    Args:
        study: What was asked for.
        runs: In the order in which they are started.
        store: What is finished already.
        overlay: What is laid over every row.
    """

    study: LoadedStudy
    runs: tuple[PlannedRun, ...]
    store: Store
    overlay: Overlay

    def to_make(self) -> list[StoreEntry]:
        """What is lacking, each once, in the order in which it is made."""
        return list({(p.kind, p.key): p for run in self.runs for p in run.lacks(self.store)}.values())

    def signature(self) -> str:
        """A key for the study as it stands: its runs, and how they are compared."""
        runs = [[run.row.name, run.row.builds_on, run.seed, run.signature] for run in self.runs]
        study = self.study
        return describing.signature([study.name, runs, study.baseline, study.metrics, study.published])


def plan(study: LoadedStudy, output: Path, overlay: Overlay | None = None) -> StudyPlan:
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
    return StudyPlan(study, runs, store, overlay)


def _planned(row: StudyRow, seed: int, store: Store, overlay: Overlay, measured: Measured) -> PlannedRun:
    recipes = (*(parsing.shown(path) for path in row.recipes), *overlay.recipes)
    bindings = (*row.bindings, *overlay.bindings, f"run.seed = {seed}")
    loaded = recipe.load(recipes, bindings, trust=overlay.trust, root=Experiment)
    experiment = loaded.build()
    for factory in experiment.metrics:
        reporter = getattr(factory(), "reporter", None)
        measured[reporter.name if reporter else ""] = (
            "higher" if reporter and reporter.higher_is_better else "lower"
        )
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


def _check_metrics(study: LoadedStudy, measured: Measured) -> None:
    """Refuse now what would be found only after the training."""
    for name, direction in study.metrics.items():
        place = study.place("metrics", name)
        if name in measured and direction != measured[name]:
            message = f"study.metrics: {name} is better when it is {measured[name]}, not {direction}."
            raise StudyError(message, place, f"Write {name!r}: {measured[name]!r}.")
        if name not in measured and "" not in measured:
            message = f"study.metrics: no row measures {name!r}."
            raise StudyError(message, place, did_you_mean(name, measured))


def _check_different(study: LoadedStudy, runs: Sequence[PlannedRun]) -> None:
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


def training_s(plan: StudyPlan) -> float | None:
    """Seconds of training that are left; None where a stage that is left was never timed in this store."""
    lacking = [part for part in plan.to_make() if part.steps]
    step_s = _step_s(plan.store, [part for run in plan.runs for part in run.parts])
    if any(part.name not in step_s for part in lacking):
        return None
    return sum(part.steps * step_s[part.name] for part in lacking)


def duration(seconds: float) -> str:
    """A duration in words.

    Example:
        >>> duration(42), duration(1380), duration(5000)
        ('42 s', '23 min', '1 h 23 min')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _step_s(store: Store, parts: Iterable[StoreEntry]) -> dict[str, float]:
    """Seconds a step of every stage of this plan that the store has a record of."""
    found = {}
    for part in parts:
        path = store.path(part.kind, part.key) / "facts.json"
        if part.steps and path.is_file():
            facts = json.loads(path.read_text(encoding="utf-8"))
            found[part.name] = facts["seconds"] / facts["steps"]
    return found


def told(plan: StudyPlan, jobs: int = 1) -> str:
    """What a plan will make, what it finds there, and where that is known, how long it takes."""
    study = plan.study
    width = max(len(row.name) for row in study.rows)
    size = f"{counted(len(study.rows), 'row')} × {counted(len(study.seeds), 'seed')}"
    lines = [f"{study.name}: {size} ({', '.join(map(str, study.seeds))}), compared with {study.baseline}"]
    done: set[str] = set()
    for row in study.rows:
        runs = [run for run in plan.runs if run.row.name == row.name]
        lines.append(f"  {row.name:{width}}  {_state(plan, runs, done)}")
    return "\n".join(
        [
            *lines,
            f"to make: {_listed(plan.to_make())}",
            f"reused:  {_listed(_reused(plan))}",
            *_time(plan, jobs),
        ]
    )


def _time(plan: StudyPlan, jobs: int) -> list[str]:
    """How long the training takes, where this store has timed its stages before."""
    seconds = training_s(plan)
    if not seconds:
        return []
    at_once = f", {duration(seconds / jobs)} with {jobs} runs at a time" if jobs > 1 else ""
    return [f"time:    about {duration(seconds)} of training{at_once} (steps as timed in this store)"]


def _state(plan: StudyPlan, runs: list[PlannedRun], done: set[str]) -> str:
    """What a row's runs train that no earlier row trains for them; `done` is told of it."""
    finished = sum(run.folder.finished for run in runs)
    if finished == len(runs):
        return "finished"
    lacking = {part.key: part for run in runs for part in run.lacks(plan.store) if part.steps}
    own = [part for key, part in lacking.items() if key not in done]
    done |= set(lacking)
    begun = f"{finished} of {len(runs)} finished; " if finished else ""
    return f"{begun}trains {_listed(own)}" if own else f"{begun}samples and measures"


def _reused(plan: StudyPlan) -> list[StoreEntry]:
    parts = {(part.kind, part.key): part for run in plan.runs for part in run.parts}
    return [part for part in parts.values() if plan.store.has(part.kind, part.key)]


def _listed(parts: Iterable[StoreEntry]) -> str:
    counts = Counter(part.name for part in parts)
    return ", ".join(f"{n} × {name}" if n > 1 else name for name, n in counts.items()) or "nothing"


def counted(number: int, thing: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "row"), counted(2, "row")
        ('1 row', '2 rows')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"
