"""What a study leaves on the disk: its record, its tables and its page, and every child's log."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stav2a.experiments.ablation.planning import PlannedRun, StudyPlan
from stav2a.recipe import describing, parsing
from stav2a.utils.files import write_json, write_text

FORMAT = 1
RECORD = "study.json"


@dataclass(frozen=True)
class StudyFolder:
    """The files of one study.

    Args:
        path: The folder.
    """

    path: Path

    @classmethod
    def of(cls, output: Path, name: str) -> "StudyFolder":
        """The folder of the study of this name; made where it is not there."""
        folder = cls(output / "ablations" / name)
        for path in (folder.path / "logs", folder.path / "diffs"):
            path.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def record(self) -> Path:
        return self.path / RECORD

    @property
    def page(self) -> Path:
        return self.path / "report.html"

    def table(self, ending: str) -> Path:
        """The table as Markdown, CSV or LaTeX: md, csv, tex."""
        return self.path / f"table.{ending}"

    def log(self, run: PlannedRun) -> Path:
        """What a child process printed."""
        return self.path / "logs" / f"{run.row.file_name}-seed{run.seed}.log"

    def read(self) -> dict[str, Any]:
        """The record of an earlier go; {} where there is none that can be used."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if record.get("format") == FORMAT else {}

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the record."""
        write_json(self.record, record)

    def write_diff(self, run: PlannedRun, runs: Sequence[PlannedRun], baseline: str) -> Path | None:
        """What sets a run apart from the row that it builds on, else from the baseline; None for that one."""
        other = run.row.builds_on or (baseline if baseline != run.row.name else None)
        if other is None:
            return None
        (against,) = (each for each in runs if each.row.name == other and each.seed == run.seed)
        path = self.path / "diffs" / f"{run.row.file_name}-seed{run.seed}" / "diff.txt"
        path.parent.mkdir(exist_ok=True)
        changes = describing.diff(against.described, run.described)
        write_text(path, f"# {run.row.name}, against {other}\n{changes}\n")
        return path


def record_of(plan: StudyPlan, command: str) -> dict[str, Any]:
    """All that a comparison needs to know of a study beside its runs' scores."""
    study = plan.study
    rows = [{**asdict(row), "recipes": [parsing.shown(path) for path in row.recipes]} for row in study.rows]
    return {
        "format": FORMAT,
        "name": study.name,
        "signature": plan.signature(),
        "command": command,
        "rows": rows,
        "over": {"recipes": plan.overlay.recipes, "bindings": plan.overlay.bindings},
        "seeds": study.seeds,
        "baseline": study.baseline,
        "metrics": list(study.metrics.items()),  # a list keeps its order
        "published": study.published,
        "runs": [{"row": run.row.name, "seed": run.seed, "signature": run.signature} for run in plan.runs],
        "goes": [],
    }
