"""Scores and rows made by hand: what the tests of this folder start from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stav2a.evaluation.comparison import Comparison, compare
from stav2a.metrics.score import Score

PAPER = {
    "Pretrained-T2A": {"aa": 0.498, "fd": 27.25},
    "CN": {"aa": 0.669, "fd": 19.58},
    "CN+Onset": {"aa": 0.692, "fd": 20.02},
    "GT": {"aa": 1.0},
}


def mean(values: Mapping[str, float] | Sequence[float], **changes: Any) -> Score:
    """A score that is a mean over clips, named clip0, clip1, … unless they have names."""
    clips = values if isinstance(values, Mapping) else {f"clip{i}": float(v) for i, v in enumerate(values)}
    known: dict[str, Any] = {
        "name": "aa",
        "label": "AA-Align",
        "definition": "hits",
        "higher_is_better": True,
        "value": float(np.mean(list(clips.values()))),
        "n": len(clips),
        "per_clip": clips,
    }
    return Score(**{**known, **changes})


def whole(value: float, replicates: Sequence[float] | None, **changes: Any) -> Score:
    """A score of the whole set."""
    known: dict[str, Any] = {
        "name": "fd",
        "label": "FD",
        "definition": "distance",
        "judge": "toy classifier",
        "higher_is_better": False,
        "value": value,
        "n": 9,
        "replicates": replicates,
    }
    return Score(**{**known, **changes})


def absent(name: str, reason: str) -> Score:
    """A score without a figure."""
    return Score(name=name, label=name.upper(), definition="", higher_is_better=True, unavailable=reason)


def row(*values: Sequence[float], **changes: Any) -> dict[int, list[Score]]:
    """A row with one mean a seed."""
    return {seed: [mean(clips, **changes)] for seed, clips in enumerate(values)}


def study(seeds: int = 3, clips: int = 40) -> dict[str, dict[int, list[Score]]]:
    """Rows as an experiment gives them: some clips are hard for all, trainings differ, one row failed."""
    rng = np.random.default_rng(0)
    hard, shared = rng.normal(0, 0.2, clips), rng.normal(size=300)
    rows = {}
    for name, level, distance in (("Pretrained-T2A", 0.2, 45.0), ("CN", 0.6, 27.0), ("CN+Onset", 0.65, 27.5)):
        scores = {}
        for seed in range(seeds):
            values = level + rng.normal(0, 0.01) + hard + rng.normal(0, 0.05, clips)
            drawn = distance + 2 * shared + rng.normal(0, 0.3, 300)
            scores[seed] = [
                mean(values, chance=0.15 + 0.01 * seed, extras={"onsets a real clip": 3.2}),
                whole(distance + rng.normal(0, 0.2), drawn.tolist()),
                absent("clap", "no checkpoint"),
            ]
        rows[name] = scores
    return rows | {"CN Frozen": {}}


def compared(**changes: Any) -> Comparison:
    """The study compared."""
    known: dict[str, Any] = {
        "metrics": METRICS,
        "baseline": "CN",
        "builds_on": {"CN": "Pretrained-T2A", "CN+Onset": "CN", "CN Frozen": "CN"},
        "missing": {"CN Frozen": dict.fromkeys(range(3), "exit code 1")},
    }
    return compare(study(), **(known | changes))


METRICS = {"aa": "higher", "fd": "lower", "clap": "higher"}
