"""The report: report.html to look at, report.json to compute with, clips.csv with a line a clip."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from stav2a.data.prepared.shards import DROPPED, FAILED, KEPT
from stav2a.preparation.dataset_folder import Folder
from stav2a.reports.html import Media, render
from stav2a.reports.plots import histogram_png

STATUSES = (KEPT, DROPPED, FAILED)
BINS = 50  # of the histogram of AV-Align, from 0 to 1; what lies beyond counts in the last
SHOWN = 200  # dropped and failed clips on the page; all are in clips.csv


class Summary:
    """Counts, the histogram of AV-Align, and the first of the clips that are not kept."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.splits: Counter[tuple[str, str]] = Counter()  # split, status
        self.dropped_by: Counter[str] = Counter()  # rule
        self.notes: Counter[str] = Counter()  # what was done to clips
        self.histograms: dict[str, list[int]] = {}  # rule -> bins
        self.shown: dict[str, list[Mapping[str, Any]]] = {DROPPED: [], FAILED: []}

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one clip."""
        status = row["status"]
        self.statuses[status] += 1
        self.splits[row["split"], status] += 1
        if status == DROPPED:
            self.dropped_by[row["rule"]] += 1
        self.notes.update(kind_of(note) for note in row.get("notes", ()))
        for rule, score in scores(row).items():
            if rule.startswith("av_align"):
                bins = self.histograms.setdefault(rule, [0] * BINS)
                bins[min(max(int(score * BINS), 0), BINS - 1)] += 1
        if status != KEPT and len(self.shown[status]) < SHOWN:
            self.shown[status].append({name: row[name] for name in ("id", "line", "rule", "reason")})

    def as_json(self) -> dict[str, Any]:
        """For report.json."""
        return {
            "clips": {status: self.statuses[status] for status in STATUSES},
            "splits": {
                split: {status: self.splits[split, status] for status in STATUSES}
                for split in sorted({split for split, _ in self.splits})
            },
            "dropped_by": dict(sorted(self.dropped_by.items())),
            "notes": dict(sorted(self.notes.items())),
            "histograms": dict(sorted(self.histograms.items())),
        }

    def lines(self) -> list[str]:
        """For people."""
        counts = ", ".join(f"{self.statuses[status]} {status}" for status in STATUSES)
        told = [f"{self.statuses.total()} clips: {counts}"]
        told += [f"  {count} dropped by {rule}" for rule, count in self.dropped_by.most_common()]
        told += [f"  failed: {each['id']}: {each['reason']}" for each in self.shown[FAILED][:5]]
        if self.statuses[FAILED] > 5:
            told.append(f"  and {self.statuses[FAILED] - 5} more that failed; clips.csv names all")
        return told


def scores(row: Mapping[str, Any]) -> dict[str, float]:
    """The score of each rule that decided on a clip; of two filters with the same rule the first's."""
    found: dict[str, float] = {}
    for decision in row.get("decisions", {}).values():
        if decision["score"] is not None:
            found.setdefault(decision["rule"], decision["score"])
    return found


def kind_of(note: str) -> str:
    """A note without its numbers, so that like ones count together.

    Example:
        >>> kind_of("last frame held from 2.56 s to 10.24 s")
        'last frame held from … s to … s'
    """
    return " ".join("…" if any(c.isdigit() for c in word) else word for word in note.split())


COLUMNS = ("id", "split", "status", "rule", "reason", "scores", "notes")


def report(folder: Folder, rows: Iterable[Mapping[str, Any]]) -> Summary:
    """Write all three; no file of it says when, or how fast, so that equal clips give equal bytes.

    Args:
        folder: Where to.
        rows: All clips, in order.
    """
    summary, temporary = Summary(), folder.unfinished / "clips.csv"
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for row in rows:
            summary.add(row)
            told = "; ".join(f"{rule} {score:.6f}" for rule, score in scores(row).items())
            known = [row[name] for name in COLUMNS[:-2]]
            table.writerow([*known, told, "; ".join(row.get("notes", ()))])
    temporary.replace(folder.path / "clips.csv")
    folder.write_json(folder.path / "report.json", summary.as_json())
    folder.write(folder.path / "report.html", _page(summary, folder.settings()).encode())
    return summary


def _page(summary: Summary, settings: Mapping[str, Any]) -> str:
    told = summary.as_json()
    lists = (("Left out by a rule", DROPPED), ("In quarantine", FAILED))
    return render(
        "prepared.html",
        title="Prepared clips",
        facts={"manifest": settings["manifest"]["form"], **{k: str(v) for k, v in told["clips"].items()}},
        splits=told["splits"],
        kept=settings["kept"],
        rules=told["dropped_by"],
        histograms=[_histogram(rule, bins, settings) for rule, bins in told["histograms"].items()],
        notes=told["notes"],
        lists=[(heading, summary.shown[status], summary.statuses[status]) for heading, status in lists],
        curves=None,
        details={"What they were prepared with": json.dumps(settings, indent=1, sort_keys=True)},
    )


def _histogram(rule: str, bins: list[int], settings: Mapping[str, Any]) -> Media:
    picture = histogram_png(
        bins,
        title=f"AV-Align of {sum(bins)} clips",
        label=f"score of the rule {rule}",
        threshold=threshold(settings["filters"]),
    )
    return Media(f"Scores of the rule {rule}", picture, "image/png")


def threshold(described: Any) -> float | None:
    """The threshold of the first AV-Align filter in a description, however deep."""
    if isinstance(described, Mapping):
        if str(described.get("component", "")).startswith("data_filter.av_align"):
            return described["parameters"].get("threshold")
        described = list(described.values())
    inner = described if isinstance(described, list) else ()
    return next((found for each in inner if (found := threshold(each)) is not None), None)
