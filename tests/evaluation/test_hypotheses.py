"""Hypotheses: their test against scipy's, its error rate, Holm's correction and the verdicts."""

import numpy as np
import pytest
from scipy import stats

from stav2a.evaluation.comparison import Comparison, compare
from stav2a.evaluation.hypotheses import Hypothesis, holm, hypothesis_tests, paired_test
from stav2a.metrics import bootstrap
from stav2a.reports.comparison_tables import hypothesis_table
from tests.evaluation.compared import row


def compared(published: bool = False, **rows: list[np.ndarray]) -> Comparison:
    paper = {"CN": {"aa": 0.669}, "Onset": {"aa": 0.692}} if published else {}
    return compare(
        {name: row(*seeds) for name, seeds in rows.items()},
        metrics={"aa": "higher"},
        baseline="CN",
        published=paper,
    )


def seeds(mean: float, count: int, clips: int = 60, spread: float = 0.02) -> list[np.ndarray]:
    rng = np.random.default_rng(round(1000 * mean))
    return [mean + spread * rng.normal() + 0.2 * rng.normal(size=clips) for _ in range(count)]


def test_with_one_seed_it_is_the_paired_t_test_over_clips():
    rng = np.random.default_rng(0)
    values = 0.02 + 0.1 * rng.normal(size=80)
    (draws,) = bootstrap.resampled_means([values], 20_000, 0)
    p, freedom = paired_test(draws[None], np.array([values.mean()]), len(values))
    assert freedom == pytest.approx(79)
    assert p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=0.1)


def test_where_trainings_alone_differ_it_is_the_t_test_over_seeds():
    figures = np.array([0.03, 0.01, 0.05, 0.02, 0.06])
    draws = np.repeat(figures[:, None], 20_000, axis=1)
    p, freedom = paired_test(draws, figures, 100)
    assert freedom == pytest.approx(4, rel=0.05)
    assert p == pytest.approx(stats.ttest_1samp(figures, 0).pvalue, rel=0.1)


@pytest.mark.parametrize(("seed_spread", "clip_spread"), [(0.0, 1.0), (0.2, 1.0), (0.5, 0.5)])
def test_without_a_difference_few_studies_find_one(seed_spread, clip_spread):
    rng, found, studies = np.random.default_rng(1), 0, 300
    for _ in range(studies):
        clips = clip_spread * rng.normal(size=40)
        values = [
            clips + seed_spread * rng.normal() + 0.5 * clip_spread * rng.normal(size=40) for _ in range(5)
        ]
        draws = np.stack(bootstrap.resampled_means(values, 500, 0))
        found += paired_test(draws, np.array([each.mean() for each in values]), 40)[0] <= 0.05
    assert found / studies < 0.085  # 0.05 with a standard error of 0.0126


def test_no_spread_at_all_decides_by_the_value():
    assert paired_test(np.full((2, 10), 0.5), np.full(2, 0.5), 10)[0] == 0.0
    assert paired_test(np.zeros((2, 10)), np.zeros(2), 10)[0] == 1.0


def test_holms_correction_is_scipys_bonferroni_at_its_first_step_and_monotonic():
    values = [0.2, 0.001, 0.04, 0.03]
    assert holm(values) == pytest.approx([0.2, 0.004, 0.09, 0.09])
    assert holm([]) == [] and holm([0.7, 0.9]) == [1.0, 1.0]


def test_the_verdicts():
    comparison = compared(CN=seeds(0.5, 5), Onset=seeds(0.501, 5), Filter=seeds(0.8, 5), Frozen=seeds(0.2, 5))
    found = hypothesis_tests(
        comparison,
        [
            Hypothesis("right", "Filter", "CN", "aa"),
            Hypothesis("wrong", "Frozen", "CN", "aa"),
            Hypothesis("open", "Onset", "CN", "aa"),
            Hypothesis("no metric", "Onset", "CN", "fd"),
        ],
    )
    assert [each.verdict for each in found] == ["confirmed", "contradicted", "undecided", "not measured"]
    assert all(a.adjusted >= a.p for a in found if a.p is not None)
    assert found[0].difference == comparison.to_baseline["Filter", "aa"]


def test_one_seed_decides_nothing():
    comparison = compared(CN=seeds(0.5, 1), Onset=seeds(0.8, 1))
    (found,) = hypothesis_tests(comparison, [Hypothesis("H", "Onset", "CN", "aa")])
    assert found.p is not None and found.p < 0.001 and found.verdict == "one seed"


def test_a_lower_figure_confirms_where_lower_is_better():
    rows = {
        name: row(*seeds(mean, 5), higher_is_better=False) for name, mean in (("CN", 0.8), ("Onset", 0.2))
    }
    comparison = compare(rows, metrics={"aa": "lower"}, baseline="CN")
    (found,) = hypothesis_tests(comparison, [Hypothesis("better", "Onset", "CN", "aa")])
    assert found.difference.value < 0 and found.verdict == "confirmed"


def test_the_table_has_the_papers_difference_beside_ours():
    comparison = compared(published=True, CN=seeds(0.5, 3), Onset=seeds(0.8, 3))
    table = hypothesis_table(
        comparison, hypothesis_tests(comparison, [Hypothesis("H4", "Onset", "CN", "aa")])
    )
    assert "the p-value of a t test is at most 0.05, else undecided" in table.caption
    ((name, cells),) = table.rows()
    texts = dict(zip(table.titles, (cell.figure for cell in cells), strict=True))
    assert name == "H4" and texts["compared"] == "Onset − CN" and texts["paper"] == "+0.023"
    assert texts["verdict"] == "confirmed" and texts["p (Holm)"].startswith(("0.0", "< 0.001"))
    assert texts["difference"].startswith("+0.") and "stated" not in texts
    late = Hypothesis("H5", "CN", "Onset", "aa", finished_runs=4)
    table = hypothesis_table(
        comparison, hypothesis_tests(comparison, [Hypothesis("H4", *late.statement[1:]), late])
    )
    assert "a t test, corrected by Holm's method for the 2 that were tested, is at most" in table.caption
    assert [cells[-1].figure for _, cells in table.rows()] == ["before the runs", "after 4 runs"]
