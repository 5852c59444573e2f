"""Plan of a study: every run with its signature, and what the store has of it. Nothing is trained here."""

import functools
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stav2a import recipe, registry
from stav2a.experiments.ablation.study import LoadedStudy, StudyError, StudyRow
from stav2a.experiments.dry_run import dry_run
from stav2a.experiments.experiment import Experiment, Keys, StoreEntry
from stav2a.experiments.run_folder import RunFolder
from stav2a.metrics.score import RELEASED
from stav2a.recipe import describing, parsing
from stav2a.registry import did_you_mean
from stav2a.utils.errors import StaV2AError
from stav2a.utils.progress import progress
from stav2a.utils.store import Store


@dataclass(frozen=True)
class PlannedRun:
    """One row with one seed.

    Args:
        recipes: Recipes for `stav2a run --gin`.
        bindings: Bindings for `stav2a run --bind`.
        signature: Signature of the whole configuration, and of the files that it names.
        folder: Run folder, there or not.
        entries: Entries that it takes from the store or makes, in order.
        described: The whole configuration.
    """

    row: StudyRow
    seed: int
    recipes: tuple[str, ...]
    bindings: tuple[str, ...]
    signature: str
    folder: RunFolder
    entries: tuple[StoreEntry, ...]
    described: Any = field(repr=False)

    @property
    def title(self) -> str:
        """Name for messages, and of the tracked run."""
        return f"{self.row.name}, seed {self.seed}"

    @property
    def sounds_key(self) -> str:
        """Key of the sounds that it generates: of the data, the stages and the sampling."""
        return next(each.key for each in self.entries if each.kind == "sounds")

    @property
    def finished(self) -> bool:
        """True where it is complete, and was undamaged when this was first asked."""
        return self.folder.finished and self._undamaged

    @functools.cached_property
    def _undamaged(self) -> bool:
        return self.folder.whole()

    def missing(self, store: Store) -> list[StoreEntry]:
        """Entries that it will make; none where it is finished."""
        if self.finished:
            return []
        return [each for each in self.entries if not store.has(each.kind, each.key, each.name)]

    def possible(self, store: Store) -> set[str]:
        """Keys of what a process of this run could make now, each by itself."""
        missing = self.missing(store)
        if missing and missing[0].kind in ("clips", "filter"):
            return {missing[0].key}
        there = {each.key for each in self.entries} - {each.key for each in missing}
        return {
            each.key for each in missing if each.kind not in ("features", "latents") and each.needs <= there
        }

    def may_start(self, store: Store, running: Sequence["PlannedRun"]) -> bool:
        """False where it would wait for running ones, each of which makes one thing at a time."""
        if not self.missing(store):
            return True
        own = self.possible(store)
        return bool(own) and len(own.union(*(each.possible(store) for each in running))) > len(running)


@dataclass(frozen=True)
class StudyPlan:
    """All runs of a study.

    Args:
        runs: Runs, row by row over the seeds.
        output: Folder of the run folders and the store.
        refused: Row -> reason why it can't run, of the combinations that were left out of the study's rows.
    """

    study: LoadedStudy
    runs: tuple[PlannedRun, ...]
    output: Path
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """Store of finished entries."""
        return Store.of(self.output)

    def missing(self) -> list[StoreEntry]:
        """Entries to make, each once, in the order in which they are made."""
        return list(dict.fromkeys(each for run in self.runs for each in run.missing(self.store)))

    def lacking(self) -> list[str]:
        """Names of parameters in which rows differ only because some lack the component."""
        tables = [describing.flatten(run.described) for run in self.runs]
        names = dict.fromkeys(name for table in tables for name in table)
        known = {name: [table[name] for table in tables if name in table] for name in names}
        return [
            name
            for name, values in known.items()
            if len(values) < len(tables) and values == values[:1] * len(values)
        ]

    def signature(self) -> str:
        """Key of the study as it is: its runs, and how they are compared."""
        runs = [[run.row.name, run.row.builds_on, run.seed, run.signature] for run in self.runs]
        study = self.study
        return describing.signature([study.name, runs, study.baseline, study.metrics, study.published])

    def without(self, refused: Mapping[str, str]) -> "StudyPlan":
        """The plan without the rows that can't run, which are listed with their reasons.

        Raises:
            StudyError: The baseline alone would be left.
        """
        rows = tuple(row for row in self.study.rows if row.name not in refused)
        runs = tuple(run for run in self.runs if run.row.name not in refused)
        both = {**self.refused, **refused}
        if refused and len(rows) == 1:
            name, reason = next(iter(both.items()))
            raise StudyError(
                f"Nothing is left to compare with the baseline {self.study.baseline!r}: all other "
                f"combinations are refused, {name!r} because {reason}",
                self.study.places["factors"],
                "Name levels that differ and that work with the baseline's.",
            )
        return replace(self, study=replace(self.study, rows=rows), runs=runs, refused=both)


def plan(study: LoadedStudy, output: Path) -> StudyPlan:
    """Load every row's recipe with every seed; `output` is the folder of the run folders and the store.

    A combination of levels whose values can't be, or that is the same as another one, is refused and left
    out of the plan.

    Raises:
        RecipeError: A row's recipe doesn't load.
        StudyError: Two rows are the same, a value of a row can't be, or a metric is unknown or measured by
            no row.
    """
    runs: dict[str, PlannedRun] = {}
    refused: dict[str, str] = {}
    reporters: list[Any] = []
    contents = Store.of(output).contents
    with _each_warning_once():
        for row in study.rows:
            for seed in study.seeds:
                recipes = (*(parsing.shown(path) for path in row.recipes), *study.recipes)
                bindings = (*row.bindings, *study.bindings, f"run.seed = {seed}")
                loaded = recipe.load(recipes, bindings, trust=study.trust, root=Experiment)
                with _refused_into(refused, row, study):
                    keys = Keys(loaded.build(), contents)
                if row.name in refused:
                    break
                signature, experiment = keys.run, keys.experiment
                if signature in runs:
                    other = runs[signature].row.name
                    if _may_be_refused(row, study):
                        refused[row.name] = f"every setting is equal to those of {other}."
                        break
                    message = f"Rows {other!r} and {row.name!r} are the same: every setting is equal."
                    advice = (
                        "Leave one out; or see whether what is laid over all rows hides their difference."
                    )
                    raise StudyError(message, study.place_of(row), advice)
                reporters += [getattr(factory(), "reporter", None) for factory in experiment.metrics]
                runs[signature] = PlannedRun(
                    row=row,
                    seed=seed,
                    recipes=recipes,
                    bindings=bindings,
                    signature=signature,
                    folder=RunFolder.of(output, loaded.named[0].stem, signature),
                    entries=tuple(keys.parts()),
                    described=loaded.described(complete=True),
                )
    return StudyPlan(_as_measured(study, reporters), tuple(runs.values()), output).without(refused)


def try_rows(plan: StudyPlan) -> StudyPlan:
    """Dry-run every row that has runs left, once for all of its seeds.

    Returns:
        The plan without the combinations of levels that can't work; they are listed with their reasons.

    Raises:
        StudyError: A listed row or the baseline can't work: the row and the reason.
    """
    refused: dict[str, str] = {}
    left = {run.row.name: run for run in reversed(plan.runs) if not run.finished}
    tried = [left[row.name] for row in plan.study.rows if row.name in left]
    with _each_warning_once(), progress(len(tried), "trying the rows", "row", leave=False) as bar:
        for run in bar.counted(tried):
            loaded = recipe.load(run.recipes, run.bindings, trust=plan.study.trust, root=Experiment)
            with _refused_into(refused, run.row, plan.study):
                dry_run(loaded.build())
    return plan.without(refused)


def _may_be_refused(row: StudyRow, study: LoadedStudy) -> bool:
    """True for a combination of levels that is not the baseline; a listed row is never refused."""
    return bool(row.levels) and row.name != study.baseline


@contextmanager
def _refused_into(refused: dict[str, str], row: StudyRow, study: LoadedStudy) -> Iterator[None]:
    """Note why a combination can't run; of another row raise an error that names it."""
    try:
        yield
    except StaV2AError as error:
        if _may_be_refused(row, study):
            refused[row.name] = " ".join(part for part in (error.message, error.advice) if part)
            return
        message = f"Row {row.name!r} can't run: {error.message}"
        raise StudyError(message, study.place_of(row), error.advice) from error


def _as_measured(study: LoadedStudy, reporters: Sequence[Any]) -> LoadedStudy:
    """The study with the metrics that its rows measure.

    A published figure stands beside the form that the paper's authors computed, and beside another form only
    where no row measures theirs.

    Raises:
        StudyError: A mistake that would be found only after the training.
    """
    measured = {each.name: "higher" if each.higher_is_better else "lower" for each in reporters if each}
    known = {entry.name for entry in registry.available("metric")} | set(measured)
    for name, direction in study.metrics.items():
        place = study.places["metrics"].of(name)
        if measured.get(name, direction) != direction:
            message = f"study.metrics: {name} is better when it is {measured[name]}, not {direction}."
            raise StudyError(message, place, f"Write {name!r}: {measured[name]!r}.")
        if name not in known and all(reporters):  # a metric without a reporter may measure it
            raise StudyError(f"study.metrics: no row measures {name!r}.", place, did_you_mean(name, measured))
    kept = {name: way for name, way in study.metrics.items() if name in measured or not all(reporters)}
    if not kept:
        message = f"study.metrics: no row measures any of {', '.join(study.metrics)}."
        advice = f"The rows measure {', '.join(measured) or 'nothing'}."
        raise StudyError(message, study.places["metrics"], advice)
    theirs = {name.removesuffix(RELEASED): name for name in kept if name.endswith(RELEASED)}
    published = {
        row: {theirs.get(name, name): value for name, value in figures.items()}
        for row, figures in study.published.items()
    }
    unmeasured = tuple(name for name in study.metrics if name not in kept)
    return replace(study, metrics=kept, published=published, unmeasured=unmeasured)


@contextmanager
def _each_warning_once() -> Iterator[None]:
    """Leave out warnings that the seeds of a row repeat."""
    seen = Counter[str]()

    def is_new(record: logging.LogRecord) -> bool:
        seen[record.getMessage()] += 1
        return seen[record.getMessage()] == 1

    logger = logging.getLogger("stav2a.recipe")
    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)


def training_s(plan: StudyPlan) -> float | None:
    """Seconds of training that are left.

    None where a stage that is left was never timed in this store, or is to be trained in epochs.
    """
    step_s = {}
    for each in (each for run in plan.runs for each in run.entries if each.trains):
        path = plan.store.path(each.kind, each.key, each.name) / "facts.json"
        if path.is_file():
            facts = json.loads(path.read_text(encoding="utf-8"))
            step_s[each.title] = facts["seconds"] / facts["steps"]
    left = [(each.steps, step_s.get(each.title)) for each in plan.missing() if each.trains]
    known = [steps * seconds for steps, seconds in left if steps is not None and seconds is not None]
    return sum(known) if len(known) == len(left) else None


def summary(plan: StudyPlan, jobs: int = 1) -> str:
    """Entries that a plan will make and reuse, row by row, and the time of its training where it is known."""
    study = plan.study
    width = max(map(len, [*(row.name for row in study.rows), *plan.refused]))
    size = f"{counted(len(study.rows), 'row')} × {counted(len(study.seeds), 'seed')}"
    lines = [f"{study.name}: {size} ({', '.join(map(str, study.seeds))}), compared with {study.baseline}"]
    if study.factors:
        levels = [f"{factor} ({', '.join(each)})" for factor, each in study.factors.items()]
        lines.append(f"factors: {', '.join(levels)}")
    if study.recipes:
        lines.append(f"over all rows: {', '.join(study.recipes)}")
    trained: set[StoreEntry] = set()  # by the rows above
    for row in study.rows:
        runs = [run for run in plan.runs if run.row is row]
        missing = dict.fromkeys(each for run in runs for each in run.missing(plan.store) if each.trains)
        own = [each for each in missing if each not in trained]
        trained.update(own)
        state = f"trains {_listed(own)}" if own else "samples and measures"
        if finished := sum(run.finished for run in runs):
            part = f"{finished} of {len(runs)} finished; {state}"
            state = part if finished < len(runs) else "finished"
        lines.append(f"  {row.name:{width}}  {state}")
    lines += [f"  {name:{width}}  refused: {reason}" for name, reason in plan.refused.items()]
    entries = dict.fromkeys(each for run in plan.runs for each in run.entries)
    if study.unmeasured:
        lines.append(f"not measured by any row: {', '.join(study.unmeasured)}")
    lines.append(f"to make: {_listed(plan.missing())}")
    lines.append(f"reused:  {_listed(e for e in entries if plan.store.has(e.kind, e.key, e.name))}")
    if seconds := training_s(plan):
        at_once = f", {duration(seconds / jobs)} with {jobs} runs at a time" if jobs > 1 else ""
        timed = f"{duration(seconds)} of training{at_once}"
        lines.append(f"time:    about {timed} (steps as timed in this store)")
    return "\n".join(lines)


def _listed(entries: Iterable[StoreEntry]) -> str:
    counts = Counter(each.title for each in entries)
    return ", ".join(f"{n} × {title}" if n > 1 else title for title, n in counts.items()) or "nothing"


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


def counted(number: int, thing: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "row"), counted(2, "row")
        ('1 row', '2 rows')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"
