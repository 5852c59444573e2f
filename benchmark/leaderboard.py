"""The leaderboard of the struck-objects benchmark: its submissions, their check, and its table.

    python -m benchmark.leaderboard check             # every file of benchmark/submissions, then the table
    python -m benchmark.leaderboard check --write     # the table goes into docs/leaderboard.md too
    python -m benchmark.leaderboard study STUDY.gin TABLE.csv RUNS.csv    # submissions of a study's rows

docs/leaderboard.md describes the fields.
"""

import argparse
import csv
import json
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from stav2a.data.struck_objects.dataset import VERSION
from stav2a.data.struck_objects.scene import LEVELS
from stav2a.utils.errors import FAILURE, SUCCESS, StaV2AError, UsageError
from stav2a.utils.files import write_text

ROOT = Path(__file__).parents[1]
SUBMISSIONS, PAGE = ROOT / "benchmark/submissions", ROOT / "docs/leaderboard.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"

SEED, CLIPS = 0, 128  # of the dataset: the test clips of the laptop scale, on whose number FD depends
PRIMARY = {"aa_align": "AA-Align ↑", "class_accuracy_vague": "Class accuracy, vague ↑", "fd": "FD ↓"}
SHARES = (
    "aa_align", "av_align", "onset_f1", "class_accuracy_named", "class_accuracy_vague",
    "probe_accuracy_vague_yamnet",
)  # fmt: skip
METRICS = (*PRIMARY, "av_align", "onset_f1", "kl", "is", "class_accuracy_named", "fd_yamnet", "kad_yamnet")
METRICS += ("probe_accuracy_vague_yamnet",)  # all that the laptop scale measures
LONGEST = {"name": 40, "description": 300, "licence": 60}
REQUIRED = ("name", "description", "benchmark", "seeds", "metrics", "licence", "date", "versions")
OPTIONAL = ("command", "link")  # at least one of them
SELECTION = {"version": VERSION, "level": tuple(LEVELS), "seed": SEED, "clips": CLIPS}
FIGURE = ("value", "low", "high", "clips")
RUN = ("row", "seed", "sounds_key")  # columns of a study's runs


class SubmissionError(StaV2AError):
    """A submission that can't be taken: all its faults, and what was expected."""

    separator = "\n"


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A system's figures, as a file of `benchmark/submissions` has them.

    Args:
        name: Name in the table.
        description: What the system is, and what it was given beside the video and the caption.
        benchmark: The world and its clips: version, level, seed and number of test clips.
        seeds: Seeds of the system that the figures are means over.
        metrics: Metric -> value, low and high end of the 95 % interval or None, and number of clips.
        licence: Licence of the system, such as an SPDX identifier.
        date: Day of the measurement, YYYY-MM-DD.
        versions: Package -> version that measured it; stav2a among them.
        command: Command that makes the figures.
        link: Page of the system.
    """

    name: str
    description: str
    benchmark: Mapping[str, Any]
    seeds: Sequence[int]
    metrics: Mapping[str, Mapping[str, Any]]
    licence: str
    date: str
    versions: Mapping[str, str]
    command: str = ""
    link: str = ""

    def __post_init__(self) -> None:
        if faults := list(_faults(asdict(self))):
            raise SubmissionError("\n".join(faults), advice="docs/leaderboard.md describes the fields.")

    @property
    def file_name(self) -> str:
        """Name of its file: the name and the level in lower case, with one dash for what else is between."""
        plain = f"{self.name} {self.benchmark['level']}".lower().replace("+", " plus ")
        return "-".join(re.findall(r"[a-z0-9]+", plain)) + ".json"

    def write(self, folder: Path) -> Path:
        """Write its file, in place of an older one."""
        fields = {name: value for name, value in asdict(self).items() if value != ""}
        write_text(folder / self.file_name, json.dumps(fields, indent=1, ensure_ascii=False) + "\n")
        return folder / self.file_name


def read(path: Path) -> Submission:
    """The submission of a file.

    Raises:
        SubmissionError: With the file, all its faults and what to do.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise SubmissionError(f"a {type(content).__name__}, expected an object with fields")
        if unknown := sorted(set(content) - {*REQUIRED, *OPTIONAL}):
            raise SubmissionError(
                f"unknown fields: {', '.join(unknown)}; expected {', '.join((*REQUIRED, *OPTIONAL))}"
            )
        if missing := [name for name in REQUIRED if name not in content]:
            raise SubmissionError(f"missing fields: {', '.join(missing)}")
        found = Submission(**content)
        if path.name != found.file_name:
            raise SubmissionError(f"the file is named {path.name}; expected {found.file_name}")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SubmissionError(f"{path.name}: no JSON: {error}") from None
    except SubmissionError as error:
        lines = "\n".join(f"{path.name}: {line}" for line in error.message.splitlines())
        raise SubmissionError(lines, advice=error.advice) from None
    return found


def read_all(folder: Path = SUBMISSIONS) -> list[Submission]:
    """All submissions of a folder, by the names of the files.

    Raises:
        SubmissionError: With the faults of all files.
    """
    found, faults = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(read(path))
        except SubmissionError as error:
            faults.append(error.message)
    if faults:
        raise SubmissionError("\n".join(faults), advice="docs/leaderboard.md describes the fields.")
    return found


def text_faults(given: Mapping[str, Any]) -> Iterator[str]:
    """Faults of what a person writes: name, description, licence, and command or link; a line each."""
    for name in ("name", "description", "licence"):
        text = given[name]
        if not isinstance(text, str) or not text.strip():
            yield f"{name} is {text!r}; expected a text"
        elif len(text) > LONGEST[name] or not text.isprintable() or set(text) & set("|<>[]`"):
            most = LONGEST[name]
            yield f"{name} is {text!r}; expected at most {most} characters without | < > [ ] `"
    command, link = given["command"], given["link"]
    if not isinstance(command, str) or not isinstance(link, str) or not (command or link):
        yield f"command is {command!r} and link {link!r}; expected a text in at least one of them"
    elif link and not re.fullmatch(r"https://[^\s()<>|]+", link):
        yield f"link is {link!r}; expected an address that begins with https://"


def _faults(content: Mapping[str, Any]) -> Iterator[str]:
    """Faults of a submission's fields, a line each."""
    yield from text_faults(content)
    given = content["benchmark"]
    if not isinstance(given, Mapping) or set(given) != set(SELECTION):
        yield f"benchmark is {given!r}; expected the fields {', '.join(SELECTION)}"
    else:
        for name, expected in SELECTION.items():
            allowed = expected if isinstance(expected, tuple) else (expected,)
            if given[name] not in allowed or isinstance(given[name], bool):
                yield f"benchmark.{name} is {given[name]!r}; expected {' or '.join(map(repr, allowed))}"
    seeds = content["seeds"]
    if not isinstance(seeds, list | tuple) or not seeds or not all(_whole(seed) for seed in seeds):
        yield f"seeds is {seeds!r}; expected a list of whole numbers"
    elif len(set(seeds)) < len(seeds):
        yield f"seeds is {seeds!r}; expected each seed once"
    metrics = content["metrics"]
    if not isinstance(metrics, Mapping):
        yield f"metrics is {metrics!r}; expected an object"
    else:
        if missing := [name for name in PRIMARY if name not in metrics]:
            yield f"metrics lacks {', '.join(missing)}; the primary metrics are {', '.join(PRIMARY)}"
        for name, figure in metrics.items():
            yield from _faults_of_figure(name, figure)
    try:
        date.fromisoformat(content["date"])
    except (TypeError, ValueError):
        yield f"date is {content['date']!r}; expected a day such as 2026-12-01"
    versions = content["versions"]
    if not isinstance(versions, Mapping) or not all(isinstance(each, str) for each in versions.values()):
        yield f"versions is {versions!r}; expected an object of texts"
    elif "stav2a" not in versions:
        yield f"versions has {', '.join(versions) or 'nothing'}; expected stav2a among them"


def _faults_of_figure(name: str, figure: Any) -> Iterator[str]:
    if name not in METRICS:
        yield f"metrics.{name} is unknown; expected {', '.join(METRICS)}"
    elif not isinstance(figure, Mapping) or set(figure) != set(FIGURE):
        yield f"metrics.{name} is {figure!r}; expected the fields {', '.join(FIGURE)}"
    else:
        value, low, high, clips = (figure[each] for each in FIGURE)
        without = low is None and high is None
        if not all(_finite(each) for each in ((value,) if without else (value, low, high))):
            yield f"metrics.{name} is {value!r} [{low!r}, {high!r}]; expected numbers, or null at both ends"
        elif not without and not low <= value <= high:
            yield f"metrics.{name} is {value} [{low}, {high}]; expected the value within its interval"
        elif name in SHARES and not 0 <= value <= 1:
            yield f"metrics.{name}.value is {value}; expected 0 to 1"
        if not _whole(clips) or not 1 <= clips <= CLIPS or (name.startswith("fd") and clips != CLIPS):
            expected = f"{CLIPS}" if name.startswith("fd") else f"1 to {CLIPS}"
            yield f"metrics.{name}.clips is {clips!r}; expected {expected}"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def table(submissions: Sequence[Submission]) -> str:
    """Markdown tables of the submissions, one a level, by AA-Align from the best on.

    Example:
        >>> table([])
        'There are no submissions.\\n'
    """
    parts = []
    for level in LEVELS:
        chosen = [each for each in submissions if each.benchmark["level"] == level]
        chosen.sort(key=lambda each: (-each.metrics["aa_align"]["value"], each.name))
        if chosen:
            head = ["system", *PRIMARY.values(), "seeds", "date", "description"]
            rows = [head, ["---", *["---:"] * len(PRIMARY), "---:", "---", "---"], *map(_row, chosen)]
            lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
            parts.append(
                f"Level `{level}`, version {VERSION}, {CLIPS} test clips of seed {SEED}:\n\n{lines}\n"
            )
    return "\n".join(parts) or "There are no submissions.\n"


def _row(submission: Submission) -> list[str]:
    name = f"[{submission.name}]({submission.link})" if submission.link else submission.name
    figures = [_shown(submission.metrics[metric], 1 if metric == "fd" else 2) for metric in PRIMARY]
    return [name, *figures, str(len(submission.seeds)), submission.date, submission.description]


def _shown(figure: Mapping[str, Any], digits: int) -> str:
    value = f"{figure['value']:.{digits}f}"
    if figure["low"] is None:
        return value
    return f"{value} [{figure['low']:.{digits}f},&nbsp;{figure['high']:.{digits}f}]"


def with_table(page: str, submissions: Sequence[Submission]) -> str:
    """The page's text with the table between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"{PAGE.name} lacks {BEGIN.strip()} or {END.strip()}"
    return f"{before}{BEGIN}\n{table(submissions)}\n{END}{after}"


def figure(value: float, low: float | None, high: float | None, clips: int) -> dict[str, Any]:
    """A figure as a submission has it, with six digits."""
    ends = (None if low is None or high is None else float(f"{end:.6g}") for end in (low, high))
    return dict(zip(FIGURE, (float(f"{value:.6g}"), *ends, clips), strict=True))


def of_study(file: str, results: Path, runs: Path, *, licence: str, day: str) -> list[Submission]:
    """Submissions of a study's rows, from the tables of its report.

    Args:
        file: The study's file, whose recipes name the dataset and its level.
        results: The CSV with the figures.
        runs: The CSV with the key of each run's sounds, which shows that they are of today's benchmark.
        licence: Licence of the systems.
        day: Day of the measurement.

    Raises:
        UsageError: Rows that the study does not have, no figures, or older ones.
        SubmissionError: The rows' clips are not those of the benchmark.
    """
    from stav2a import recipe  # not above: with all components it takes seconds
    from stav2a.data.struck_objects import StruckObjects
    from stav2a.experiments.ablation import planning, study
    from stav2a.experiments.experiment import Experiment
    from stav2a.experiments.tracking import environment

    lines = [line for line in _records(results, ("row", "metric", "seeds", *FIGURE)) if line["value"]]
    keys = {(each["row"], each["seed"]): each["sounds_key"] for each in _records(runs, RUN)}
    loaded = study.load(file, seeds=sorted({int(seed) for _, seed in keys}))
    known = {row.name: row for row in loaded.rows}
    by_row: dict[str, dict[str, dict[str, str]]] = {}
    for line in lines:
        by_row.setdefault(line["row"], {})[line["metric"]] = line
    if not by_row or (unknown := set(by_row) - set(known)):
        given = f"the rows {', '.join(sorted(unknown))}, which {file} lacks" if by_row else "no figures"
        raise UsageError(f"{results} has {given}.", advice="Give a study and the CSV of its own report.")
    with tempfile.TemporaryDirectory() as folder:
        planned = planning.plan(loaded, Path(folder)).runs
    today = {(run.row.name, str(run.seed)): run.sounds_key for run in planned}
    seeds = {row: next(iter(metrics.values()))["seeds"].split() for row, metrics in by_row.items()}
    needed = [(row, seed) for row in by_row for seed in seeds[row]]
    if older := [place for place in needed if place not in keys or keys[place] != today[place]]:
        raise UsageError(
            f"{len(older)} of {len(needed)} runs of {results} made other sounds than {file} does today, "
            f"first {older[0][0]}, seed {older[0][1]}.",
            advice="Run the study again.",
        )
    found = []
    for name, metrics in by_row.items():
        run = next(run for run in planned if run.row.name == name)
        dataset = recipe.load(run.recipes, run.bindings, root=Experiment).build().dataset()
        if not isinstance(dataset, StruckObjects):
            raise UsageError(f"{file}: {name} is measured on {type(dataset).__name__}, not StruckObjects.")
        chosen = {
            "version": dataset.version,
            "level": dataset.level,
            "seed": dataset.seed,
            "clips": dataset.counts["test"],
        }
        figures = {
            metric: figure(
                float(line["value"]), _number(line["low"]), _number(line["high"]), int(line["clips"])
            )
            for metric, line in metrics.items()
            if metric in METRICS
        }
        found.append(
            Submission(
                name=name,
                description=f"row of {file}: {', '.join(_relative(Path(each)) for each in run.recipes)}",
                benchmark=chosen,
                seeds=[int(seed) for seed in seeds[name]],
                metrics=figures,
                licence=licence,
                date=day,
                versions=software(environment()),
                command=f"stav2a ablation --gin {file} --seeds {' '.join(seeds[name])}",
            )
        )
    return found


def software(environment: Mapping[str, str]) -> dict[str, str]:
    """The versions of an environment, without its machine."""
    return {
        name: value for name, value in environment.items() if name not in ("platform", "cpu_count", "threads")
    }


def _records(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Lines of a CSV that has these columns."""
    if not path.is_file():
        raise UsageError(
            f"{path}: there is no such file.", advice="Give the CSV files of the study's report."
        )
    with path.open(newline="", encoding="utf-8") as opened:
        table = csv.DictReader(opened)
        if missing := [name for name in columns if name not in (table.fieldnames or ())]:
            advice = f"Give the CSV of the study's report that has them: {', '.join(columns)}."
            raise UsageError(f"{path} lacks the columns {', '.join(missing)}.", advice=advice)
        return list(table)


def _number(text: str) -> float | None:
    return float(text) if text else None


def _relative(path: Path) -> str:
    return path.resolve().relative_to(ROOT).as_posix() if path.resolve().is_relative_to(ROOT) else path.name


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the submissions, or make those of a study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="check all submissions and print the table")
    check.add_argument("--write", action="store_true", help="write the table into docs/leaderboard.md")
    made = commands.add_parser("study", help="make submissions of a study's rows")
    made.add_argument("study", help="the study's file")
    made.add_argument("results", type=Path, help="the CSV of its report")
    made.add_argument("runs", type=Path, help="the CSV of its runs")
    made.add_argument("--licence", default="Apache-2.0", help="licence of the rows' systems")
    made.add_argument("--date", default=date.today().isoformat(), help="day of the measurement")
    given = parser.parse_args(arguments)
    try:
        if given.command == "study":
            rows = of_study(given.study, given.results, given.runs, licence=given.licence, day=given.date)
            for row in rows:
                print(row.write(SUBMISSIONS).relative_to(ROOT))
        submissions = read_all()
    except StaV2AError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table(submissions), end="")
    if given.command == "check":
        page = PAGE.read_text(encoding="utf-8")
        expected = with_table(page, submissions)
        if given.write:
            write_text(PAGE, expected)
        elif page != expected:
            remedy = "write it: python -m benchmark.leaderboard check --write"
            print(f"error: {PAGE.name} shows another table than that of the files; {remedy}", file=sys.stderr)
            return FAILURE
        print(f"{len(submissions)} files keep to the rules, and {PAGE.name} shows them", file=sys.stderr)
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
