"""Study files: the recipes that are compared, over which seeds, by which metrics, and published figures."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stav2a import recipe
from stav2a.evaluation.published import PublishedError, read_published
from stav2a.recipe import Place, RecipeError, parsing
from stav2a.registry import did_you_mean

DIRECTIONS = ("higher", "lower")


class StudyError(RecipeError):
    """A study that can't be run as it is written."""


@recipe.as_root("study")
@dataclass(frozen=True, kw_only=True)
class Study:
    """A comparison of recipes, as a study file writes it.

    Args:
        rows: Recipe by the name of the row; or a tuple of recipes, which end in .gin, and bindings.
        baseline: Row that all others are compared with.
        metrics: Direction of every metric that is compared: `higher` or `lower` is better. Those that no row
            measures are left out.
        seeds: Seeds; every row is trained once with each.
        published: CSV with the figures of a paper: a column `row`, and one for each metric.
    """

    rows: Mapping[str, str | tuple[str, ...]]
    baseline: str
    metrics: Mapping[str, str]
    seeds: tuple[int, ...] = (0, 1, 2)
    published: Path | None = None


@dataclass(frozen=True)
class StudyRow:
    """One row of a study: recipes and bindings laid over one another, and the row it builds on, if any."""

    name: str
    recipes: tuple[Path, ...]
    bindings: tuple[str, ...] = ()
    builds_on: str | None = None

    @property
    def file_name(self) -> str:
        """The name with an underscore for characters that file names can't have."""
        return re.sub(r"[^\w+.-]+", "_", self.name)


@dataclass(frozen=True)
class LoadedStudy:
    """A study, read and checked, with the recipes and bindings that are laid over all of its rows.

    Args:
        name: Name of the file without its ending.
        published: Published figures by row and metric.
        unmeasured: Metrics of the study that no row measures.
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
    recipes: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()
    trust: bool = False


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
    rows = _rows(study, file.parent, places["rows"], trust=trust)
    if study.baseline not in study.rows:
        message = f"study.baseline = {study.baseline!r} is no row."
        raise StudyError(message, places["baseline"], did_you_mean(study.baseline, study.rows))
    if not study.metrics:
        advice = "Write study.metrics = {'aa_align': 'higher', ...}"
        raise StudyError("study.metrics is empty.", places["metrics"], advice)
    for metric, direction in study.metrics.items():
        if direction not in DIRECTIONS:
            message = f"study.metrics: {metric!r} is {direction!r}, which is no direction."
            raise StudyError(message, places["metrics"].of(metric), did_you_mean(direction, DIRECTIONS))
    return LoadedStudy(
        name=file.stem,
        rows=rows,
        baseline=study.baseline,
        metrics=dict(study.metrics),
        seeds=tuple(seeds or study.seeds),
        published=_published(study, file, places.get("published")),
        places=places,
        recipes=tuple(recipes),
        bindings=tuple(bindings),
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


def _rows(study: Study, folder: Path, place: Place, *, trust: bool) -> tuple[StudyRow, ...]:
    if not study.rows:
        advice = "Write study.rows = {'NAME': 'recipes/NAME.gin', ...}"
        raise StudyError("study.rows is empty.", place, advice)
    rows: list[StudyRow] = []
    for name, given in study.rows.items():
        row = _row(name, (given,) if isinstance(given, str) else given, folder, place.of(name), trust=trust)
        for other in rows:
            if other.file_name == row.file_name:
                message = f"Rows {other.name!r} and {name!r} would write the same files."
                raise StudyError(message, place.of(name), "Let them differ in a letter or a digit.")
        rows.append(row)
    bare = {row.recipes[0]: row.name for row in rows if len(row.recipes) == 1 and not row.bindings}
    for number, row in enumerate(rows):  # it builds on the last bare recipe among the files that it includes
        others = [
            bare[path] for path in parsing.lineage(row.recipes[0]) if bare.get(path, row.name) != row.name
        ]
        rows[number] = replace(row, builds_on=others[-1] if others else None)
    return tuple(rows)


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
    recipes = tuple(
        own.resolve() if (own := folder / part).is_file() else parsing.find(part, Path.cwd(), place)
        for part in parts
        if part not in bindings
    )
    if not recipes:
        advice = "Give a file that ends in .gin, or a tuple of such files and of bindings."
        raise StudyError(f"Row {name!r} names no recipe.", place, advice)
    return StudyRow(name, recipes, bindings)


def _published(study: Study, file: Path, place: Place | None) -> dict[str, dict[str, float]]:
    if study.published is None:
        return {}
    for path in (file.parent / study.published, Path.cwd() / study.published):
        if path.is_file():
            try:
                return read_published(path, rows=list(study.rows), metrics=list(study.metrics))
            except PublishedError as error:
                raise StudyError(str(error), place) from error
    message = f"There is no file {str(study.published)!r}. Looked in {parsing.shown(file.parent)} and here."
    raise StudyError(message, place, "Name a CSV beside the study, or leave the line out.")
