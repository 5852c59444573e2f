"""Scores of an evaluation set: computed, as flat figures, and as JSON."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from stav2a.metrics import bootstrap
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


def mean_of_samplings(samplings: Sequence[Sequence[Score]]) -> list[Score]:
    """Scores of several sounds of each clip: their means, with intervals over clips of these means.

    The interval of a corrected value is that of the value on the corrected scale, the level by chance held.

    Args:
        samplings: Scores of one sound of each clip, of another one, and so on: of the same clips, by the same
            metrics in the same order.

    Example:
        >>> score = Score(name="f1", label="F1", definition="", higher_is_better=True, draws=9)
        >>> values = [replace(score, value=value, per_clip={"a": value}) for value in (0.5, 1.0)]
        >>> [mean] = mean_of_samplings([[value] for value in values])
        >>> mean.value, mean.samplings
        (0.75, 2)
    """
    return [same[0] if len(same) == 1 else _mean_of_samplings(same) for same in zip(*samplings, strict=True)]


def _mean_of_samplings(scores: Sequence[Score]) -> Score:
    """One metric's scores of several sounds of each clip, as one."""
    first = scores[0]
    for number, score in enumerate(scores, start=1):
        if score.unavailable is not None:
            return replace(score, unavailable=f"{score.unavailable} (sound {number} of {len(scores)})")
    chance = _mean(score.chance for score in scores)
    facts = _mean_of_clips(scores) if first.per_clip else _mean_of_figures(scores)
    for name, of in (("corrected", "value"), ("corrected_low", "low"), ("corrected_high", "high")):
        if getattr(first, name) is not None:
            facts[name] = _corrected(facts[of], chance)
    extras = {name: _mean(score.extras.get(name) for score in scores) for name in first.extras}
    return replace(
        first,
        samplings=sum(score.samplings for score in scores),
        chance=chance,
        floor=_mean(score.floor for score in scores),
        extras={name: value for name, value in extras.items() if value is not None},
        **facts,
    )


def _mean_of_clips(scores: Sequence[Score]) -> dict[str, Any]:
    """Facts of means over clips: a clip's value is its mean over the sounds that have one."""
    first, known = scores[0], [score.per_clip or {} for score in scores]
    clips = dict.fromkeys(clip for values in known for clip in values)
    means = {clip: float(np.mean([values[clip] for values in known if clip in values])) for clip in clips}
    skipped = {clip: why for score in scores for clip, why in score.skipped.items() if clip not in means}
    interval = bootstrap.NO_INTERVAL
    if first.draws:
        values = [*means.values(), *(math.nan for _ in skipped)]
        interval = bootstrap.mean_interval(values, resamples=first.draws, seed=first.seed)
    value = float(np.mean([*means.values()]))
    return {"value": value, "n": len(means), "per_clip": means, "skipped": skipped, **_ends(interval)}


def _mean_of_figures(scores: Sequence[Score]) -> dict[str, Any]:
    """Facts of statistics of the whole set, whose replicates have the same draws of clips."""
    value = float(np.mean([score.value for score in scores]))
    drawn = [score.replicates for score in scores if score.replicates is not None]
    if len(drawn) < len(scores):
        return {"value": value, "replicates": None, "low": None, "high": None}
    replicates = np.mean(drawn, axis=0)
    interval = bootstrap.ends(bootstrap.centred(replicates, value))
    return {"value": value, "replicates": replicates.tolist(), **_ends(interval)}


def _ends(interval: bootstrap.Interval) -> dict[str, float | None]:
    return {name: end if math.isfinite(end) else None for name, end in interval._asdict().items()}


def _corrected(value: float | None, chance: float | None) -> float | None:
    return None if value is None or chance is None or chance >= 1 else (value - chance) / (1 - chance)


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there; None where there is none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


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
