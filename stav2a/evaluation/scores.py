"""Scores of an evaluation set: computed, as flat figures, and as JSON."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stav2a.metrics.score import FLOOR, EvaluationSet, MetricError, Score

FORMAT = 2


def evaluate(samples: EvaluationSet, metrics: Iterable[Callable[[EvaluationSet], Score]]) -> list[Score]:
    """Each metric's score of the samples, in the metrics' order.

    Args:
        samples: Generated sounds beside the real ones.
        metrics: Registered metrics, or any callable that returns a `Score`.

    Raises:
        MetricError: A metric returned something else than a score, or two returned scores of one name.
    """
    scores: list[Score] = []
    for metric in metrics:
        score = metric(samples)
        if not isinstance(score, Score):
            raise MetricError(
                f"a metric gave {type(score).__name__}. Make it return a stav2a.metrics.score.Score."
            )
        if any(score.name == other.name for other in scores):
            raise MetricError(f"two metrics gave a score named {score.name!r}. List each metric once.")
        scores.append(score)
    return scores


def figures(scores: Sequence[Score]) -> dict[str, float]:
    """Measured numbers by name: each score's value, interval, chance level and corrected value."""
    suffixes = {"": "value", "_low": "low", "_high": "high", "_chance": "chance", "_corrected": "corrected"}
    return {
        f"{score.name}{suffix}": value
        for score in scores
        if score.unavailable is None
        for suffix, field in suffixes.items()
        if (value := getattr(score, field)) is not None
    }


def per_clip(scores: Sequence[Score]) -> dict[str, list[Any]]:
    """Columns of a table: the clips' ids, and their values of each metric that has one a clip, or None."""
    given = {score.name: score.per_clip for score in scores if score.per_clip}
    ids = list(dict.fromkeys(clip for values in given.values() for clip in values))
    return {"clip": ids} | {name: [values.get(clip) for clip in ids] for name, values in given.items()}


def clips_csv(rows: Mapping[str, Mapping[int, Sequence[Score]]], metrics: Iterable[str]) -> str:
    """Values that the figures of rows are computed from, as a CSV: a line a row, seed and clip.

    A metric without values of single clips has its figure in the line without a clip.

    Args:
        rows: Scores of each row by seed.
        metrics: Names of the scores that are written.
    """
    text, names = io.StringIO(), list(metrics)
    table = csv.DictWriter(text, ["row", "seed", "clip", *names], lineterminator="\n")
    table.writeheader()
    for row, seeds in rows.items():
        for seed, scores in sorted(seeds.items()):
            measured = [s for s in scores if s.name in names and s.unavailable is None]
            whole = {score.name: score.value for score in measured if score.per_clip is None}
            columns = per_clip(measured)
            lines = [dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)]
            for line in [{"clip": "", **whole}] * bool(whole) + lines:
                table.writerow({"row": row, "seed": seed, **line})
    return text.getvalue()


def to_json(scores: Sequence[Score]) -> str:
    """The scores as JSON; `from_json` restores them to the last bit."""
    known = [{k: _to_null(v) for k, v in asdict(score).items()} for score in scores]
    content = {"format": FORMAT, "scores": known}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> list[Score]:
    """The scores that `to_json` wrote; those of format 1 too.

    Raises:
        MetricError: The text is something else, or of a later version.
    """
    try:
        content = json.loads(text)
        if content["format"] == 1:
            content = {"format": FORMAT, "scores": [_of_format_1(**item) for item in content["scores"]]}
        if content["format"] != FORMAT:
            raise MetricError(
                f"scores of format {content['format']}; this version reads {FORMAT} and 1.",
                advice="Evaluate again, or read them with a newer version.",
            )
        for item in content["scores"]:
            item["value"] = math.nan if item["value"] is None else item["value"]
        return [Score(**item) for item in content["scores"]]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise MetricError(f"no scores as `to_json` writes them: {error}. Evaluate again.") from error


def _of_format_1(*, details: dict[str, float], left_out: dict[str, str], **same: Any) -> dict[str, Any]:
    """A score of format 1, whose definition has n, draws, judge and chance in its text: they stay there."""
    floor = details.pop(FLOOR, None)
    return {**same, "floor": floor, "extras": details, "skipped": left_out}


def _to_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _to_null(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
