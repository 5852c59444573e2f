"""A study's comparison written down: tables in four forms and a page, from the tracking store alone."""

from collections.abc import Mapping
from typing import Any

from stav2a.ablation.describing import counted
from stav2a.ablation.estimate import duration
from stav2a.ablation.folder import StudyFolder
from stav2a.ablation.records import Records
from stav2a.comparison import Comparison, tables
from stav2a.comparison.page import ComparedClip, RowClip, write_comparison
from stav2a.store import write_text
from stav2a.tracking import Kept, TrackingStore


def report(store: TrackingStore, parent: Kept, folder: StudyFolder) -> str:
    """Compare a study's runs and write what came of it.

    Args:
        store: Holds the runs.
        parent: The study's own run.
        folder: Where to.

    Returns:
        The table, and where the files are.
    """
    records = Records(store, parent)
    compared = records.compared()
    head = facts(records)
    write_text(folder.table("md"), f"{_headed(records.study['name'], head)}\n{tables.markdown(compared)}")
    write_text(folder.table("csv"), tables.csv(compared))
    write_text(folder.table("tex"), tables.latex(compared))
    _write_page(records, compared, folder, head)
    endings = ", ".join(f".{ending}" for ending in ("csv", "tex"))
    places = {"report": folder.page, "tables": f"{folder.table('md')}, {endings}"}
    return "\n".join([tables.text(compared), *(f"{name:11}{place}" for name, place in places.items())])


def facts(records: Records) -> dict[str, str]:
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
        "date": study["goes"][-1]["began"] if study["goes"] else "",
        "versions": ", ".join(f"{name} {value}" for name, value in named.items()),
    }
    return {name: value for name, value in told.items() if value}


def _took(study: Mapping[str, Any]) -> str:
    """Wall time of all goes that came to their end, and of how many runs; the others are not in it."""
    goes = study["goes"]
    started = sum(go["runs"] for go in goes)
    if not started:
        return ""
    parts = [
        duration(sum(go["seconds"] for go in goes)),
        f"for {counted(started, 'run')}, {goes[-1]['jobs']} at a time",
    ]
    if len(goes) > 1:
        parts.append(f"in {len(goes)} goes")
    if started < len(study["runs"]):
        parts.append("(the others were there, or were made in a go that was stopped)")
    return " ".join(parts)


def _headed(name: str, told: Mapping[str, str]) -> str:
    rows = [f"| {key} | {f'`{value}`' if key == 'command' else value} |" for key, value in told.items()]
    note = f"Written by the command below; made again by `stav2a ablation --report {name}`. Don't edit it."
    return "\n".join([f"# {name}", "", note, "", "| | |", "|---|---|", *rows, ""])


def _write_page(records: Records, compared: Comparison, folder: StudyFolder, told: Mapping[str, str]) -> None:
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


def _clips(records: Records) -> list[ComparedClip]:
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


def _own_scores(records: Records, row: str, seed: int, clip: str) -> dict[str, str]:
    """What each metric of the study says of one clip of one row."""
    return {
        score.label: f"{score.per_clip[clip]:.2f}"
        for score in records.scores[row, seed]
        if score.name in dict(records.study["metrics"]) and score.per_clip and clip in score.per_clip
    }
