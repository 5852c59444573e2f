"""The figures and the ratings of a listening test as CSV, for a spreadsheet or a program."""

import csv
import io
import math
from collections.abc import Sequence

from stav2a.listen.analysis import Analysis
from stav2a.listen.database import Rating
from stav2a.listen.published import published

COLUMNS = (
    "system", "scale", "mean", "t_half_width", "low", "high", "ratings", "annotators", "clips", "alpha",
    "against", "difference", "difference_low", "difference_high", "paper", "paper_half_width",
)  # fmt: skip


def figures_csv(analysis: Analysis) -> str:
    """One line for a system and a scale, with all digits; what there is not is empty."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for (system, scale), figure in analysis.figures.items():
        paper, change = published(system).get(scale), figure.difference
        own = {
            "system": system,
            "scale": scale,
            "mean": figure.estimate.value,
            "t_half_width": _or_empty(figure.half),
            "low": figure.estimate.low,
            "high": figure.estimate.high,
            "ratings": analysis.n,
            "annotators": analysis.annotators,
            "clips": analysis.clips,
            "alpha": _or_empty(analysis.agreement[scale]),
        }
        if change:
            own |= {"against": analysis.systems[0], "difference": change.value}
            own |= {"difference_low": change.low, "difference_high": change.high}
        table.writerow(own | ({"paper": paper.mean, "paper_half_width": paper.half} if paper else {}))
    return text.getvalue()


def ratings_csv(ratings: Sequence[Rating]) -> str:
    """All ratings, unblinded; annotators are numbered, so that the file can be passed on."""
    numbers = {name: i for i, name in enumerate(sorted({each.annotator for each in ratings}), start=1)}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("annotator", "clip", "system", "scale", "value", "heard", "at"))
    for each in ratings:
        heard = "yes" if each.heard else "no"
        table.writerow(
            (numbers[each.annotator], each.clip, each.system, each.scale, each.value, heard, each.at)
        )
    return text.getvalue()


def _or_empty(value: float) -> float | None:
    return value if math.isfinite(value) else None
