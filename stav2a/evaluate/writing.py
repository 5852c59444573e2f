"""An evaluation in its folder: tables, scores, what was left out."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from stav2a.evaluate.folders import LeftOut
from stav2a.evaluate.grids import crop_in_figures
from stav2a.evaluate.tables import Tables
from stav2a.evaluation import to_json
from stav2a.store import write_text

LEFT_OUT, SCORES = "left_out.csv", "scores.json"


def write(folder: Path, tables: Tables) -> list[Path]:
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


def _scores(tables: Tables) -> str:
    """Every score whole, by crop and row."""
    whole = {
        crop_in_figures(crop): {row: json.loads(to_json(scores)) for row, scores in rows.items()}
        for crop, rows in tables.evaluated.scores.items()
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _left_out(found: Sequence[tuple[str, LeftOut]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("kind", "clip", "where", "reason"))
    table.writerows((kind, each.clip, each.where, each.reason) for kind, each in found)
    return text.getvalue()
