"""The report: report.html to look at, report.json to compute with, clips.csv with a line a clip."""

import csv
import json
from collections.abc import Iterable, Mapping
from typing import Any

from stav2a.data.cache.layout import DROPPED, FAILED
from stav2a.plots import histogram_png
from stav2a.prepare.folder import Folder
from stav2a.prepare.summary import Summary, scores
from stav2a.report import Media, render

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
