"""What has to be said under the tables: how to read them, what was measured, and what is missing."""

from collections.abc import Mapping, Sequence

from stav2a.comparison.results import NO, NOISE, YES, Comparison, Metric
from stav2a.comparison.tables.grids import shortened

_NAMED = 5  # clips named in a note; the scores have them all
_FEW = 5  # seeds


def notes(comparison: Comparison) -> dict[str, list[str]]:
    """Heading -> sentences; headings without any are left out."""
    listed = {
        "How to read them": _reading(comparison),
        "What was measured": [_measured(metric) for metric in comparison.metrics],
        "Left out": [line for metric in comparison.metrics for line in _left_out(metric)],
        "Missing": [*_missing(comparison), *_without_interval(comparison)],
    }
    return {heading: lines for heading, lines in listed.items() if lines}


def counted(comparison: Comparison) -> list[str]:
    """How often the paper's sign is ours: a sentence on the baseline, one on the steps, if it has figures."""
    kinds = {"to_baseline": f"differences to {comparison.baseline}"}
    if comparison.other_steps:
        kinds["to_step"] = "steps"
    tallies = {what: comparison.tally(kind) for kind, what in kinds.items()}
    return [
        f"Of {total} {what}: {tally[YES]} with the paper's sign, {tally[NO]} with the other one, "
        f"{tally[NOISE]} within noise."
        for what, tally in tallies.items()
        if (total := sum(tally.values()))
    ]


def _reading(comparison: Comparison) -> list[str]:
    if not comparison.metrics:
        return ["There is nothing to compare yet."]
    lines = [_interval_in_words(comparison)]
    if comparison.differences("to_baseline"):
        lines.append("Differences are paired: the same seeds and the same draws of clips on both sides.")
    if counted(comparison):
        lines += [
            "Same sign as the paper's: yes or no where our interval excludes 0, else within noise.",
            "Each interval stands for itself: one in twenty excludes 0 where there is nothing but noise.",
        ]
    return lines


def _interval_in_words(comparison: Comparison) -> str:
    counts = sorted({len(seeds) for seeds in comparison.seeds.values() if seeds})
    how = f"In brackets: 95 % bootstrap intervals, {comparison.resamples} draws"
    if counts == [1]:
        return (
            f"{how} of clips. There is one seed, so that they don't tell how much another training would "
            "differ."
        )
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    crossed = f"{how} of seeds and of clips ({seeds} seeds, all scored on the same clips)."
    if counts[-1] >= _FEW:
        return crossed
    return (
        f"{crossed} So few seeds tell only roughly how much trainings differ: where they differ more than "
        "clips do, an interval holds the truth less often than its 95 %."
    )


def _measured(metric: Metric) -> str:
    further = [f"{metric.clips} clips"]
    if metric.chance:
        low, high = (f"{level:.3f}" for level in metric.chance)
        further.append(f"by chance {low}" if low == high else f"by chance {low} to {high}")
    further += [f"{name} {value:.4g}" for name, value in metric.beside.items()]
    better = "Higher" if metric.higher_is_better else "Lower"
    return f"{metric.label}: {metric.measure}. {better} is better; {'; '.join(further)}."


def _left_out(metric: Metric) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for clip, reason in metric.left_out.items():
        by_reason.setdefault(reason, []).append(clip)
    total = metric.clips + len(metric.left_out)
    return [
        f"{shortened(metric.label)}: {len(clips)} of {total} clips, {reason}: {_named(clips)}."
        for reason, clips in by_reason.items()
    ]


def _missing(comparison: Comparison) -> list[str]:
    silent = [row for row in comparison.rows if not comparison.seeds[row] and row not in comparison.missing]
    return [
        *(line for row, seeds in comparison.missing.items() for line in _missing_seeds(row, seeds)),
        *(f"{row}: no scores." for row in silent),
        *(f"{metric}: {_sentence(reason)}" for metric, reason in comparison.absent.items()),
        *(f"{row}, {metric}: {_sentence(reason)}" for (row, metric), reason in comparison.lacking.items()),
    ]


def _missing_seeds(row: str, reasons: Mapping[int, str]) -> list[str]:
    """One line a reason."""
    by_reason: dict[str, list[int]] = {}
    for seed, reason in sorted(reasons.items()):
        by_reason.setdefault(reason, []).append(seed)
    return [
        f"{row}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}: {_sentence(reason)}"
        for reason, seeds in by_reason.items()
    ]


def _without_interval(comparison: Comparison) -> list[str]:
    return [
        f"{shortened(metric.label)}: no interval. There is one clip, or the scores were kept without their "
        "bootstrap replicates; evaluate again."
        for metric in comparison.metrics
        if not metric.drawn
    ]


def _named(clips: Sequence[str]) -> str:
    more = f" and {len(clips) - _NAMED} more" if len(clips) > _NAMED else ""
    return ", ".join(clips[:_NAMED]) + more


def _sentence(text: str) -> str:
    return text.strip().rstrip(".") + "."
