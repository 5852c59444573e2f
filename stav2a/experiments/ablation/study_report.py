"""Files of a study: its record and logs, and the tables and page made from the tracking store alone."""

import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from stav2a.data.onsets import SuperFlux
from stav2a.evaluation.comparison import Comparison, compare
from stav2a.evaluation.factorial import FactorialEffects, factorial_effects
from stav2a.evaluation.hypotheses import Hypothesis, hypothesis_tests
from stav2a.evaluation.scores import clips_csv, from_json
from stav2a.experiments.ablation.planning import PlannedRun, StudyPlan, counted, duration
from stav2a.experiments.tracking import DEFAULT_OUTPUT, WITHIN, TrackedRun, TrackingStore
from stav2a.metrics.score import Score
from stav2a.recipe import describing, shown
from stav2a.reports.comparison_tables import (
    COSTS,
    comparison_csv,
    comparison_document,
    figures_table,
    hypothesis_table,
)
from stav2a.reports.effect_tables import effect_notes, effect_tables, effects_csv
from stav2a.reports.pages import plane_picture, sample_clips, write_page
from stav2a.utils.errors import StaV2AError, printable
from stav2a.utils.files import write_bytes, write_text
from stav2a.utils.program import nearby

FORMAT = 2
RECORD = "study.json"
REASONS = {"FAILED": "it failed", "KILLED": "it was stopped", "RUNNING": "it has not come to its end"}


class RecordError(StaV2AError):
    """A record of a study that this version can't read."""


class StudyFolder:
    """The files of one study, in the folder of the run folders."""

    def __init__(self, output: Path, name: str) -> None:
        self.path = output / "ablations" / name
        self.record = self.path / RECORD
        self.page = self.path / "report.html"
        self.logs = self.path / "logs"
        self.tables = [self.path / f"table.{ending}" for ending in ("md", "csv", "tex")]
        self.clips = self.path / "clips.csv"
        self.runs = self.path / "runs.csv"  # the key of each run's sounds, which changes with what makes them
        self.effects = self.path / "effects.csv"  # of a study of factors
        self.plane = self.path / "plane.png"
        named = () if output.resolve() == DEFAULT_OUTPUT.resolve() else ("--output", nearby(output))
        self.again = shlex.join(["stav2a", "ablation", "--report", name, *named])  # in files, which travel

    def log(self, run: PlannedRun) -> Path:
        """Output of a run's process."""
        return self.logs / f"{run.row.file_name}-seed{run.seed}.log"

    def read(self) -> dict[str, Any]:
        """Record of an earlier attempt; {} where there is none that can be used."""
        try:
            return parse_record(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def write_diff(self, run: PlannedRun, plan: StudyPlan) -> Path | None:
        """Write the difference of a run to the row it builds on, else to the baseline, which has none."""
        other = run.row.builds_on or plan.study.baseline
        if other == run.row.name:
            return None
        (against,) = (each for each in plan.runs if each.row.name == other and each.seed == run.seed)
        path = self.path / "diffs" / f"{run.row.file_name}-seed{run.seed}" / "diff.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        changes = describing.diff(against.described, run.described)
        write_text(path, f"# {run.row.name}, against {other}\n{changes}\n")
        return path


def new_record(
    plan: StudyPlan, command: str, before: Mapping[str, Any] | None = None, finished: int = 0
) -> dict[str, Any]:
    """Everything that a comparison needs of a study, beside the scores of its runs.

    Args:
        plan: The study's plan.
        command: The command that runs it.
        before: Record of an earlier attempt, if any: hypotheses that it has were stated then.
        finished: Number of runs that are finished now, when the others are stated.
    """
    study = plan.study
    stated = [Hypothesis(**each) for each in (before or {}).get("hypotheses", ())]
    known = {each.statement: each.finished_runs for each in stated}
    rows = [{**asdict(row), "recipes": [shown(path) for path in row.recipes]} for row in study.rows]
    return {
        "format": FORMAT,
        "name": study.name,
        "signature": plan.signature(),
        "command": command,
        "rows": rows,
        "factors": list(study.factors.items()),  # lists keep their order
        "refused": list(plan.refused.items()),
        "overlay": {"recipes": study.recipes, "bindings": study.bindings},
        "seeds": study.seeds,
        "baseline": study.baseline,
        "metrics": list(study.metrics.items()),
        "published": study.published,
        "plane": study.plane,
        "hypotheses": [
            {**asdict(each), "finished_runs": known.get(each.statement, finished)}
            for each in study.hypotheses
        ],
        "runs": [
            {
                "row": run.row.name,
                "seed": run.seed,
                "signature": run.signature,
                "sounds_key": run.sounds_key,
            }
            for run in plan.runs
        ],
        "attempts": [],
        "tracking": {},
    }


def parse_record(text: str) -> dict[str, Any]:
    """Record of a study; one of format 1 gets the keys of format 2.

    Raises:
        RecordError: It has another format.
    """
    record = json.loads(text)
    if record.get("format") == 1:
        old = {"goes": "attempts", "over": "overlay", "parents": "tracking"}
        return {**{old.get(key, key): value for key, value in record.items()}, "format": FORMAT}
    if record.get("format") != FORMAT:
        found = f"the study {record.get('name')} was written in format {record.get('format')}"
        raise RecordError(f"{found}, this version reads {FORMAT}.", advice="Run it again.")
    return record


@dataclass(frozen=True)
class StudyRecords:
    """A study in the tracking store, where `parent` is the study's own run."""

    store: TrackingStore
    parent: TrackedRun

    @cached_property
    def study(self) -> dict[str, Any]:
        """The study's record.

        Raises:
            RecordError: This version can't read it.
        """
        return parse_record(self.store.text(self.parent, RECORD))

    @cached_property
    def runs(self) -> dict[tuple[str, int], TrackedRun]:
        """The finished run of every row and seed that has one."""
        return {key: run for key, run in self._newest.items() if run.status == "FINISHED"}

    @cached_property
    def scores(self) -> dict[tuple[str, int], Sequence[Score]]:
        """The scores of every finished run."""
        return {key: from_json(self.store.text(run, "scores.json")) for key, run in self.runs.items()}

    @property
    def by_row(self) -> dict[str, dict[int, Sequence[Score]]]:
        """The scores of every row by seed, in the table's order."""
        keys = {
            row["name"]: [(row["name"], seed) for seed in self.study["seeds"]] for row in self.study["rows"]
        }
        return {row: {key[1]: self.scores[key] for key in keys[row] if key in self.scores} for row in keys}

    def compared(self) -> Comparison:
        """The comparison that the study asks for."""
        record, missing = self.study, {}
        for row in record["rows"]:
            keys = {seed: (row["name"], seed) for seed in record["seeds"]}
            reasons = {seed: self._reason(key) for seed, key in keys.items() if key not in self.scores}
            if reasons:
                missing[row["name"]] = reasons
        return compare(
            self.by_row,
            metrics=dict(record["metrics"]),
            baseline=record["baseline"],
            builds_on={row["name"]: row["builds_on"] for row in record["rows"] if row["builds_on"]},
            missing=missing,
            published=record["published"],
        )

    def effects(self, comparison: Comparison) -> FactorialEffects | None:
        """Effects of the study's factors; None where it lists its rows."""
        record = self.study
        if not (factors := dict(record.get("factors", ()))):
            return None
        levels = {row["name"]: row["levels"] for row in record["rows"]}
        return factorial_effects(comparison, levels, factors)

    def costs(self) -> dict[str, dict[str, float]]:
        """Mean over the seeds of each row's costs, by the names of `COSTS`, as far as they are tracked."""
        found: dict[str, dict[str, float]] = {}
        for row in (row["name"] for row in self.study["rows"]):
            runs = [run.metrics for (name, _), run in self.runs.items() if name == row]
            values = {name: [run[name] for run in runs if name in run] for name in COSTS}
            found[row] = {name: fmean(each) for name, each in values.items() if each}
        return found

    def shown(self) -> dict[str, tuple[int, TrackedRun]]:
        """First finished seed of every row, and its run: the samples and curves of the page are its."""
        found: dict[str, tuple[int, TrackedRun]] = {}
        for (row, seed), run in sorted(self.runs.items(), key=lambda item: item[0][1]):
            found.setdefault(row, (seed, run))
        return {row["name"]: found[row["name"]] for row in self.study["rows"] if row["name"] in found}

    @cached_property
    def _newest(self) -> dict[tuple[str, int], TrackedRun]:
        """Best run of every row and seed: finished before unfinished, then the newest."""
        wanted = {(run["row"], str(run["seed"])): run["signature"] for run in self.study["runs"]}
        found: dict[tuple[str, int], TrackedRun] = {}
        children = self.store.children(self.parent.run_id)
        for run in sorted(children, key=lambda run: run.status != "FINISHED"):
            key = run.tags.get("row", ""), run.tags.get("seed", "")
            if key in wanted and run.tags.get("signature") in (None, wanted[key]):
                found.setdefault((key[0], int(key[1])), run)
        return found

    def _reason(self, key: tuple[str, int]) -> str:
        run = self._newest.get(key)
        return "it was not run" if run is None else REASONS.get(run.status, run.status)


class StudyReport(NamedTuple):
    """A study's report: the table with the paths of the files, the comparison in it, and the files."""

    text: str
    compared: Comparison
    files: tuple[Path, ...]


def report(store: TrackingStore, parent: TrackedRun, folder: StudyFolder) -> StudyReport:
    """Compare the runs of a study's own run, and write the tables and the page."""
    records = StudyRecords(store, parent)
    study = records.study
    compared, head = records.compared(), facts(records)
    effects = records.effects(compared)
    costs, above, notes = records.costs(), [], []
    if hypotheses := [Hypothesis(**each) for each in study.get("hypotheses", ())]:
        above = [hypothesis_table(compared, hypothesis_tests(compared, hypotheses))]
    if effects:
        above += effect_tables(compared, effects)
        notes = list(effect_notes(compared, effects, dict(study["refused"])))
        write_text(folder.effects, effects_csv(compared, effects))
    document = comparison_document(compared, above, notes, costs)
    plane = plane_picture(compared, study.get("plane") or (), costs)
    if plane:
        assert isinstance(plane.content, bytes)
        write_bytes(folder.plane, plane.content)
    markdown, figures, latex = folder.tables
    write_text(markdown, f"{_headed(study['name'], folder.again, head)}\n{document.markdown()}")
    write_text(figures, comparison_csv(compared))
    write_text(latex, document.latex())
    write_text(folder.clips, clips_csv(records.by_row, dict(study["metrics"])))
    write_text(folder.runs, runs_csv(study["runs"]))
    runs = records.shown()
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row, (_, run) in runs.items():
        for name in run.metrics:
            if "/" in name:  # training/STAGE/loss, in older runs STAGE/loss; scores have none
                curves.setdefault(name.removeprefix("training/"), {})[row] = store.history(run, name)
    apart = {
        f"Differences of {row}": store.text(run, "diff.txt")
        for row, (_, run) in runs.items()
        if "diff.txt" in store.files(run)
    }
    write_page(
        folder.page,
        document,
        title=study["name"],
        facts=head,
        comparison=compared,
        effects=effects,
        plane=plane,
        clips=sample_clips(
            {row: store.file(run, "samples") for row, (_, run) in runs.items()},
            {row: records.scores[row, seed] for row, (seed, _) in runs.items()},
            dict(study["metrics"]),
        ),
        detector=SuperFlux(),
        curves=curves,
        details={**apart, "Environment": {**study.get("environment", {}), **study.get("git", {})}},
    )
    tables = f"{markdown}, {figures.suffix}, {latex.suffix}; of each clip {folder.clips}"
    tables += f"; of each run {folder.runs}"
    tables += f"; effects {folder.effects}" if effects else ""
    places = (f"report     {folder.page}", f"tables     {tables}")
    text = "\n".join([document.text(), *map(printable, places)])
    more = [path for path, there in ((folder.effects, effects), (folder.plane, plane)) if there]
    files = (*folder.tables, folder.clips, folder.runs, *more, folder.page)
    return StudyReport(text, compared, files)


def runs_csv(runs: Sequence[Mapping[str, Any]]) -> str:
    """Row, seed and key of the sounds of every run, as CSV.

    The key covers the data, the stages and the sampling: where a plan of today has another one, the scores
    are older than what makes the sounds. Studies recorded by earlier versions have none.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("row", "seed", "sounds_key"))
    table.writerows((run["row"], run["seed"], run.get("sounds_key", "")) for run in runs)
    return text.getvalue()


def describe(store: TrackingStore, parent: TrackedRun, compared: Comparison) -> str:
    """Description of a study for MLflow's pages, in Markdown: its table, and how to compare its runs.

    Its links need the tags of `TrackingStore.children_views`.
    """
    compare, listed, charts, own = (
        address.removeprefix("/")
        for address in (
            store.compare_url(store.children(parent.run_id), WITHIN),
            store.children_url(parent, WITHIN, charts=False, viewed=True),
            store.children_url(parent, WITHIN, viewed=True),
            store.run_url(parent.experiment_id, parent.run_id, WITHIN),
        )
    )
    return "\n".join(
        [
            f"Rows of the study `{parent.name}`, over seeds; in brackets 95 % intervals.",
            "",
            f"- [Compare all runs]({compare}): parameters that differ, metrics, losses.",
            f"- [List of all runs]({listed}) with these metrics, and their [charts]({charts}).",
            f"- [The study's own run]({own}): among its artifacts are `report.html` (the same clips of all "
            "rows, with picture and sound), `table.md` (paired differences with intervals) and `clips.csv`.",
            "- The list of runs folds the rows under the study's run; `tags.row = 'NAME'` finds one.",
            "",
            figures_table(compared).markdown(),
            "",
        ]
    )


def row_figures(comparison: Comparison) -> dict[str, float]:
    """Mean and interval of each metric and row, by the names that tracking shows: `fd/CN`, `fd/CN_low`."""
    found = {}
    for (row, metric), estimate in comparison.estimates.items():
        name = f"{metric}/{row.replace('/', '_')}"
        found[name] = estimate.value
        if estimate.low is not None and estimate.high is not None:
            found |= {f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return found


def facts(records: StudyRecords) -> dict[str, str]:
    """Facts that are needed to judge the figures, or to make them again."""
    study = records.study
    count = f"{counted(len(study['rows']), 'row')} × {counted(len(study['seeds']), 'seed')}"
    environment, git = study.get("environment", {}), study.get("git", {})
    machine = ("platform", "cpu_count", "threads", "gpu")
    named = {name: value for name, value in environment.items() if name not in machine}
    if "commit" in git:
        named["commit"] = git["commit"][:10] + (" with changes" if git.get("dirty") == "yes" else "")
    device = environment.get("gpu") or f"{environment.get('cpu_count', '?')} CPU cores"
    threads = dict.fromkeys(run.params.get("version.threads") for run in records.runs.values())
    found = {
        "command": study["command"],
        "runs": f"{count}, {len(records.runs)} of {len(study['runs'])} finished",
        "took": _took(study),
        "device": f"{device}, {environment.get('platform', '?')}",
        "threads a run": ", ".join(filter(None, threads)),
        "date": study["attempts"][-1]["began"] if study["attempts"] else "",
        "versions": ", ".join(f"{name} {value}" for name, value in named.items()),
    }
    return {name: value for name, value in found.items() if value}


def _took(study: Mapping[str, Any]) -> str:
    """Wall time of all completed attempts, and of how many runs; the others are not in it."""
    attempts = study["attempts"]
    started = sum(attempt["runs"] for attempt in attempts)
    if not started:
        return ""
    took = duration(sum(attempt["seconds"] for attempt in attempts))
    took += f" for {counted(started, 'run')}, {attempts[-1]['jobs']} at a time"
    if len(attempts) > 1:
        took += f" in {len(attempts)} attempts"
    if started < len(study["runs"]):
        took += " (the others were there, or were made in an attempt that was stopped)"
    return took


def _headed(name: str, again: str, found: Mapping[str, str]) -> str:
    rows = [f"| {key} | {f'`{value}`' if key == 'command' else value} |" for key, value in found.items()]
    note = f"Written by the command below; made again by `{again}`. Don't edit it."
    return "\n".join([f"# {name}", "", note, "", "| | |", "|---|---|", *rows, ""])
