"""Folder of a study: its record, its tables and its page, and the log of every run."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stav2a.experiments.ablation.planning import PlannedRun, StudyPlan
from stav2a.recipe import describing, parsing
from stav2a.utils.errors import StaV2AError
from stav2a.utils.files import write_text

FORMAT = 2
RECORD = "study.json"


class RecordError(StaV2AError):
    """A record of a study that this version can't read."""


class StudyFolder:
    """The files of one study.

    Args:
        output: Folder of the run folders.
        name: Name of the study.
    """

    def __init__(self, output: Path, name: str) -> None:
        self.path = output / "ablations" / name
        self.record = self.path / RECORD
        self.page = self.path / "report.html"
        self.logs = self.path / "logs"

    def table(self, ending: str) -> Path:
        """Table as Markdown, CSV or LaTeX: md, csv, tex."""
        return self.path / f"table.{ending}"

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


def new_record(plan: StudyPlan, command: str) -> dict[str, Any]:
    """Everything that a comparison needs of a study, beside the scores of its runs."""
    study = plan.study
    rows = [{**asdict(row), "recipes": [parsing.shown(path) for path in row.recipes]} for row in study.rows]
    return {
        "format": FORMAT,
        "name": study.name,
        "signature": plan.signature(),
        "command": command,
        "rows": rows,
        "overlay": {"recipes": study.recipes, "bindings": study.bindings},
        "seeds": study.seeds,
        "baseline": study.baseline,
        "metrics": list(study.metrics.items()),  # a list keeps its order
        "published": study.published,
        "runs": [{"row": run.row.name, "seed": run.seed, "signature": run.signature} for run in plan.runs],
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
        raise RecordError(
            f"the study {record.get('name')} was written in format {record.get('format')}, "
            f"this version reads {FORMAT}.",
            advice="Run it again.",
        )
    return record
