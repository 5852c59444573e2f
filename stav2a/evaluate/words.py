"""What has to be said below the tables of an evaluation."""

from collections.abc import Mapping, Sequence

from stav2a.comparison.results import Comparison, Metric
from stav2a.comparison.tables.grids import shortened
from stav2a.comparison.tables.notes import notes
from stav2a.evaluate.folders import LeftOut
from stav2a.evaluate.listening import Crop
from stav2a.evaluate.scoring import REAL, Evaluated

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


def words(evaluated: Evaluated, comparisons: Mapping[Crop, Comparison]) -> dict[str, list[str]]:
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


def _too_few(metric: Metric) -> list[str]:
    needed = FEW.get(metric.name, FEW_CLIPS)
    if metric.clips >= needed:
        return []
    return [
        f"{shortened(metric.label)} rests on {metric.clips} clips. With fewer than {needed} it says little "
        "by itself: compare systems on the same clips alone, and look at the intervals."
    ]


def _lines(found: Sequence[LeftOut]) -> list[str]:
    lines = [f"{each.clip}, {each.where}: {each.reason}" for each in found[:MOST]]
    return [*lines, f"and {len(found) - MOST} more, see left_out.csv"] if len(found) > MOST else lines
