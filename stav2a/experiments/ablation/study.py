"""A study file: which recipes are compared, over which seeds, by which metrics, and with whose figures."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stav2a import recipe
from stav2a.evaluation.published import PublishedError, read_published
from stav2a.recipe import Place, RecipeError, parsing
from stav2a.registry import did_you_mean

DIRECTIONS = ("higher", "lower")


class StudyError(RecipeError):
    """A study that can't be: says where, and what to do."""


@recipe.as_root("study")
@dataclass(frozen=True, kw_only=True)
class Study:
    """A comparison of recipes, as a study file writes it.

    Args:
        rows: A recipe by the row's name; or a tuple of recipes, which end in .gin, and bindings.
        baseline: The row that all others are compared with.
        metrics: The direction of every metric that is compared: `higher` or `lower` is better.
        seeds: Every row is trained once with each.
        published: A CSV with the figures of a paper: a column `row`, and one a metric.
    """

    rows: Mapping[str, str | tuple[str, ...]]
    baseline: str
    metrics: Mapping[str, str]
    seeds: tuple[int, ...] = (0, 1, 2)
    published: Path | None = None


@dataclass(frozen=True)
class StudyRow:
    """One row of a study.

    Args:
        name: As in the table.
        recipes: Files, laid over one another.
        bindings: Laid over them.
        builds_on: The row that it is a step from, if there is one.
    """

    name: str
    recipes: tuple[Path, ...]
    bindings: tuple[str, ...] = ()
    builds_on: str | None = None

    @property
    def bare(self) -> bool:
        """Whether it is a recipe as it stands."""
        return len(self.recipes) == 1 and not self.bindings

    @property
    def file_name(self) -> str:
        """The name without what a file's name can't hold."""
        return re.sub(r"[^\w+.-]+", "_", self.name)


@dataclass(frozen=True)
class LoadedStudy:
    """A study, read and checked.

    Args:
        name: The file's, without its ending.
        file: Where it is.
        rows: In the order of the table.
        baseline: A row's name.
        metrics: Direction by name.
        seeds: At least one.
        published: A paper's figures by row and metric.
        written: Where the study's words stand, for errors that are found later.
    """

    name: str
    file: Path
    rows: tuple[StudyRow, ...]
    baseline: str
    metrics: Mapping[str, str]
    seeds: tuple[int, ...]
    published: Mapping[str, Mapping[str, float]]
    written: Mapping[str, Place]

    def place(self, parameter: str, word: str = "") -> Place | None:
        """The line of a setting; of a word in it where one is given."""
        return _word_in(self.written.get(parameter), word)

    def with_seeds(self, seeds: tuple[int, ...] | None) -> "LoadedStudy":
        """The same over other seeds.

        Raises:
            StudyError: There is none, or one stands twice.
        """
        if seeds is None:
            return self
        for message in _faulty_seeds(seeds, "--seeds"):
            raise StudyError(message)
        return replace(self, seeds=seeds)


def load(path: str | Path, *, trust: bool = False) -> LoadedStudy:
    """Read a study file and check every word of it; its rows' recipes are found, not yet loaded.

    Args:
        path: From the current folder, or one that comes with the package, such as `ablations/table3.gin`.
        trust: Let the study import any module.

    Raises:
        StudyError: Something in it can't be.
        RecipeError: The same, of what any gin file must keep to.
    """
    read = recipe.load(path, root=Study, trust=trust)
    study = read.build()
    written = {binding.parameter: binding.place for binding in read.bindings.values()}
    for parameter, word, message, advice in _faults(study):
        raise StudyError(message, _word_in(written.get(parameter), word), advice)
    file = read.named[0]
    rows = [_row(name, given, file, written["rows"]) for name, given in study.rows.items()]
    return LoadedStudy(
        name=file.stem,
        file=file,
        rows=tuple(replace(row, builds_on=_builds_on(row, rows)) for row in rows),
        baseline=study.baseline,
        metrics=dict(study.metrics),
        seeds=tuple(study.seeds),
        published=_published(study, file, written),
        written=written,
    )


def _faults(study: Study) -> Iterator[tuple[str, str, str, str]]:
    """What can't be: the parameter, the word in it, what is wrong, and what to do."""
    if not study.rows:
        yield "rows", "", "study.rows is empty.", "Write study.rows = {'NAME': 'recipes/NAME.gin', ...}"
    for name, given in study.rows.items():
        for message, advice in _faulty_row(name, (given,) if isinstance(given, str) else given):
            yield "rows", name, message, advice
    yield from _same_file_names(study)
    if study.baseline not in study.rows:
        message = f"study.baseline = {study.baseline!r} is no row."
        yield "baseline", "", message, did_you_mean(study.baseline, study.rows)
    if not study.metrics:
        yield "metrics", "", "study.metrics is empty.", "Write study.metrics = {'aa_align': 'higher', ...}"
    for metric, direction in study.metrics.items():
        if direction not in DIRECTIONS:
            message = f"study.metrics: {metric!r} is {direction!r}, which is no direction."
            yield "metrics", metric, message, did_you_mean(direction, DIRECTIONS)
    for message in _faulty_seeds(study.seeds, "study.seeds"):
        yield "seeds", "", message, ""


def _faulty_row(name: str, parts: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if not name.strip():
        yield "A row has no name.", "Give it the name that stands in the table."
    if not any(_is_recipe(part) for part in parts):
        advice = "Give a file that ends in .gin, or a tuple of such files and of bindings."
        yield f"Row {name!r} names no recipe.", advice
    for part in parts:
        if not _is_recipe(part) and "=" not in part:
            advice = "A recipe ends in .gin; a binding is written as 'slot.name.parameter = value'."
            yield f"Row {name!r}: {part!r} is neither a recipe nor a binding.", advice
        if re.match(r"\s*run\.seed\s*=", part):
            yield f"Row {name!r} binds run.seed.", "Every row gets the seeds of study.seeds."


def _same_file_names(study: Study) -> Iterator[tuple[str, str, str, str]]:
    taken: dict[str, str] = {}
    for name in study.rows:
        first = taken.setdefault(StudyRow(name, ()).file_name, name)
        if first != name:
            message = f"Rows {first!r} and {name!r} would write the same files."
            yield "rows", name, message, "Let them differ in a letter or a digit."


def _faulty_seeds(seeds: tuple[int, ...], what: str) -> Iterator[str]:
    if not seeds:
        yield f"{what} is empty. Expected at least one, such as (0, 1, 2)."
    for seed in seeds:
        if seed < 0:
            yield f"{what} holds {seed}. Expected 0 or more."
        if seeds.count(seed) > 1:
            yield f"{what} holds {seed} twice. A seed gives the same run again: name each once."


def _is_recipe(part: str) -> bool:
    return part.endswith(parsing.SUFFIX) and "=" not in part


def _row(name: str, given: str | tuple[str, ...], study: Path, place: Place) -> StudyRow:
    parts = (given,) if isinstance(given, str) else given
    files = tuple(
        _recipe(part, study.parent, _word_in(place, part) or place) for part in parts if _is_recipe(part)
    )
    return StudyRow(name, files, tuple(part for part in parts if not _is_recipe(part)))


def _recipe(name: str, beside: Path, place: Place) -> Path:
    """The recipe beside the study, else from the current folder, else the package's."""
    own = beside / name
    return own.resolve() if own.is_file() else parsing.find(name, Path.cwd(), place)


def _builds_on(row: StudyRow, rows: list[StudyRow]) -> str | None:
    """The row of a bare recipe that comes last among those this one is made of."""
    bare = {other.recipes[0]: other.name for other in rows if other.bare and other is not row}
    made_of = [path for path in parsing.lineage(row.recipes[0]) if path in bare]
    return bare[made_of[-1]] if made_of else None


def _published(study: Study, file: Path, written: Mapping[str, Place]) -> dict[str, dict[str, float]]:
    if study.published is None:
        return {}
    place = written.get("published")
    for path in (file.parent / study.published, Path.cwd() / study.published):
        if path.is_file():
            try:
                return read_published(path, rows=list(study.rows), metrics=list(study.metrics))
            except PublishedError as error:
                raise StudyError(str(error), place) from error
    message = f"There is no file {str(study.published)!r}. Looked in {parsing.shown(file.parent)} and here."
    raise StudyError(message, place, "Name a CSV beside the study, or leave the line out.")


def _word_in(place: Place | None, word: str) -> Place | None:
    """The line of a quoted word, from a setting's first line on; that line where it isn't found."""
    if place is None or place.file is None or not word:
        return place
    lines = place.file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines[place.line - 1 :], start=place.line):
        if f"'{word}'" in line or f'"{word}"' in line:
            return Place(place.file, number)
    return place
