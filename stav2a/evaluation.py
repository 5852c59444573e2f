"""From an evaluation set and metrics to one table: in a terminal, in Markdown, in JSON."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from stav2a.metrics.errors import MetricError
from stav2a.metrics.sets import EvaluationSet, Score

Progress = Callable[[int, int, str], None]  # done, of how many, the label or name at hand

COLUMNS = ("metric", "value", "95 % interval", "chance", "corrected", "n")
STYLES = ("text", "markdown")
_FORMAT = 1
_NAMED = 8  # ids named in a note; JSON has them all


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


def table(scores: Sequence[Score], style: str = "text") -> str:
    """A table of the scores, and under it what each is, what was left out, and what could not be measured.

    Args:
        scores: As `evaluate` gives them.
        style: `text` for a terminal, or `markdown`.

    Raises:
        MetricError: Another style.
    """
    if style not in STYLES:
        raise MetricError(f"style was {style!r}. Write one of: {', '.join(STYLES)}.")
    measured = [score for score in scores if score.unavailable is None]
    rows = [COLUMNS, *(_row(score) for score in measured)]
    grid = _text_grid(rows) if style == "text" else _markdown_grid(rows)
    notes = {
        "Definitions": [f"{score.label}: {score.definition}." for score in measured],
        "Beside them": [f"{score.label}: {_details(score.details)}." for score in measured if score.details],
        "Left out": [line for score in measured for line in _left_out(score)],
        "Not measured": [f"{score.label}: {score.unavailable}" for score in scores if score.unavailable],
    }
    mark = "{}:" if style == "text" else "**{}**\n"
    listed = [
        "\n".join(
            [mark.format(title), *(f"  - {line}" if style == "text" else f"- {line}" for line in lines)]
        )
        for title, lines in notes.items()
        if lines
    ]
    return "\n\n".join([grid, *listed]) + "\n"


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
            f"a metric gave {type(score).__name__}. Make it return a stav2a.metrics.sets.Score."
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


def _row(score: Score) -> tuple[str, ...]:
    corrected = _figure(score.corrected)
    if score.corrected_low is not None:
        corrected += f" [{_range(score.corrected_low, score.corrected_high)}]"
    return (
        f"{score.label} {'↑' if score.higher_is_better else '↓'}",
        _figure(score.value),
        _range(score.low, score.high),
        _figure(score.chance),
        corrected,
        str(score.n),
    )


def _figure(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def _range(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{_figure(low)} … {_figure(high)}"


def _details(details: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_figure(value)}" for name, value in details.items())


def _left_out(score: Score) -> list[str]:
    """One line a reason: how many clips, and which."""
    by_reason: dict[str, list[str]] = {}
    for clip, reason in score.left_out.items():
        by_reason.setdefault(reason, []).append(clip)
    total = score.n + len(score.left_out)
    return [
        f"{score.label}: {len(clips)} of {total} clips, {reason.rstrip('.')} ({_named(clips)})"
        for reason, clips in by_reason.items()
    ]


def _named(clips: Sequence[str]) -> str:
    more = f", and {len(clips) - _NAMED} more" if len(clips) > _NAMED else ""
    return ", ".join(clips[:_NAMED]) + more


def _text_grid(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(_cell(text, width, i) for i, (text, width) in enumerate(zip(row, widths, strict=True)))
             for row in rows]  # fmt: skip
    return "\n".join(line.rstrip() for line in [lines[0], "─" * len(lines[0]), *lines[1:]])


def _cell(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def _markdown_grid(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows]
    return "\n".join([head, "|---|" + "---:|" * (len(rows[0]) - 1), *body])
