"""The report on a prepared folder: report.html to look at, report.json to compute with, clips.csv by clip."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stav2a.data.media import ClipNote, MediaError, mux, read_audio
from stav2a.data.mel import log_mels
from stav2a.data.prepared.shards import DROPPED, FAILED, KEPT
from stav2a.preparation.dataset_folder import DatasetFolder
from stav2a.reports.html import Media, render
from stav2a.reports.pages import ComparedClip
from stav2a.reports.plots import histogram_png, strip_png

LARGEST_FILM = 8 << 20  # bytes of a film inside the page
AV_ALIGN = "av_align"  # the rule, and the name of its filter
BINS = 50  # of the histogram of AV-Align from 0 to 1; scores beyond count in the last bin
PLAYED = 4  # kept clips on the page, and as many dropped ones
RATE = 44_100
SHOWN = 200  # dropped and failed clips on the page; all are in clips.csv
COLUMNS = ("id", "split", "status", "rule", "reason", "scores", "notes")


class DatasetSummary:
    """Counts, the histogram of AV-Align, and the first of the clips that are not kept."""

    def __init__(self) -> None:
        self.statuses = dict.fromkeys((KEPT, DROPPED, FAILED), 0)
        self.splits: dict[str, dict[str, int]] = {}  # split -> status -> clips
        self.dropped_by: Counter[str] = Counter()  # rule -> clips
        self.notes: Counter[str] = Counter()  # kind -> notes
        self.bins = [0] * BINS  # clips by their AV-Align score
        self.shown: dict[str, list[Mapping[str, Any]]] = {DROPPED: [], FAILED: []}
        self.played: dict[str, list[Mapping[str, Any]]] = {KEPT: [], DROPPED: []}

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one clip."""
        status = row["status"]
        self.statuses[status] += 1
        self.splits.setdefault(row["split"], dict.fromkeys(self.statuses, 0))[status] += 1
        self.notes.update(note["kind"] for note in row.get("notes", ()))
        if (score := scores_by_rule(row).get(AV_ALIGN)) is not None:
            self.bins[min(max(int(score * BINS), 0), BINS - 1)] += 1
        if status == DROPPED:
            self.dropped_by[row["rule"]] += 1
        if len(self.played.get(status, range(PLAYED))) < PLAYED:
            self.played[status].append(row)
        if status != KEPT and len(self.shown[status]) < SHOWN:
            self.shown[status].append(row)

    def to_play(self) -> list[Mapping[str, Any]]:
        """Rows of the clips that the page plays: the first kept ones, then the first dropped ones."""
        return [row for rows in self.played.values() for row in rows]

    def as_json(self) -> dict[str, Any]:
        """The content of report.json."""
        return {
            "clips": self.statuses,
            "splits": self.splits,
            "dropped_by": self.dropped_by,
            "notes": self.notes,
            "histograms": {AV_ALIGN: self.bins} if any(self.bins) else {},
        }

    def lines(self) -> list[str]:
        """The command's answer."""
        counts = ", ".join(f"{count} {status}" for status, count in self.statuses.items())
        lines = [f"{sum(self.statuses.values())} clips: {counts}"]
        lines += [f"  {count} dropped by {rule}" for rule, count in self.dropped_by.most_common()]
        lines += [f"  failed: {row['id']}: {row['reason']}" for row in self.shown[FAILED][:5]]
        if self.statuses[FAILED] > 5:
            lines.append(f"  and {self.statuses[FAILED] - 5} more that failed; clips.csv names all")
        return lines


def scores_by_rule(row: Mapping[str, Any]) -> dict[str, float]:
    """The score of each rule that decided on a clip; of two filters with the same rule the first's."""
    scores: dict[str, float] = {}
    for decision in row.get("decisions", {}).values():
        if decision["score"] is not None:
            scores.setdefault(decision["rule"], decision["score"])
    return scores


def write_report(folder: DatasetFolder, rows: Iterable[Mapping[str, Any]]) -> DatasetSummary:
    """Write all three files of the rows of the index, without time or speed: equal clips give equal bytes."""
    summary, temporary = DatasetSummary(), folder.unfinished / "clips.csv"
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for row in rows:
            summary.add(row)
            scores = "; ".join(f"{rule} {score:.6f}" for rule, score in scores_by_rule(row).items())
            notes = "; ".join(str(ClipNote(**note)) for note in row.get("notes", ()))
            table.writerow([*(row[name] for name in COLUMNS[:-2]), scores, notes])
    temporary.replace(folder.path / "clips.csv")
    folder.write_json(folder.path / "report.json", summary.as_json())

    settings, histograms = folder.settings(), []
    if any(summary.bins):
        title, label = f"AV-Align of {sum(summary.bins)} clips", f"score of the rule {AV_ALIGN}"
        threshold = _threshold(settings["filters"])
        picture = histogram_png(summary.bins, title=title, label=label, threshold=threshold)
        histograms.append(Media(f"Scores of the rule {AV_ALIGN}", picture, "image/png"))
    page = render(
        "prepared.html",
        title="Prepared clips",
        facts={"manifest": settings["manifest"]["form"]}
        | {status: str(count) for status, count in summary.statuses.items()},
        clips=list(filter(None, (_played(row, folder, settings["videos"]) for row in summary.to_play()))),
        splits=dict(sorted(summary.splits.items())),
        kept=settings["kept"],
        rules=dict(sorted(summary.dropped_by.items())),
        histograms=histograms,
        notes=dict(sorted(summary.notes.items())),
        lists=[
            ("Left out by a rule", summary.shown[DROPPED], summary.statuses[DROPPED]),
            ("In quarantine", summary.shown[FAILED], summary.statuses[FAILED]),
        ],
        curves=None,
        details={"What they were prepared with": json.dumps(settings, indent=1, sort_keys=True)},
    )
    folder.write(folder.path / "report.html", page.encode())
    return summary


def _played(
    row: Mapping[str, Any], folder: DatasetFolder, videos: str
) -> tuple[ComparedClip, list[tuple[Media, Media, Mapping[str, str]]]] | None:
    """A clip as film and sound, with the onsets that were found; None where its file is missing or large."""
    film, wav = (folder.unfinished / f"{row['position']}.{kind}" for kind in ("mp4", "wav"))
    try:
        sound = read_audio(Path(videos) / row["file"], RATE)
        mux(Path(videos) / row["file"], sound, RATE, film, reencode=True)
    except (MediaError, OSError):
        return None
    if film.stat().st_size > LARGEST_FILM:
        return None
    duration_s = len(sound) / RATE
    mel = log_mels(sound[None], RATE)[0, 0].numpy()
    picture = strip_png(mel, duration_s, detected_s=[at for at in row["onsets_s"] if at < duration_s])
    scores = {rule: f"{score:.2f}" for rule, score in scores_by_rule(row).items()}
    tags = [tag for tag in (row["status"], row["split"], row["label"], row["reason"]) if tag]
    clip = ComparedClip(row["id"], row["caption"] or "", tags, (), duration_s, wav, {})
    media = Media("clip", film.read_bytes(), "video/mp4"), Media("spectrogram", picture, "image/png")
    return clip, [(*media, scores)]


def _threshold(described: Any) -> float | None:
    """The threshold of the first AV-Align filter in a description, however deep."""
    if isinstance(described, Mapping):
        if described.get("component") == f"data_filter.{AV_ALIGN}":
            return described["parameters"].get("threshold")
        described = list(described.values())
    inner = described if isinstance(described, list) else ()
    return next((found for each in inner if (found := _threshold(each)) is not None), None)
