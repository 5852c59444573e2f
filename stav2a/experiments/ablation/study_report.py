"""A study's comparison written down: tables in four forms and a page, from the tracking store alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stav2a.evaluation.comparison import ComparedRow, Comparison, compare
from stav2a.evaluation.scores import from_json
from stav2a.experiments.ablation.planning import counted, duration
from stav2a.experiments.ablation.study_folder import RECORD, StudyFolder, parse_record
from stav2a.experiments.tracking import TrackedRun, TrackingStore
from stav2a.metrics.score import Score
from stav2a.reports import tables
from stav2a.reports.comparison_page import ComparedClip, RowClip, write_comparison
from stav2a.utils.files import write_text

REASONS = {"FAILED": "it failed", "KILLED": "it was stopped", "RUNNING": "it has not come to its end"}
Curves = dict[str, dict[str, list[tuple[int, float]]]]


@dataclass(frozen=True)
class StudyRecords:
    """A study in the tracking store.

    Args:
        store: Where it is.
        parent: The study's own run.
    """

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

    def compared(self) -> Comparison:
        """The comparison that the study asks for."""
        record = self.study
        return compare(
            [self._row(row) for row in record["rows"]],
            metrics=dict(record["metrics"]),
            baseline=record["baseline"],
            published=record["published"],
        )

    def shown(self) -> dict[str, tuple[int, TrackedRun]]:
        """Of every row the first seed that is finished, and its run: what can be seen and heard of it."""
        found: dict[str, tuple[int, TrackedRun]] = {}
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

    def samples(self, run: TrackedRun) -> tuple[Path, list[dict[str, Any]]]:
        """The folder of a run's samples, fetched, and what is told of its clips."""
        folder = self.store.file(run, "samples")
        return folder, json.loads((folder / "clips.json").read_text(encoding="utf-8"))

    def text(self, run: TrackedRun, name: str) -> str | None:
        """A text that some runs have, or None."""
        return self.store.text(run, name) if name in self.store.files(run) else None

    @cached_property
    def _newest(self) -> dict[tuple[str, int], TrackedRun]:
        """The best that there is of every row and seed: finished before not, then the newest."""
        wanted = {(run["row"], str(run["seed"])): run["signature"] for run in self.study["runs"]}
        found: dict[tuple[str, int], TrackedRun] = {}
        children = self.store.children(self.parent.run_id)
        for run in sorted(children, key=lambda run: run.status != "FINISHED"):
            key = run.tags.get("row", ""), run.tags.get("seed", "")
            if key in wanted and run.tags.get("signature") in (None, wanted[key]):
                found.setdefault((key[0], int(key[1])), run)
        return found

    def _row(self, row: Mapping[str, Any]) -> ComparedRow:
        name, seeds = row["name"], self.study["seeds"]
        return ComparedRow(
            name=name,
            scores={seed: self.scores[name, seed] for seed in seeds if (name, seed) in self.scores},
            builds_on=row["builds_on"],
            missing={
                seed: self._reason(self._newest.get((name, seed)))
                for seed in seeds
                if (name, seed) not in self.scores
            },
        )

    def _reason(self, run: TrackedRun | None) -> str:
        return "it was not run" if run is None else REASONS.get(run.status, run.status)


def report(store: TrackingStore, parent: TrackedRun, folder: StudyFolder) -> str:
    """Compare a study's runs and write what came of it.

    Args:
        store: Holds the runs.
        parent: The study's own run.
        folder: Where to.

    Returns:
        The table, and where the files are.
    """
    records = StudyRecords(store, parent)
    compared = records.compared()
    head = facts(records)
    write_text(folder.table("md"), f"{_headed(records.study['name'], head)}\n{tables.markdown(compared)}")
    write_text(folder.table("csv"), tables.csv(compared))
    write_text(folder.table("tex"), tables.latex(compared))
    _write_page(records, compared, folder, head)
    endings = ", ".join(f".{ending}" for ending in ("csv", "tex"))
    places = {"report": folder.page, "tables": f"{folder.table('md')}, {endings}"}
    return "\n".join([tables.text(compared), *(f"{name:11}{place}" for name, place in places.items())])


def facts(records: StudyRecords) -> dict[str, str]:
    """What a reader has to know to judge the figures, or to make them again."""
    study = records.study
    count = f"{counted(len(study['rows']), 'row')} × {counted(len(study['seeds']), 'seed')}"
    environment, git = study.get("environment", {}), study.get("git", {})
    named = {
        name: value for name, value in environment.items() if name not in ("platform", "cpu_count", "gpu")
    }
    if "commit" in git:
        named["commit"] = git["commit"][:10] + (" with changes" if git.get("dirty") == "yes" else "")
    device = environment.get("gpu") or f"{environment.get('cpu_count', '?')} CPU cores"
    told = {
        "command": study["command"],
        "runs": f"{count}, {len(records.runs)} of {len(study['runs'])} finished",
        "took": _took(study),
        "device": f"{device}, {environment.get('platform', '?')}",
        "date": study["attempts"][-1]["began"] if study["attempts"] else "",
        "versions": ", ".join(f"{name} {value}" for name, value in named.items()),
    }
    return {name: value for name, value in told.items() if value}


def _took(study: Mapping[str, Any]) -> str:
    """Wall time of all completed attempts, and of how many runs; the others are not in it."""
    attempts = study["attempts"]
    started = sum(attempt["runs"] for attempt in attempts)
    if not started:
        return ""
    parts = [
        duration(sum(attempt["seconds"] for attempt in attempts)),
        f"for {counted(started, 'run')}, {attempts[-1]['jobs']} at a time",
    ]
    if len(attempts) > 1:
        parts.append(f"in {len(attempts)} attempts")
    if started < len(study["runs"]):
        parts.append("(the others were there, or were made in an attempt that was stopped)")
    return " ".join(parts)


def _headed(name: str, told: Mapping[str, str]) -> str:
    rows = [f"| {key} | {f'`{value}`' if key == 'command' else value} |" for key, value in told.items()]
    note = f"Written by the command below; made again by `stav2a ablation --report {name}`. Don't edit it."
    return "\n".join([f"# {name}", "", note, "", "| | |", "|---|---|", *rows, ""])


def _write_page(
    records: StudyRecords, compared: Comparison, folder: StudyFolder, told: Mapping[str, str]
) -> None:
    study, shown = records.study, records.shown()
    apart = {
        f"What sets {row} apart": text
        for row, (_, run) in shown.items()
        if (text := records.text(run, "diff.txt"))
    }
    write_comparison(
        folder.page,
        compared,
        title=study["name"],
        facts=told,
        clips=_clips(records),
        curves=records.curves(),
        details={**apart, "Environment": {**study.get("environment", {}), **study.get("git", {})}},
    )


def _clips(records: StudyRecords) -> list[ComparedClip]:
    """The clips of the first row that has samples, through all rows that have them."""
    fetched = {row: (seed, *records.samples(run)) for row, (seed, run) in records.shown().items()}
    if not fetched:
        return []
    _, folder, clips = next(iter(fetched.values()))
    return [
        ComparedClip(
            id=clip["id"],
            caption=clip["caption"],
            tags=[tag for tag in (clip["label"], "vague caption" if clip["vague"] else None) if tag],
            onsets_s=clip["onsets_s"] or (),
            duration_s=clip["duration_s"],
            reference=folder / f"{clip['id']}.reference.wav",
            rows={
                row: RowClip(
                    video=own / f"{clip['id']}.mp4",
                    audio=own / f"{clip['id']}.wav",
                    facts=_own_scores(records, row, seed, clip["id"]),
                )
                for row, (seed, own, theirs) in fetched.items()
                if clip["id"] in [each["id"] for each in theirs]
            },
        )
        for clip in clips
    ]


def _own_scores(records: StudyRecords, row: str, seed: int, clip: str) -> dict[str, str]:
    """What each metric of the study says of one clip of one row."""
    return {
        score.label: f"{score.per_clip[clip]:.2f}"
        for score in records.scores[row, seed]
        if score.name in dict(records.study["metrics"]) and score.per_clip and clip in score.per_clip
    }
