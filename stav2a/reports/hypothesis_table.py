"""Table of a study's hypotheses with their tests and verdicts."""

from collections.abc import Sequence

from stav2a.evaluation.comparison import Comparison
from stav2a.evaluation.hypotheses import LEVEL, TestedHypothesis
from stav2a.reports.comparison_tables import number_formats, titled
from stav2a.reports.tables import MINUS, NOTHING, PAPER, Cell, NumberFormat, Table

SMALLEST_P = 0.001


def hypothesis_table(comparison: Comparison, tested: Sequence[TestedHypothesis]) -> Table:
    """Hypotheses by metric, difference, the published difference, corrected p-value and verdict."""
    labels = {each.score.name: titled(each.score) for each in comparison.metrics}
    columns: dict[tuple[str, str], list[Cell]] = {
        ("compared", "compared"): [
            Cell(f"{each.hypothesis.better} {MINUS} {each.hypothesis.other}") for each in tested
        ],
        ("metric", "metric"): [
            Cell(labels.get(each.hypothesis.metric, each.hypothesis.metric)) for each in tested
        ],
        ("difference", "difference"): [
            number_formats(comparison, each.hypothesis.metric)[0].estimate(each.difference, signed=True)
            for each in tested
        ],
        ("difference", PAPER): [_published(comparison, each) for each in tested],
        ("p", "p (Holm)"): [Cell(_p_value(each.adjusted)) for each in tested],
        ("verdict", "verdict"): [Cell(each.verdict) for each in tested],
    }
    if any(each.hypothesis.finished_runs for each in tested):
        columns["stated", "stated"] = [Cell(_stated(each.hypothesis.finished_runs)) for each in tested]
    corrected = sum(each.adjusted is not None for each in tested)
    caption = (
        "Each says that the first row is better than the second. Paired differences with 95 % intervals; "
        f"confirmed or contradicted where the p-value of a t test, corrected by Holm's method for the "
        f"{corrected} that were tested, is at most {LEVEL}, else undecided. One seed decides nothing."
    )
    return Table.of("Hypotheses", caption, [each.hypothesis.name for each in tested], columns)


def _published(comparison: Comparison, tested: TestedHypothesis) -> Cell:
    if tested.difference is None or tested.difference.published is None:
        return Cell()
    _, theirs = number_formats(comparison, tested.hypothesis.metric)
    return theirs.cell(tested.difference.published, signed=True)


def _stated(finished_runs: int) -> str:
    return f"after {finished_runs} runs" if finished_runs else "before the runs"


def _p_value(p: float | None) -> str:
    if p is None:
        return NOTHING
    return f"< {SMALLEST_P}" if p < SMALLEST_P else NumberFormat().figure(p)
