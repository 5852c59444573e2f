"""From an evaluation set and metrics to one table: in a terminal, in Markdown, in JSON."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from stav2a.metrics.score import EvaluationSet, MetricError, Score

Progress = Callable[[int, int, str], None]  # done, of how many, the label or name at hand
_FORMAT = 1


def evaluate(
    samples: EvaluationSet,
    metrics: Iterable[Callable[[EvaluationSet], Score]],
    progress: Progress | None = None,
) -> list[Score]:
    """Each metric's score of the samples, in the metrics' order.

    Args:
        samples: What was generated, beside what is real.
        metrics: Registered ones, or any callable that gives a `Score`.
        progress: Told before each metric, and once at the end.

    Raises:
        MetricError: A metric gave something else than a score, or two gave scores of one name.
    """
    metrics = list(metrics)
    scores: list[Score] = []
    for done, metric in enumerate(metrics):
        if progress:
            progress(done, len(metrics), type(metric).__name__)
        scores.append(_checked(metric(samples), scores))
    if progress:
        progress(len(metrics), len(metrics), "done")
    return scores


def figures(scores: Sequence[Score]) -> dict[str, float]:
    """What was measured, as numbers by name: the value, its interval, chance and corrected value."""
    found = {
        f"{score.name}{suffix}": value
        for score in scores
        if score.unavailable is None
        for suffix, value in (
            ("", score.value),
            ("_low", score.low),
            ("_high", score.high),
            ("_chance", score.chance),
            ("_corrected", score.corrected),
        )
    }
    return {name: value for name, value in found.items() if value is not None}


def per_clip(scores: Sequence[Score]) -> dict[str, list[Any]]:
    """A table by its columns: every clip's id, and its value of each metric that has one a clip, or None."""
    given = {score.name: score.per_clip for score in scores if score.per_clip}
    ids = sorted({clip for values in given.values() for clip in values})
    return {"clip": ids} | {name: [values.get(clip) for clip in ids] for name, values in given.items()}


def to_json(scores: Sequence[Score]) -> str:
    """The scores, whole, as JSON; `from_json` gives them back to the last bit."""
    known = [{k: _to_null(v) for k, v in asdict(score).items()} for score in scores]
    return (
        json.dumps({"format": _FORMAT, "scores": known}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )


def from_json(text: str) -> list[Score]:
    """The scores that `to_json` wrote.

    Raises:
        MetricError: The text is something else, or of a later version.
    """
    try:
        content = json.loads(text)
        if content["format"] != _FORMAT:
            raise MetricError(
                f"scores of format {content['format']}; this version reads {_FORMAT}. Evaluate again."
            )
        return [_score(item) for item in content["scores"]]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise MetricError(f"no scores as `to_json` writes them: {error}. Evaluate again.") from error


def _checked(score: Any, earlier: Sequence[Score]) -> Score:
    if not isinstance(score, Score):
        raise MetricError(
            f"a metric gave {type(score).__name__}. Make it return a stav2a.metrics.score.Score."
        )
    if any(score.name == other.name for other in earlier):
        raise MetricError(f"two metrics gave a score named {score.name!r}. List each metric once.")
    return score


def _score(item: Mapping[str, Any]) -> Score:
    known = {field.name for field in fields(Score)}
    if unknown := set(item) - known:
        raise KeyError(f"unknown fields {sorted(unknown)}")
    return Score(**{**item, "value": math.nan if item["value"] is None else item["value"]})


def _to_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _to_null(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
