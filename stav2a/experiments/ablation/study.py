"""Study files: the recipes that are compared, over which seeds, by which metrics, and published figures.

The recipes are listed as rows, or made of factors: combinations of levels (`factors`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stav2a import recipe
from stav2a.evaluation.hypotheses import Hypothesis
from stav2a.evaluation.published import PublishedError, read_published
from stav2a.experiments.ablation.factors import (
    DESIGNS,
    FRACTIONAL,
    FULL,
    ONE_AT_A_TIME,
    combinations_of,
    combined_name,
    d_optimal,
    one_at_a_time,
    smallest_fraction,
)
from stav2a.recipe import Place, RecipeError, parsing
from stav2a.registry import did_you_mean

DIRECTIONS = ("higher", "lower")
Parts = str | tuple[str, ...]  # a recipe or a binding, or several


class StudyError(RecipeError):
    """A study that can't be run as it is written."""


@recipe.as_root("study")
@dataclass(frozen=True, kw_only=True)
class Study:
    """A comparison of recipes, as a study file writes it: of `rows`, or of combinations of `factors`.

    Args:
        rows: Recipe by the name of the row; or a tuple of recipes, which end in .gin, and bindings.
        factors: Levels by the name of the factor; a level is a recipe or a binding by its name, a tuple of
            several, or the empty tuple.
        base: Recipe of all combinations, or a tuple of recipes and bindings. The recipes of their levels are
            laid over it in the factors' order, then all bindings.
        design: Which combinations: `full` for all, `one_at_a_time` for those that differ from the baseline in
            one factor at most, `fractional` for a choice of them.
        combinations: Number of combinations of a fractional design.
        baseline: Row that all others are compared with; by default the combination of the first levels.
        metrics: Direction of every metric that is compared: `higher` or `lower` is better. Those that no row
            measures are left out.
        seeds: Seeds; every row is trained once with each.
        published: CSV with the figures of a paper: a column `row`, and one for each metric.
        plane: Two of the metrics: the report draws the rows in their plane, the area of a dot by the cost.
        hypotheses: By a name, a row, another row, and a metric in which the first is said to be better.
        overlays: Recipes laid over all rows, before those of the command line; a row's own bindings stay.
    """

    rows: Mapping[str, Parts] | None = None
    factors: Mapping[str, Mapping[str, Parts]] | None = None
    base: Parts = ()
    design: str = FULL
    combinations: int | None = None
    baseline: str | None = None
    metrics: Mapping[str, str]
    seeds: tuple[int, ...] = (0, 1, 2)
    published: Path | None = None
    plane: tuple[str, str] | None = None
    hypotheses: Mapping[str, tuple[str, ...]] | None = None
    overlays: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyRow:
    """One row of a study.

    Args:
        name: Name in tables.
        recipes: Recipes laid over one another.
        bindings: Bindings laid over all of these.
        builds_on: Row of which it is a change by a step, if any.
        levels: Factor -> level, where it is a combination of levels.
    """

    name: str
    recipes: tuple[Path, ...]
    bindings: tuple[str, ...] = ()
    builds_on: str | None = None
    levels: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def file_name(self) -> str:
        """The name with an underscore for characters that file names can't have."""
        return re.sub(r"[^\w+.-]+", "_", self.name)


@dataclass(frozen=True)
class LoadedStudy:
    """A study, read and checked, with the recipes and bindings that are laid over all of its rows.

    Args:
        name: Name of the file without its ending.
        rows: Rows, of which a plan may leave out combinations that can't run.
        factors: Factor -> its levels, where the rows are combinations of them.
        published: Published figures by row and metric.
        unmeasured: Metrics of the study that no row measures.
        plane: Two metrics, in whose plane the report draws the rows.
        hypotheses: Hypotheses that the report tests.
        places: Places of the study's settings, for errors that are found later.
        trust: True lets recipes import any module.
    """

    name: str
    rows: tuple[StudyRow, ...]
    baseline: str
    metrics: Mapping[str, str]
    seeds: tuple[int, ...]
    published: Mapping[str, Mapping[str, float]]
    places: Mapping[str, Place]
    factors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    recipes: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()
    plane: tuple[str, str] | None = None
    hypotheses: Sequence[Hypothesis] = ()
    trust: bool = False

    def place_of(self, row: StudyRow) -> Place:
        """Place of a row, or of the factors that it is made of."""
        return self.places["factors"] if self.factors else self.places["rows"].of(row.name)


def load(
    path: str | Path,
    recipes: Sequence[str] = (),
    bindings: Sequence[str] = (),
    *,
    seeds: Sequence[int] | None = None,
    trust: bool = False,
) -> LoadedStudy:
    """Read and check a study file; the recipes of its rows are found, not yet loaded.

    Args:
        path: Path from the current folder, or of a study in the package, such as `ablations/table3.gin`.
        recipes: Recipes laid over every row, such as a scale.
        bindings: Bindings laid over these.
        seeds: Seeds in place of the study's own.
        trust: Let the study and its recipes import any module.

    Raises:
        StudyError: A value of the study is wrong.
        RecipeError: The file breaks a rule of all recipes.
    """
    for binding in bindings:
        if _sets_seed(binding, trust=trust):
            raise StudyError(f"--bind {binding!r}: a study sets the seeds.", advice="Write --seeds 0 1 2.")
    read = recipe.load(path, root=Study, trust=trust)
    study, file = read.build(), read.named[0]
    places = {binding.parameter: binding.place for binding in read.bindings.values()}
    _check_seeds(study.seeds, "study.seeds", places.get("seeds"))
    if seeds:
        _check_seeds(seeds, "--seeds")
    if (study.rows is None) == (study.factors is None):
        given = (
            "neither study.rows nor study.factors" if study.rows is None else "study.rows and study.factors"
        )
        advice = (
            "Write study.rows = {'NAME': 'recipes/NAME.gin', ...}, or study.factors (ablations/README.md)."
        )
        raise StudyError(f"The study has {given}; expected one of them.", places.get("factors"), advice)
    if study.factors is None:
        rows, baseline = _rows(study, file.parent, places, trust=trust)
    else:
        rows, baseline = _combined_rows(study, file.parent, places, trust=trust)
    if not study.metrics:
        advice = "Write study.metrics = {'aa_align': 'higher', ...}"
        raise StudyError("study.metrics is empty.", places["metrics"], advice)
    for metric, direction in study.metrics.items():
        if direction not in DIRECTIONS:
            message = f"study.metrics: {metric!r} is {direction!r}, which is no direction."
            raise StudyError(message, places["metrics"].of(metric), did_you_mean(direction, DIRECTIONS))
    if study.plane is not None and (len(study.plane) != 2 or not set(study.plane) <= set(study.metrics)):
        message = f"study.plane = {study.plane!r}: expected two of the study's metrics."
        raise StudyError(message, places["plane"], f"They are: {', '.join(study.metrics)}.")
    names = [row.name for row in rows]
    return LoadedStudy(
        name=file.stem,
        rows=rows,
        baseline=baseline,
        metrics=dict(study.metrics),
        seeds=tuple(seeds or study.seeds),
        published=_published(study, names, file, places.get("published")),
        places=places,
        factors={name: list(levels) for name, levels in (study.factors or {}).items()},
        recipes=(*_overlays(study.overlays, file.parent, places.get("overlays")), *recipes),
        bindings=tuple(bindings),
        plane=study.plane,
        hypotheses=_hypotheses(study, names, places.get("hypotheses")),
        trust=trust,
    )


def _sets_seed(binding: str, *, trust: bool) -> bool:
    written = parsing.read((), [binding], trust=trust).written
    return any((each.selector, each.parameter) == ("run", "seed") for each in written)


def _check_seeds(seeds: Sequence[int], what: str, place: Place | None = None) -> None:
    if not seeds:
        raise StudyError(f"{what} is empty. Expected at least one, such as (0, 1, 2).", place)
    for seed in seeds:
        if seed < 0:
            raise StudyError(f"{what} holds {seed}. Expected 0 or more.", place)
        if list(seeds).count(seed) > 1:
            advice = "A seed gives the same run again: name each once."
            raise StudyError(f"{what} holds {seed} twice.", place, advice)


def _rows(
    study: Study, folder: Path, places: Mapping[str, Place], *, trust: bool
) -> tuple[tuple[StudyRow, ...], str]:
    """The rows that are listed, and the baseline."""
    for name, value, nothing in (
        ("base", study.base, ()),
        ("design", study.design, FULL),
        ("combinations", study.combinations, None),
    ):
        if value != nothing:
            message = f"study.{name} = {value!r}: it is for studies of factors, and this one lists its rows."
            raise StudyError(message, places.get(name), "Leave the line out, or write study.factors.")
    place, given = places["rows"], study.rows or {}
    if not given:
        advice = "Write study.rows = {'NAME': 'recipes/NAME.gin', ...}"
        raise StudyError("study.rows is empty.", place, advice)
    if study.baseline is None:
        advice = f"Write study.baseline = {next(iter(given))!r}, or another row."
        raise StudyError("study.baseline has no value.", None, advice)
    rows = [_row(name, _parts(each), folder, place.of(name), trust=trust) for name, each in given.items()]
    _check_file_names(rows, place)
    if study.baseline not in given:
        message = f"study.baseline = {study.baseline!r} is no row."
        raise StudyError(message, places["baseline"], did_you_mean(study.baseline, given))
    bare = {row.recipes[0]: row.name for row in rows if len(row.recipes) == 1 and not row.bindings}
    for number, row in enumerate(rows):  # it builds on the last bare recipe among the files that it includes
        others = [
            bare[path] for path in parsing.lineage(row.recipes[0]) if bare.get(path, row.name) != row.name
        ]
        rows[number] = replace(row, builds_on=others[-1] if others else None)
    return tuple(rows), study.baseline


def _combined_rows(
    study: Study, folder: Path, places: Mapping[str, Place], *, trust: bool
) -> tuple[tuple[StudyRow, ...], str]:
    """The combinations that the design chooses, and the baseline."""
    place, given = places["factors"], study.factors or {}
    advice = "Write study.factors = {'FACTOR': {'LEVEL': 'slot.name.parameter = value', ...}, ...}"
    if not given:
        raise StudyError("study.factors is empty.", place, advice)
    for factor, levels in given.items():
        if len(levels) < 2:
            count = f"{len(levels)} level{'s' * (not levels)}"
            raise StudyError(
                f"The factor {factor!r} has {count}; expected two or more.", place.of(factor), advice
            )
        if not all(name.strip() for name in (factor, *levels)):
            message = f"The factor {factor!r} has a name that is empty, its own or that of a level."
            raise StudyError(message, place.of(factor), advice)
    factors = {factor: list(levels) for factor, levels in given.items()}
    everything = combinations_of(factors)
    named = {combined_name(levels): levels for levels in everything}
    if study.baseline is not None and study.baseline not in named:
        message = f"study.baseline = {study.baseline!r} is no combination of one level of each factor."
        raise StudyError(message, places["baseline"], did_you_mean(study.baseline, named))
    baseline = everything[0] if study.baseline is None else named[study.baseline]
    if study.design not in DESIGNS:
        message = f"study.design = {study.design!r} is no design."
        raise StudyError(message, places["design"], did_you_mean(study.design, DESIGNS))
    if study.design != FRACTIONAL and study.combinations is not None:
        message = f"study.combinations = {study.combinations}: it is for study.design = {FRACTIONAL!r}."
        raise StudyError(message, places["combinations"], "Leave the line out, or set the design.")
    chosen = everything
    if study.design == ONE_AT_A_TIME:
        chosen = one_at_a_time(factors, baseline)
    elif study.design == FRACTIONAL:
        least, most = smallest_fraction(factors), len(everything)
        if study.combinations is None or not least <= study.combinations <= most:
            nearest = most if (study.combinations or 0) > most else least
            message = (
                f"study.combinations = {study.combinations}: expected {least} to {most}, {least} being the "
                "number of main effects and pairwise interactions with their mean."
            )
            raise StudyError(message, places.get("combinations"), f"Write study.combinations = {nearest}.")
        chosen = d_optimal(factors, baseline, study.combinations)
    rows = []
    for levels in chosen:
        name, own = combined_name(levels), [_parts(given[factor][each]) for factor, each in levels.items()]
        parts = sum(own, _parts(study.base))
        if not any(part.endswith(parsing.SUFFIX) for part in parts):
            advice = "Write study.base = 'recipes/NAME.gin', over which its levels are laid."
            raise StudyError(f"Row {name!r} names no recipe.", place, advice)
        row = _row(name, parts, folder, place, trust=trust)
        rows.append(replace(row, levels=levels))
    _check_file_names(rows, place)
    return tuple(rows), combined_name(baseline)


def _parts(given: Parts) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given


def _check_file_names(rows: Sequence[StudyRow], place: Place) -> None:
    known: dict[str, StudyRow] = {}
    for row in rows:
        if (other := known.setdefault(row.file_name, row)) is not row:
            message = f"Rows {other.name!r} and {row.name!r} would write the same files."
            raise StudyError(message, place.of(row.name), "Let them differ in a letter or a digit.")


def _row(name: str, parts: tuple[str, ...], folder: Path, place: Place, *, trust: bool) -> StudyRow:
    if not name.strip():
        raise StudyError("A row has no name.", place, "Give it the name that stands in the table.")
    bindings = tuple(part for part in parts if "=" in part)
    for part in parts:
        if part not in bindings and not part.endswith(parsing.SUFFIX):
            advice = "A recipe ends in .gin; a binding is written as 'slot.name.parameter = value'."
            raise StudyError(f"Row {name!r}: {part!r} is neither a recipe nor a binding.", place, advice)
    for binding in bindings:
        if _sets_seed(binding, trust=trust):
            advice = "Every row gets the seeds of study.seeds."
            raise StudyError(f"Row {name!r} binds run.seed.", place, advice)
    recipes = tuple(_found(part, folder, place) for part in parts if part not in bindings)
    if not recipes:
        advice = "Give a file that ends in .gin, or a tuple of such files and of bindings."
        raise StudyError(f"Row {name!r} names no recipe.", place, advice)
    return StudyRow(name, recipes, bindings)


def _overlays(names: Sequence[str], folder: Path, place: Place | None) -> list[str]:
    for name in names:
        if not name.endswith(parsing.SUFFIX):
            advice = "Write study.overlays = ('recipes/NAME.gin',), or give settings with --bind."
            raise StudyError(f"study.overlays: {name!r} is no recipe.", place, advice)
    return [parsing.shown(_found(name, folder, place)) for name in names]


def _found(recipe_name: str, folder: Path, place: Place | None) -> Path:
    """File of a recipe: beside the study, in the current folder, or in the package."""
    own = folder / recipe_name
    return own.resolve() if own.is_file() else parsing.find(recipe_name, Path.cwd(), place)


def _hypotheses(study: Study, rows: Sequence[str], place: Place | None) -> list[Hypothesis]:
    """The study's hypotheses, whose rows and metrics are its own."""
    found = []
    for name, given in (study.hypotheses or {}).items():
        where = None if place is None else place.of(name)
        if len(given) != 3:
            message = f"The hypothesis {name!r} is {given!r}."
            raise StudyError(message, where, "Write ('BETTER ROW', 'OTHER ROW', 'METRIC').")
        for value, known, kind in zip(
            given, (rows, rows, study.metrics), ("row", "row", "metric"), strict=True
        ):
            if value not in known:
                message = f"The hypothesis {name!r} names {value!r}, which is no {kind} of the study."
                raise StudyError(message, where, did_you_mean(value, known))
        if given[0] == given[1]:
            message = f"The hypothesis {name!r} compares {given[0]!r} with itself."
            raise StudyError(message, where, "Name two rows.")
        found.append(Hypothesis(name, *given))
    return found


def _published(
    study: Study, rows: Sequence[str], file: Path, place: Place | None
) -> dict[str, dict[str, float]]:
    if study.published is None:
        return {}
    for path in (file.parent / study.published, Path.cwd() / study.published):
        if path.is_file():
            try:
                return read_published(path, rows=rows, metrics=list(study.metrics))
            except PublishedError as error:
                raise StudyError(str(error), place) from error
    message = f"There is no file {str(study.published)!r}. Looked in {parsing.shown(file.parent)} and here."
    raise StudyError(message, place, "Name a CSV beside the study, or leave the line out.")
