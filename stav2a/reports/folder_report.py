"""The figures of an evaluation, written down in four forms."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stav2a.data.media import MediaError, mux, read_audio, write_wav
from stav2a.evaluation.comparison import ComparedMetric, ComparedRow, Comparison, compare
from stav2a.evaluation.folders.features import Crop
from stav2a.evaluation.folders.pairing import REFERENCE, PairedClip, SkippedClip
from stav2a.evaluation.folders.systems import PAPERS, REAL, RELEASED, FolderScores
from stav2a.evaluation.published import plain, read_published
from stav2a.evaluation.scores import to_json
from stav2a.metrics.score import Score
from stav2a.recipe.parsing import shipped_root
from stav2a.reports import tables
from stav2a.reports.comparison_page import ComparedClip, RowClip, write_comparison
from stav2a.reports.tables import MINUS, NOTHING, Column, Grid, TableCell, grids, notes, shortened
from stav2a.utils.files import write_text
from stav2a.utils.resampling import fit_audio

Rows = Mapping[str, Sequence[Score]]


def compared(comparison: Comparison) -> list[Grid]:
    """The comparison's own tables; the best of a column is the best system, for real sound is no rival."""
    figures, *differences = grids(comparison)
    systems = replace(comparison, rows=[row for row in comparison.rows if row != REAL])
    groups = [
        [_best_marked(ours, figures.names, systems.best(metric)), *theirs]
        for (ours, *theirs), metric in zip(figures.groups, comparison.metrics, strict=True)
    ]
    caption = figures.caption.replace("the best of each column is", "the best system of each column is")
    return [replace(figures, groups=groups, caption=caption), *differences]


def table_one(comparisons: Mapping[Crop, Comparison]) -> Grid:
    """Systems by crops, by metrics: a crop's rows below one another's."""
    first = {crop: compared(comparison)[0] for crop, comparison in comparisons.items()}
    tables = list(first.values())
    headings = dict.fromkeys(group[0].title for grid in tables for group in grid.groups)
    seconds = [TableCell(crop_in_figures(crop)) for crop, grid in first.items() for _ in grid.names]
    return Grid(
        title="Systems by durations by metrics",
        caption="The layout of the paper's Table I; the best system of each duration is marked.",
        names=[name for grid in first.values() for name in grid.names],
        groups=[
            [Column("seconds", seconds)],
            *(_joined(list(first.values()), titles) for titles in headings),
        ],
    )


def chance(rows: Rows) -> list[Grid]:
    """What the figures would be by chance, and what is left of them; none if no metric has a chance level.

    Args:
        rows: System -> its scores.
    """
    metrics = {score.name: score for scores in rows.values() for score in scores if score.chance is not None}
    names = [name for name in rows if any(_named(rows[name], metric) for metric in metrics)]
    if not names:
        return []
    return [
        Grid(
            title="Against chance",
            caption="By chance: each sound with what other clips have. Corrected: 0 is chance, 1 perfect.",
            names=names,
            groups=[
                [
                    Column(
                        f"{shortened(score.label)}, by chance", [_by_chance(rows[row], name) for row in names]
                    ),
                    Column("corrected ↑", [_corrected(rows[row], name) for row in names]),
                ]
                for name, score in metrics.items()
            ],
        )
    ]


def crop_in_figures(crop: Crop) -> str:
    """`4`, or `whole`."""
    return "whole" if crop is None else f"{crop:g}"


def _best_marked(column: Column, names: Sequence[str], best: str | None) -> Column:
    entries = [replace(entry, best=name == best) for name, entry in zip(names, column.entries, strict=True)]
    return replace(column, entries=entries)


def _joined(tables: Sequence[Grid], heading: str) -> list[Column]:
    """One metric's columns, of all tables: its figures, and the paper's if any table has them."""
    groups = [next((g for g in grid.groups if g[0].title == heading), ()) for grid in tables]
    titles = max((tuple(column.title for column in group) for group in groups), key=len)
    columns = []
    for place, title in enumerate(titles):
        entries: list[TableCell] = []
        for grid, group in zip(tables, groups, strict=True):
            entries += group[place].entries if place < len(group) else [TableCell(NOTHING)] * len(grid.names)
        columns.append(Column(title, entries))
    return columns


def _named(scores: Sequence[Score], metric: str) -> Score | None:
    return next((score for score in scores if score.name == metric and score.chance is not None), None)


def _by_chance(scores: Sequence[Score], metric: str) -> TableCell:
    score = _named(scores, metric)
    return TableCell(_three(score.chance if score else None))


def _corrected(scores: Sequence[Score], metric: str) -> TableCell:
    score = _named(scores, metric)
    if score is None or score.corrected is None:
        return TableCell(NOTHING)
    known = score.corrected_low is not None
    interval = f"[{_three(score.corrected_low)}, {_three(score.corrected_high)}]" if known else ""
    return TableCell(_three(score.corrected), interval)


def _three(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}".replace("-", MINUS)


MOST = 20  # lines of one kind; left_out.csv has them all
FEW = {"fd": 2048, "fad": 100, "is": 500}  # with fewer clips a figure tells little by itself
FEW_CLIPS = 30  # for all others
READING = [
    "In brackets: 95 % bootstrap intervals over clips. They don't tell how much other sounds of the same "
    "systems would differ.",
    "Differences are paired: the same clips and the same draws of them on both sides.",
    "The paper's figures stand beside those of the same system, duration and form of a metric; its clips "
    "are others.",
]


def words(evaluated: FolderScores, comparisons: Mapping[Crop, Comparison]) -> dict[str, list[str]]:
    """Heading -> sentences; headings without any are left out."""
    by_crop = {crop: notes(comparison) for crop, comparison in comparisons.items()}
    few = [
        _at(crop, line, len(by_crop))
        for crop, comparison in comparisons.items()
        for metric in comparison.metrics
        for line in _too_few(metric)
    ]

    def own(heading: str) -> list[str]:
        """A note of all crops once, and those of single crops with their crop."""
        lines = {crop: found.get(heading, []) for crop, found in by_crop.items()}
        common = [line for line in next(iter(lines.values())) if all(line in each for each in lines.values())]
        return common + [
            _at(crop, line, len(by_crop))
            for crop, each in lines.items()
            for line in each
            if line not in common
        ]

    listed = {
        "How to read them": READING,
        "What was measured": own("What was measured"),
        "Too few clips": few,
        "Left out": [*_lines(evaluated.left_out), *own("Left out")],
        "Noticed": _lines(evaluated.noticed),
        "Missing": [line for line in own("Missing") if not line.startswith(f"{REAL}, ")],
    }
    return {heading: lines for heading, lines in listed.items() if lines}


def crop_in_words(crop: Crop) -> str:
    """`whole`, or `first 4 s`."""
    return "whole" if crop is None else f"first {crop:g} s"


def _at(crop: Crop, line: str, crops: int) -> str:
    return f"{crop_in_words(crop)}: {line}" if crops > 1 else line


def _too_few(metric: ComparedMetric) -> list[str]:
    needed = FEW.get(metric.name, FEW_CLIPS)
    if metric.clips >= needed:
        return []
    return [
        f"{shortened(metric.label)} rests on {metric.clips} clips. With fewer than {needed} it says little "
        "by itself: compare systems on the same clips alone, and look at the intervals."
    ]


def _lines(found: Sequence[SkippedClip]) -> list[str]:
    lines = [f"{each.clip}, {each.where}: {each.reason}" for each in found[:MOST]]
    return [*lines, f"and {len(found) - MOST} more, see left_out.csv"] if len(found) > MOST else lines


FILE = "table1_paper.csv"
SOURCE = "Table I of the paper, arXiv:2409.08601v2"
HEADINGS = ("FD ↓", "FAD ↓", "KL ↓", "IS ↑", "PAM ↑", "CLAP ↑", "AV-Align ↑", "AA-Align ↑")
ROUNDED_S = 0.3  # how far a crop may be from the paper's


def published(
    rows: Sequence[str], named: Mapping[str, str], duration_s: float
) -> dict[str, dict[str, float]]:
    """The paper's figures of these rows, where it has the same system at the same duration.

    Names are the same if their letters and digits are: `sta_v2a` is `STA-V2A`.

    Args:
        rows: Systems, and `real sound`.
        named: The name a metric was chosen by -> the name of its score. The paper's columns stand beside the
            released form where there is one.
        duration_s: Of the sounds.
    """
    beside = {
        named[choice]: column
        for column in PAPERS
        for choice in (f"{column}{RELEASED}", column)
        if choice in named and not (choice == column and column in TWO_FORMS)
    }
    found = {}
    for row in rows:
        figures = _of(row, duration_s)
        shown = {score: figures[column] for score, column in beside.items() if column in figures}
        if shown:
            found[row] = shown
    return found


TWO_FORMS = ("kl", "pam", "clap", "av_align", "aa_align")  # by default measured otherwise than in the paper


def paper_table_one() -> Grid:
    """The paper's Table I as it stands there."""
    figures = _read()
    seconds = Column("seconds", [TableCell(f"{of['duration_s']:g}") for of in figures.values()])
    columns = [
        Column(heading, [_entry(of.get(name), 3 if name in PAPERS[4:] else 2) for of in figures.values()])
        for name, heading in zip(PAPERS, HEADINGS, strict=True)
    ]
    return Grid(
        title="The paper's figures",
        caption=f"{SOURCE}: other clips (VGGSound's test set), the authors' weights.",
        names=[re.sub(r" \(\d+ s\)$", "", row) for row in figures],
        groups=[[seconds], *([column] for column in columns)],
    )


def _entry(value: float | None, decimals: int) -> TableCell:
    return TableCell(NOTHING if value is None else f"{value:.{decimals}f}")


def _of(row: str, duration_s: float) -> dict[str, float]:
    wanted = plain("GT" if row == REAL else row)
    for name, figures in _read().items():
        same = plain(re.sub(r" \(\d+ s\)$", "", name)) == wanted
        if same and abs(figures["duration_s"] - duration_s) <= ROUNDED_S:
            return figures
    return {}


def _read() -> dict[str, dict[str, float]]:
    return read_published(shipped_root("ablations") / FILE, rows=["GT"], metrics=list(PAPERS))


COLUMNS = (
    "crop_s", "row", "metric", "value", "low", "high", "n", "chance", "corrected", "corrected_low",
    "corrected_high", "baseline", "difference", "difference_low", "difference_high", "paper", "definition",
)  # fmt: skip
FIGURES = ("low", "high", "chance", "corrected", "corrected_low", "corrected_high")


@dataclass(frozen=True)
class EvaluationTables:
    """An evaluation, ready to be written down.

    Args:
        evaluated: The figures.
        comparisons: Crop -> its systems compared.
    """

    evaluated: FolderScores
    comparisons: Mapping[Crop, Comparison]

    def grids(self) -> list[Grid]:
        """Table I's layout if there are several crops, each crop's own tables, and the paper's figures."""
        if len(self.comparisons) == 1:
            ((crop, comparison),) = self.comparisons.items()
            figures, *differences = compared(comparison)
            return [figures, *chance(self.evaluated.scores[crop]), *differences, paper_table_one()]
        found = [table_one(self.comparisons)]
        for crop, comparison in self.comparisons.items():
            own = [*chance(self.evaluated.scores[crop]), *compared(comparison)[1:]]
            found += [replace(grid, title=f"{grid.title}, {crop_in_words(crop)}") for grid in own]
        return [*found, paper_table_one()]

    def words(self) -> dict[str, list[str]]:
        """What has to be said below them."""
        return words(self.evaluated, self.comparisons)

    def text(self, width: int = 110) -> str:
        """For a terminal."""
        return tables.document(self.grids(), [], self.words(), width)

    def markdown(self) -> str:
        """For GitHub."""
        return tables.markdown_tables_document(self.grids(), [], self.words())

    def latex(self) -> str:
        """For a paper."""
        return tables.latex_tables_document(self.grids())

    def csv(self) -> str:
        """One line for a crop, a row and a metric; what there is not is empty."""
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(self._lines())
        return text.getvalue()

    def _lines(self) -> Iterator[dict[str, Any]]:
        for crop, comparison in self.comparisons.items():
            for row, scores in self.evaluated.scores[crop].items():
                for score in scores:
                    place = {"crop_s": crop_in_figures(crop), "row": row, "metric": score.name}
                    yield place | _figures(score) | _compared(row, score.name, comparison)


def tabulate(evaluated: FolderScores, named: Mapping[str, str], *, baseline: str) -> EvaluationTables:
    """Compare the systems of each crop, on the same clips and the same draws of them.

    Args:
        evaluated: The figures.
        named: The name a metric was chosen by -> the name of its score.
        baseline: The system that others are compared with.
    """
    return EvaluationTables(
        evaluated,
        {
            crop: compare(
                [ComparedRow(name, {0: scores}) for name, scores in rows.items()],
                metrics=_directions(rows),
                baseline=baseline,
                published=published(list(rows), named, crop or evaluated.common_s),
            )
            for crop, rows in evaluated.scores.items()
        },
    )


def _directions(rows: Mapping[str, Sequence[Score]]) -> dict[str, str]:
    return {
        score.name: "higher" if score.higher_is_better else "lower"
        for scores in rows.values()
        for score in scores
    }


def _figures(score: Score) -> dict[str, Any]:
    if score.unavailable is not None:
        return {"definition": f"not measured: {score.unavailable}"}
    own = {name: getattr(score, name) for name in FIGURES}
    return {"value": score.value, "n": score.n, "definition": score.definition, **own}


def _compared(row: str, name: str, comparison: Comparison) -> dict[str, Any]:
    metric = next((metric for metric in comparison.metrics if metric.name == name), None)
    found = comparison.difference(row, metric, "to_baseline") if metric else None
    beside = {"paper": comparison.published.get(row, {}).get(name), "baseline": comparison.baseline}
    if found is None:
        return beside
    own = found.estimate
    return {"difference": own.value, "difference_low": own.low, "difference_high": own.high, **beside}


PAGE, CLIPS = "report.html", "clips"
SHOWN = 6
RATE = 44_100


def write_page(folder: Path, tables: EvaluationTables, clips: Sequence[PairedClip]) -> Path:
    """Write the page and the sounds that it plays, all of them inside it.

    Plots and figures of single clips are of the last crop; sounds are played whole.

    Args:
        folder: It exists.
        tables: The figures.
        clips: Where the sounds are.
    """
    crop, comparison = list(tables.comparisons.items())[-1]
    ids = tables.evaluated.ids[crop]
    chosen = {ids[round(place)] for place in np.linspace(0, len(ids) - 1, min(SHOWN, len(ids)))}
    scores = tables.evaluated.scores[crop]
    return write_comparison(
        folder / PAGE,
        comparison,
        title="Evaluation",
        facts={
            "systems": ", ".join(row for row in comparison.rows[1:]),
            "clips": str(len(ids)),
            "seconds": ", ".join(f"{each:g}" if each else "whole" for each in tables.comparisons),
        },
        clips=list(_shown([clip for clip in clips if clip.id in chosen], scores, folder / CLIPS)),
        tables=tables.grids(),
        words=tables.words(),
    )


def _shown(
    clips: Sequence[PairedClip], scores: Mapping[str, Sequence[Score]], folder: Path
) -> Iterator[ComparedClip]:
    folder.mkdir(exist_ok=True)
    for clip in clips:
        sounds = {side: read_audio(file, RATE) for side, file in clip.files.items()}
        samples = min(map(len, sounds.values()))
        for side, sound in sounds.items():
            write_wav(folder / f"{clip.id}.{side}.wav", fit_audio(sound, samples), RATE)
        yield ComparedClip(
            id=clip.id,
            caption=clip.caption or "",
            tags=(),
            onsets_s=(),
            duration_s=samples / RATE,
            reference=folder / f"{clip.id}.{REFERENCE}.wav",
            rows={
                side: RowClip(
                    _film(clip, side, sounds[side][:samples], folder),
                    folder / f"{clip.id}.{side}.wav",
                    _facts(clip.id, scores[side]),
                )
                for side in sounds
                if side != REFERENCE
            },
        )


def _film(clip: PairedClip, side: str, sound: np.ndarray, folder: Path) -> Path:
    """The clip's film with a system's sound; the sound alone where there is no film that players show."""
    film = folder / f"{clip.id}.{side}.mp4"
    try:
        if clip.video is not None:
            mux(clip.video, sound, RATE, film)
            return film
    except MediaError:
        pass
    return folder / f"{clip.id}.{side}.wav"


def _facts(clip: str, scores: Sequence[Score]) -> dict[str, str]:
    return {
        score.label: f"{score.per_clip[clip]:.2f}"
        for score in scores
        if score.per_clip and clip in score.per_clip
    }


LEFT_OUT, SCORES = "left_out.csv", "scores.json"


def write(folder: Path, tables: EvaluationTables) -> list[Path]:
    """Write all but the page, each file whole or not at all.

    Args:
        folder: It exists.
        tables: The figures.

    Returns:
        The files.
    """
    evaluated = tables.evaluated
    texts = {
        "table.txt": tables.text(),
        "table.md": tables.markdown(),
        "table.csv": tables.csv(),
        "table.tex": tables.latex(),
        SCORES: _scores(tables),
        LEFT_OUT: _left_out(
            [("left out", each) for each in evaluated.left_out]
            + [("noticed", each) for each in evaluated.noticed]
        ),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def _scores(tables: EvaluationTables) -> str:
    """Every score whole, by crop and row."""
    whole = {
        crop_in_figures(crop): {row: json.loads(to_json(scores)) for row, scores in rows.items()}
        for crop, rows in tables.evaluated.scores.items()
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _left_out(found: Sequence[tuple[str, SkippedClip]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("kind", "clip", "where", "reason"))
    table.writerows((kind, each.clip, each.where, each.reason) for kind, each in found)
    return text.getvalue()
