"""Notes on metrics that two judges measure, and on those that lack their judge."""

from stav2a.evaluation.comparison import compare
from stav2a.metrics.score import Score
from stav2a.reports.comparison_tables import comparison_document, scores_document


def score(name, value, **more):
    label = name.upper()
    return Score(name=name, label=label, definition="d", higher_is_better=False, value=value, n=4, **more)


def document(first, second):
    rows = {
        row: {0: [score("fd", first[row]), score("fd_yamnet", second[row], counterpart="fd")]}
        for row in first
    }
    compared = compare(rows, metrics={"fd": "lower", "fd_yamnet": "lower"}, baseline="a")
    return " ".join(comparison_document(compared).text().split())


def test_judges_that_disagree_on_the_order_of_rows_are_said_in_one_line():
    told = document({"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 5.0, "b": 4.0, "c": 9.0})
    assert "Judges disagree on the order of rows: FD and FD_YAMNET on 1 of 3 pairs (a and b)." in told


def test_judges_that_agree_are_not_mentioned():
    assert "Judges disagree" not in document({"a": 1.0, "b": 2.0}, {"a": 4.0, "b": 5.0})
    assert "Judges disagree" not in document({"a": 1.0, "b": 1.0}, {"a": 4.0, "b": 5.0})


def test_metrics_without_their_judge_share_a_line():
    absent = [score(name, 0.0, unavailable="no weights") for name in ("fd_yamnet", "kad_yamnet")]
    told = " ".join(scores_document([score("fd", 1.0), *absent]).text().split())
    assert "FD_YAMNET, KAD_YAMNET: no weights." in told
    rows = {"a": {0: [score("fd", 1.0), *absent]}, "b": {0: [score("fd", 2.0), *absent]}}
    metrics = dict.fromkeys(("fd", "fd_yamnet", "kad_yamnet"), "lower")
    told = comparison_document(compare(rows, metrics=metrics, baseline="a")).text()
    assert "fd_yamnet, kad_yamnet: no weights" in " ".join(told.split())
