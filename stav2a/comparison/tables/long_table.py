"""For a spreadsheet: one line for a row and a metric, with all digits."""

import csv as writer
import io

from stav2a.comparison.results import UNKNOWN, Comparison, Difference, Metric

COLUMNS = (
    "row", "metric", "direction", "value", "low", "high", "seeds", "clips",
    "baseline", "difference", "difference_low", "difference_high",
    "builds_on", "step", "step_low", "step_high",
    "published", "published_difference", "sign_as_published", "published_step", "step_sign_as_published",
)  # fmt: skip


def csv(comparison: Comparison) -> str:
    """One line for a row and a metric; what there is not is empty. Seeds are separated by spaces."""
    text = io.StringIO()
    table = writer.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in comparison.rows:
        for metric in comparison.metrics:
            table.writerow(_line(comparison, row, metric))
    return text.getvalue()


def _line(comparison: Comparison, row: str, metric: Metric) -> dict[str, object]:
    return {
        "row": row,
        "metric": metric.name,
        "direction": "higher" if metric.higher_is_better else "lower",
        **_measured(comparison, row, metric),
        "baseline": comparison.baseline,
        **_difference("difference", comparison.difference(row, metric, "to_baseline")),
        "builds_on": comparison.builds_on.get(row),
        **_difference("step", comparison.difference(row, metric, "to_step")),
        "published": comparison.published.get(row, {}).get(metric.name),
        **_published("difference", comparison.difference(row, metric, "to_baseline"), "sign_as_published"),
        **_published("step", comparison.difference(row, metric, "to_step"), "step_sign_as_published"),
    }


def _measured(comparison: Comparison, row: str, metric: Metric) -> dict[str, object]:
    cell = comparison.cells.get((row, metric.name))
    if cell is None:
        return {}
    own = cell.estimate
    seeds = " ".join(map(str, own.by_seed))
    return {"value": own.value, "low": own.low, "high": own.high, "seeds": seeds, "clips": metric.clips}


def _difference(name: str, difference: Difference | None) -> dict[str, object]:
    if difference is None:
        return {}
    own = difference.estimate
    return {name: own.value, f"{name}_low": own.low, f"{name}_high": own.high}


def _published(name: str, difference: Difference | None, sign: str) -> dict[str, object]:
    if difference is None:
        return {}
    verdict = "" if difference.verdict == UNKNOWN else difference.verdict
    return {f"published_{name}": difference.published, sign: verdict}
