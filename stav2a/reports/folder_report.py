"""Report of an evaluation of folders: tables in four forms, scores, clips left out, and a page."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from stav2a.data.media import MediaError, mux, read_audio, write_wav
from stav2a.data.onsets import Librosa
from stav2a.evaluation.comparison import DIRECTIONS, Comparison, compare
from stav2a.evaluation.folders.features import Crop
from stav2a.evaluation.folders.pairing import REFERENCE, PairedClip, SkippedClip
from stav2a.evaluation.folders.systems import PAPERS, REAL, ChosenMetric, FolderScores
from stav2a.evaluation.published import plain, read_rows
from stav2a.evaluation.scores import to_json
from stav2a.metrics.score import Score
from stav2a.reports.comparison_tables import (
    BEST,
    Note,
    comparison_notes,
    difference_tables,
    figures_table,
    listed,
)
from stav2a.reports.pages import ComparedClip, RowClip, clip_facts, write_page
from stav2a.reports.tables import Cell, Document, NumberFormat, Table, csv_of
from stav2a.utils.files import write_text
from stav2a.utils.resampling import fit_audio
from stav2a.utils.shipped import shipped_root

FILES = ("table.txt", "table.md", "table.csv", "table.tex", "scores.json", "left_out.csv")
PAGE = "report.html"
PAPERS_TABLE = "table1_paper.csv"
SOURCE = "Table I of the paper, arXiv:2409.08601v2"
ROUNDED_S = 0.3  # largest difference of a crop from the paper's duration
MOST = 20  # clips named in notes; left_out.csv has them all
SHOWN = 6  # clips on the page
RATE = 44_100
FIGURES = (
    "value", "low", "high", "n", "chance", "corrected", "corrected_low", "corrected_high", "draws", "seed",
)  # fmt: skip
COLUMNS = (
    "crop_s", "row", "metric", "value", "low", "high", "n", "chance", "corrected", "corrected_low",
    "corrected_high", "baseline", "difference", "difference_low", "difference_high", "paper", "definition",
    "draws", "seed",
)  # fmt: skip


class FolderReport:
    """An evaluation, ready to be written: the systems of each crop compared, on the same draws of its clips.

    Args:
        evaluated: The figures.
        metrics: The metrics that were chosen.
        baseline: The system that others are compared with.
    """

    def __init__(self, evaluated: FolderScores, metrics: Sequence[ChosenMetric], *, baseline: str) -> None:
        self.evaluated = evaluated
        self.comparisons: dict[Crop, Comparison] = {
            crop: compare(
                {row: {0: scores} for row, scores in rows.items()},
                metrics={s.name: DIRECTIONS[s.higher_is_better] for scores in rows.values() for s in scores},
                baseline=baseline,
                published=published(list(rows), metrics, crop or evaluated.common_s),
                contenders=[row for row in rows if row != REAL],
            )
            for crop, rows in evaluated.scores.items()
        }

    def document(self) -> Document:
        """Table I's layout if there are several crops, each crop's own tables, and the paper's figures."""
        tables, notes = [_figures_table(self.comparisons)], {}
        for crop, comparison in self.comparisons.items():
            name = "whole" if crop is None else f"first {crop:g} s"
            for table in (_chance_table(self.evaluated.scores[crop]), *difference_tables(comparison)):
                title = f"{table.title}, {name}" if len(self.comparisons) > 1 else table.title
                tables.append(replace(table, title=title))
            notes[name] = [
                Note("systems"),
                Note("paired", {"what": "clips"}),
                Note("published"),
                *_named("skipped", self.evaluated.skipped),
                *_named("noticed", self.evaluated.warnings),
                *(  # metrics that compare with the real sound have no figure of it
                    each
                    for each in comparison_notes(comparison)
                    if not (each.kind == "lacking" and each.values["row"] == REAL)
                ),
            ]
        return Document([*(each for each in tables if not each.cells.empty), papers_table()], listed(notes))

    def csv(self) -> str:
        """One line for a crop, a row and a metric; missing figures are empty."""
        records = []
        for crop, comparison in self.comparisons.items():
            for row, scores in self.evaluated.scores[crop].items():
                for score in scores:
                    record: dict[str, object] = {
                        "crop_s": crop_in_figures(crop),
                        "row": row,
                        "metric": score.name,
                        "baseline": comparison.baseline,
                        "paper": comparison.published.get(row, {}).get(score.name),
                        "definition": f"not measured: {score.unavailable}",
                    }
                    if score.unavailable is None:
                        record |= {name: getattr(score, name) for name in FIGURES}
                        record["definition"] = score.described
                    if change := comparison.to_baseline.get((row, score.name)):
                        names = "difference", "difference_low", "difference_high"
                        record |= zip(names, (change.value, change.low, change.high), strict=True)
                    records.append(record)
        return csv_of(records, COLUMNS)

    def write(self, folder: Path, clips: Sequence[PairedClip]) -> list[Path]:
        """Write all files, each whole or not at all.

        Args:
            folder: It exists.
            clips: Files of the sounds.
        """
        document = self.document()
        scores = {
            crop_in_figures(crop): {row: json.loads(to_json(scores)) for row, scores in rows.items()}
            for crop, rows in self.evaluated.scores.items()
        }
        remarks = [
            *({"kind": "left out", **vars(each)} for each in self.evaluated.skipped),
            *({"kind": "noticed", **vars(each)} for each in self.evaluated.warnings),
        ]
        texts = (
            document.text(),
            document.markdown(),
            self.csv(),
            document.latex(),
            json.dumps(scores, indent=1, ensure_ascii=False) + "\n",
            csv_of(remarks, ("kind", "clip", "where", "reason")),
        )
        for name, text in zip(FILES, texts, strict=True):
            write_text(folder / name, text)
        page = self._write_page(folder, document, clips)
        return [*(folder / name for name in FILES), page]

    def _write_page(self, folder: Path, document: Document, clips: Sequence[PairedClip]) -> Path:
        """The page, and the sounds that it plays, all of them inside it.

        Plots and figures of single clips are of the last crop; sounds are played whole.
        """
        crop, comparison = list(self.comparisons.items())[-1]
        ids = self.evaluated.ids[crop]
        chosen = {ids[round(place)] for place in np.linspace(0, len(ids) - 1, min(SHOWN, len(ids)))}
        (folder / "clips").mkdir(exist_ok=True)
        return write_page(
            folder / PAGE,
            document,
            title="Evaluation",
            comparison=comparison,
            detector=Librosa(),
            facts={
                "date": f"{datetime.now():%Y-%m-%d %H:%M}",
                "systems": ", ".join(row for row in comparison.rows[1:]),
                "clips": str(len(ids)),
                "seconds": ", ".join(map(crop_in_figures, self.comparisons)),
            },
            clips=[
                _shown(clip, self.evaluated.scores[crop], folder / "clips")
                for clip in clips
                if clip.id in chosen
            ],
        )


def published(
    rows: Sequence[str], metrics: Sequence[ChosenMetric], duration_s: float
) -> dict[str, dict[str, float]]:
    """The paper's figures of these rows, where it has the same system at the same duration.

    Names are the same if their letters and digits are: `sta_v2a` is `STA-V2A`.

    Args:
        rows: Systems, and `real sound`.
        metrics: The metrics that were chosen; the paper's figures stand beside those in its form.
        duration_s: Duration of the sounds.
    """
    columns = {
        each.metric.reporter.name: each.name for each in metrics if each.as_published and each.name in PAPERS
    }
    found = {
        row: {score: figures[column] for score, column in columns.items() if column in figures}
        for row in rows
        for name, figures in _papers_rows()
        if plain(name) == plain("GT" if row == REAL else row)
        and abs(figures["duration_s"] - duration_s) <= ROUNDED_S
    }
    return {row: figures for row, figures in found.items() if figures}


def _papers_rows() -> list[tuple[str, dict[str, float]]]:
    return read_rows(shipped_root("ablations") / PAPERS_TABLE, list(PAPERS))


def papers_table() -> Table:
    """The paper's Table I."""
    rows = _papers_rows()
    columns = {("duration_s", "seconds"): [Cell(f"{figures['duration_s']:g}") for _, figures in rows]}
    for name, heading in PAPERS.items():
        numbers = NumberFormat.as_given(figures[name] for _, figures in rows if name in figures)
        columns[name, heading] = [numbers.cell(figures.get(name)) for _, figures in rows]
    caption = f"{SOURCE}: other clips (VGGSound's test set), the authors' weights."
    return Table.of("The paper's figures", caption, [row for row, _ in rows], columns)


def _figures_table(comparisons: Mapping[Crop, Comparison]) -> Table:
    """Systems by metrics; of several crops, their rows below one another."""
    tables = {crop: figures_table(comparison) for crop, comparison in comparisons.items()}
    if len(tables) == 1:
        return tables.popitem()[1]
    for crop, table in tables.items():
        seconds = [Cell(crop_in_figures(crop))] * len(table.cells)
        table.cells.insert(0, ("crop_s", "seconds"), seconds)
    cells = pd.concat([table.cells for table in tables.values()])
    groups = list(dict.fromkeys(cells.columns.get_level_values(0)))  # a paper's column beside its metric's
    return Table(
        "Systems by durations by metrics",
        f"The layout of the paper's Table I. {BEST}",
        cells[groups].map(lambda cell: cell if isinstance(cell, Cell) else Cell()),
    )


def _chance_table(rows: Mapping[str, Sequence[Score]]) -> Table:
    """Levels by chance, and the figures corrected for them."""
    known = {row: {s.name: s for s in scores if s.chance is not None} for row, scores in rows.items()}
    known = {row: scores for row, scores in known.items() if scores}
    columns = {}
    for name, label in {s.name: s.label for scores in known.values() for s in scores.values()}.items():
        found, numbers = [scores.get(name) for scores in known.values()], NumberFormat()
        columns[name, f"{label}, by chance"] = [numbers.cell(s.chance) if s else Cell() for s in found]
        columns[name, "corrected ↑"] = [
            numbers.cell(s.corrected, s.corrected_low, s.corrected_high) if s else Cell() for s in found
        ]
    caption = "By chance: each sound with what other clips have. Corrected: 0 is chance, 1 perfect."
    return Table.of("Against chance", caption, list(known), columns)


def _named(kind: str, clips: Sequence[SkippedClip]) -> Iterator[Note]:
    for clip in clips[:MOST]:
        yield Note(f"{kind}_clip", vars(clip))
    if len(clips) > MOST:
        yield Note(f"{kind}_more", {"count": len(clips) - MOST})


def crop_in_figures(crop: Crop) -> str:
    """A crop in tables: `4`, or `whole`."""
    return "whole" if crop is None else f"{crop:g}"


def _shown(clip: PairedClip, scores: Mapping[str, Sequence[Score]], folder: Path) -> ComparedClip:
    """A clip of the page; its sounds are written into the folder."""
    sounds = {side: read_audio(file, RATE) for side, file in clip.files.items()}
    samples = min(map(len, sounds.values()))
    rows = {}
    for side, sound in sounds.items():
        wav, film = (folder / f"{clip.id}.{side}.{kind}" for kind in ("wav", "mp4"))
        write_wav(wav, fit_audio(sound, samples), RATE)
        if side == REFERENCE:
            continue
        shown = wav
        if clip.video is not None:
            with contextlib.suppress(MediaError):  # a film that players don't show
                mux(clip.video, sound[:samples], RATE, film, reencode=True)
                shown = film
        rows[side] = RowClip(shown, wav, clip_facts(clip.id, scores[side]))
    return ComparedClip(
        id=clip.id,
        caption=clip.caption or "",
        tags=(),
        onsets_s=(),
        duration_s=samples / RATE,
        reference=folder / f"{clip.id}.{REFERENCE}.wav",
        rows=rows,
    )
