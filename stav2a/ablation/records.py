"""What a study's runs left in the tracking store, read for their comparison."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stav2a import evaluation
from stav2a.ablation.folder import FORMAT, RECORD
from stav2a.comparison import Comparison, Row, compare
from stav2a.metrics.sets import Score
from stav2a.tracking import Kept, TrackingStore

REASONS = {"FAILED": "it failed", "KILLED": "it was stopped", "RUNNING": "it has not come to its end"}
Curves = dict[str, dict[str, list[tuple[int, float]]]]


class RecordError(ValueError):
    """A run in the tracking store that is no study's, or one of another version."""


@dataclass(frozen=True)
class Records:
    """A study in the tracking store.

    Args:
        store: Where it is.
        parent: The study's own run.
    """

    store: TrackingStore
    parent: Kept

    @cached_property
    def study(self) -> dict[str, Any]:
        """The study's record.

        Raises:
            RecordError: This version can't read it.
        """
        record = json.loads(self.store.text(self.parent, RECORD))
        if record.get("format") != FORMAT:
            raise RecordError(
                f"the study {self.parent.name} ({self.parent.run_id}) was written in format "
                f"{record.get('format')}, this version reads {FORMAT}. Run it again."
            )
        return record

    @cached_property
    def runs(self) -> dict[tuple[str, int], Kept]:
        """The finished run of every row and seed that has one."""
        return {key: run for key, run in self._newest.items() if run.status == "FINISHED"}

    @cached_property
    def scores(self) -> dict[tuple[str, int], Sequence[Score]]:
        """The scores of every finished run."""
        return {
            key: evaluation.from_json(self.store.text(run, "scores.json")) for key, run in self.runs.items()
        }

    def compared(self) -> Comparison:
        """The comparison that the study asks for."""
        record = self.study
        return compare(
            [self._row(row) for row in record["rows"]],
            metrics=dict(record["metrics"]),
            baseline=record["baseline"],
            published=record["published"],
        )

    def shown(self) -> dict[str, tuple[int, Kept]]:
        """Of every row the first seed that is finished, and its run: what can be seen and heard of it."""
        found: dict[str, tuple[int, Kept]] = {}
        for (row, seed), run in sorted(self.runs.items(), key=lambda item: item[0][1]):
            found.setdefault(row, (seed, run))
        return {row["name"]: found[row["name"]] for row in self.study["rows"] if row["name"] in found}

    def curves(self) -> Curves:
        """Losses by their name, and by row, of the runs shown."""
        found: Curves = {}
        for row, (_, run) in self.shown().items():
            for name in run.metrics:
                if "/" in name:  # stage/loss; scores have none
                    found.setdefault(name, {})[row] = self.store.history(run, name)
        return found

    def samples(self, run: Kept) -> tuple[Path, list[dict[str, Any]]]:
        """The folder of a run's samples, fetched, and what is told of its clips."""
        folder = self.store.file(run, "samples")
        return folder, json.loads((folder / "clips.json").read_text(encoding="utf-8"))

    def text(self, run: Kept, name: str) -> str | None:
        """A text that some runs have, or None."""
        return self.store.text(run, name) if name in self.store.files(run) else None

    @cached_property
    def _newest(self) -> dict[tuple[str, int], Kept]:
        """The best that there is of every row and seed: finished before not, then the newest."""
        wanted = {(run["row"], str(run["seed"])): run["signature"] for run in self.study["runs"]}
        found: dict[tuple[str, int], Kept] = {}
        children = self.store.children(self.parent.run_id)
        for run in sorted(children, key=lambda run: run.status != "FINISHED"):
            key = run.tags.get("row", ""), run.tags.get("seed", "")
            if key in wanted and run.tags.get("signature") in (None, wanted[key]):
                found.setdefault((key[0], int(key[1])), run)
        return found

    def _row(self, row: Mapping[str, Any]) -> Row:
        name, seeds = row["name"], self.study["seeds"]
        return Row(
            name=name,
            scores={seed: self.scores[name, seed] for seed in seeds if (name, seed) in self.scores},
            builds_on=row["builds_on"],
            missing={
                seed: self._reason(self._newest.get((name, seed)))
                for seed in seeds
                if (name, seed) not in self.scores
            },
        )

    def _reason(self, run: Kept | None) -> str:
        return "it was not run" if run is None else REASONS.get(run.status, run.status)
