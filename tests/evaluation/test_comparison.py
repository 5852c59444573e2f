import dataclasses

import numpy as np
import pytest

from stav2a.evaluation.comparison import ComparisonError, Estimate, compare
from stav2a.metrics import bootstrap
from tests.evaluation.compared import METRICS, PAPER, absent, compared, mean, row, study, whole

AA = {"aa": "higher"}


def difference(comparison, name, metric="aa", kind="to_baseline"):
    return getattr(comparison, kind)[name, metric]


def ends(estimate):
    return estimate.low, estimate.high


def test_means_over_seeds_and_differences_by_hand():
    rows = {"CN": row([0.0, 1.0], [0.2, 0.6]), "CN+Onset": row([0.5, 1.0], [0.4, 0.8])}
    both = compare(rows, metrics=AA, baseline="CN")
    assert both.estimates["CN", "aa"].value == pytest.approx((0.5 + 0.4) / 2)
    assert both.estimates["CN", "aa"].by_seed == pytest.approx({0: 0.5, 1: 0.4})
    assert difference(both, "CN+Onset").by_seed == pytest.approx({0: 0.25, 1: 0.2})
    assert difference(both, "CN+Onset").value == pytest.approx(0.225)
    assert ("CN", "aa") not in both.to_baseline


def test_equal_rows_differ_by_nothing_for_sure():
    values = np.random.default_rng(0).uniform(size=(3, 30))
    both = compare({"CN": row(*values), "again": row(*values)}, metrics=AA, baseline="CN")
    found = difference(both, "again")
    assert (found.value, *ends(found)) == (0.0, 0.0, 0.0)


def test_a_constant_gain_is_certain_however_different_the_clips():
    values = np.random.default_rng(0).uniform(size=(2, 30))
    both = compare({"CN": row(*values), "more": row(*(values + 0.125))}, metrics=AA, baseline="CN")
    assert ends(difference(both, "more")) == pytest.approx((0.125, 0.125))
    assert both.estimates["more", "aa"].low < values.mean() < both.estimates["more", "aa"].high


def test_pairing_narrows_the_interval_of_rows_that_find_the_same_clips_hard():
    rows = {name: study()[name] for name in ("CN", "Pretrained-T2A")}
    both = compare(rows, metrics=AA, baseline="CN")
    paired = difference(both, "Pretrained-T2A")
    widths = [np.subtract(*ends(each)) for each in both.estimates.values()]
    unpaired = np.hypot(*widths)
    assert paired.low < -0.4 < paired.high
    assert abs(np.subtract(*ends(paired))) < 0.6 * unpaired


def test_one_seed_has_the_interval_of_its_clips():
    values = np.random.default_rng(0).uniform(size=50)
    alone = compare({"CN": row(values)}, metrics=AA, baseline="CN", resamples=500, seed=3)
    assert ends(alone.estimates["CN", "aa"]) == pytest.approx(
        bootstrap.mean_interval(values, resamples=500, seed=3)
    )


def test_seeds_that_differ_widen_the_interval():
    values = np.random.default_rng(0).uniform(size=50)
    near, far = (
        compare({"CN": row(values, values + step, values - step)}, metrics=AA, baseline="CN")
        for step in (0.0, 0.2)
    )
    width = [np.ptp(ends(each.estimates["CN", "aa"])) for each in (near, far)]
    assert width[1] > 1.5 * width[0]


def test_a_statistic_of_the_set_is_compared_by_its_replicates():
    drawn = np.random.default_rng(0).normal(5, 1, 300)
    rows = {
        "CN": {0: [whole(4.0, drawn.tolist())]},
        "less": {0: [whole(3.0, (drawn - 0.5).tolist())]},
    }
    both = compare(rows, metrics={"fd": "lower"}, baseline="CN")
    own = both.estimates["CN", "fd"]
    moved = drawn - drawn.mean() + 4.0
    assert ends(own) == pytest.approx(tuple(np.quantile(moved, [0.025, 0.975])), abs=0.05)
    # Each draw less its pair, centred on the difference of the sets themselves.
    assert ends(difference(both, "less", "fd")) == pytest.approx((-1.0, -1.0))


def test_scores_without_replicates_have_figures_but_no_interval():
    rows = {"CN": {0: [whole(4.0, None)]}, "less": {0: [whole(3.0, [3.0, 3.1])]}}
    both = compare(rows, metrics={"fd": "lower"}, baseline="CN", published=PAPER)
    assert difference(both, "less", "fd") == Estimate(-1.0, None, None, {0: -1.0})
    assert both.to_baseline["less", "fd"].verdict == ""
    assert not both.metrics[0].drawn


def test_only_clips_that_all_rows_and_seeds_have_are_compared():
    three = [mean({"a": 0.0, "b": 0.5, "c": 1.0})]
    two = [mean({"a": 0.5, "b": 1.0}, skipped={"c": "no onset in either sound"})]
    rows = {"CN": {0: three, 1: three}, "CN+Onset": {0: two}}
    both = compare(rows, metrics=AA, baseline="CN")
    assert both.metrics[0].clips == 2
    assert both.metrics[0].skipped == {"c": "no onset in either sound (CN+Onset, seed 0)"}
    assert both.estimates["CN", "aa"].value == 0.25
    assert difference(both, "CN+Onset").value == 0.5


def test_one_clip_has_no_interval():
    alone = compare({"CN": row([0.5], [0.7])}, metrics=AA, baseline="CN")
    assert ends(alone.estimates["CN", "aa"]) == (None, None)


def test_a_row_is_compared_with_the_one_it_builds_on_as_well():
    rows = {"T2A": row([0.1, 0.2]), "CN": row([0.5, 0.7]), "CN+": row([0.6, 0.7])}
    all_three = compare(rows, metrics=AA, baseline="T2A", builds_on={"CN": "T2A", "CN+": "CN"})
    assert difference(all_three, "CN+", kind="to_step").value == pytest.approx(0.05)
    assert difference(all_three, "CN+").value == pytest.approx(0.5)
    assert ("T2A", "aa") not in all_three.to_step


def test_a_difference_needs_a_seed_in_common():
    rows = {"CN": {0: [mean([0.1, 0.2])]}, "CN+": {1: [mean([0.1, 0.2])]}}
    assert compare(rows, metrics=AA, baseline="CN").to_baseline == {}


def test_published_differences_are_of_the_published_figures():
    found = compared(published=PAPER)
    onset = difference(found, "CN+Onset")
    assert (onset.published, difference(found, "CN+Onset", kind="to_step").published) == (0.023, 0.023)
    assert difference(found, "CN+Onset", "fd").published == 0.44
    assert onset.verdict == "yes"
    verdicts = [each.verdict for each in found.to_baseline.values()]
    assert sorted(verdicts) == ["within noise", "yes", "yes", "yes"]


@pytest.mark.parametrize(
    ("value", "low", "high", "published", "expected"),
    [
        (0.2, 0.1, 0.3, 0.02, "yes"),
        (-0.2, -0.3, -0.1, -5.0, "yes"),
        (0.2, 0.1, 0.3, -0.02, "no"),
        (0.2, -0.1, 0.3, 0.02, "within noise"),
        (0.2, 0.0, 0.3, 0.02, "within noise"),
        (0.0, 0.0, 0.0, 0.02, "within noise"),
        (0.2, 0.1, 0.3, None, ""),
        (0.2, 0.1, 0.3, 0.0, "too small"),
        (0.2, None, None, 0.02, ""),
    ],
)
def test_verdicts(value, low, high, published, expected):
    assert Estimate(value, low, high, {}, published).verdict == expected


def test_the_best_row_follows_the_direction():
    clips = np.random.default_rng(0).uniform(size=(3, 30))
    rows = {"CN": row(*clips), "more": row(*(clips + 0.2)), "most": row(*(clips + 0.3))}
    assert compare(rows, metrics=AA, baseline="CN").best == {"aa": "most"}
    lower = {name: row(*values, higher_is_better=False) for name, values in (("CN", clips), ("x", clips + 1))}
    assert compare(lower, metrics={"aa": "lower"}, baseline="CN").best == {"aa": "CN"}


def test_ties_and_differences_within_noise_have_no_best():
    clips = np.random.default_rng(0).uniform(size=(3, 30))
    noise = np.random.default_rng(1).normal(0, 0.3, (3, 30))
    for other in (clips, clips + noise):
        rows = {"CN": row(*clips), "far": row(*(clips - 1)), "CN+": row(*other)}
        assert compare(rows, metrics=AA, baseline="far").best == {}
    assert compare({"CN": row(*clips)}, metrics=AA, baseline="CN").best == {}
    assert compare({"CN": row([0.1]), "CN+": row([0.9])}, metrics=AA, baseline="CN").best == {}


def test_only_contenders_can_be_the_best():
    clips = np.random.default_rng(0).uniform(size=(1, 30))
    rows = {"real": row(*(clips + 1)), "A": row(*clips), "B": row(*(clips + 0.2))}
    assert compare(rows, metrics=AA, baseline="A", contenders=["A", "B"]).best == {"aa": "B"}


@pytest.mark.parametrize(("theirs", "verdict"), [(1.019, "too small"), (0.981, "too small"), (1.02, "yes")])
def test_a_published_difference_below_two_percent_has_no_sign(theirs, verdict):
    rows = {"CN": row([0.1, 0.2]), "CN+": row([0.3, 0.4])}
    found = compare(
        rows, metrics=AA, baseline="CN", published={"CN": {"aa": 1.0}, "CN+": {"aa": theirs, "pam": 2.0}}
    )
    assert difference(found, "CN+").verdict == verdict
    assert found.unmeasured == ["pam"]


def test_what_is_missing_stays_with_its_reason():
    found = compared(metrics=METRICS | {"pam": "higher"})
    assert found.rows[-1] == "CN Frozen"
    assert found.missing == {"CN Frozen": {0: "exit code 1", 1: "exit code 1", 2: "exit code 1"}}
    assert found.absent == {
        "clap": "no checkpoint",
        "pam": "no row has such a score; there are: aa, fd, clap",
    }
    assert [metric.score.name for metric in found.metrics] == ["aa", "fd"]


def test_a_row_may_lack_a_metric_that_others_have():
    rows = {"CN": row([0.1, 0.2]), "CN+": {0: [absent("aa", "no clip has a value")]}}
    found = compare(rows, metrics=AA, baseline="CN")
    assert found.lacking == {("CN+", "aa"): "no clip has a value"}
    assert ("CN+", "aa") not in found.estimates


def test_a_baseline_that_failed_leaves_figures_without_differences():
    found = compare({"CN": {}, "CN+": row([0.1, 0.2])}, metrics=AA, baseline="CN")
    assert ("CN+", "aa") not in found.to_baseline
    assert found.estimates["CN+", "aa"].value == pytest.approx(0.15)


def test_clips_that_no_two_rows_share_are_nothing_to_compare():
    rows = {"CN": {0: [mean({"a": 0.1})]}, "CN+": {0: [mean({"b": 0.1})]}}
    assert compare(rows, metrics=AA, baseline="CN").absent == {
        "aa": "no clip has a value in all rows and seeds"
    }


def test_chance_and_what_stands_beside_are_of_all_rows():
    metric = compared().metrics[0]
    assert metric.chance == (0.15, pytest.approx(0.17))
    assert metric.beside == {"onsets a real clip": 3.2}
    assert (metric.score.definition, metric.clips) == ("hits", 40)


def test_equal_input_gives_equal_intervals():
    twice = [compared().estimates for _ in range(2)]
    assert twice[0] == twice[1]


def test_scores_of_different_measures_are_refused():
    rows = {"CN": row([0.1]), "CN+": row([0.1], definition="hits as released")}
    with pytest.raises(ComparisonError) as error:
        compare(rows, metrics=AA, baseline="CN")
    assert str(error.value) == (
        "aa is not the same thing in all rows.\n  CN, seed 0: hits\n  CN+, seed 0: hits as released\n"
        "Evaluate them in the same way, on the same clips."
    )


def test_means_of_different_numbers_of_clips_are_the_same_measure_but_statistics_are_not():
    assert (
        compare({"CN": row([0.1, 0.2]), "CN+": row([0.1])}, metrics=AA, baseline="CN").metrics[0].clips == 1
    )
    few = dataclasses.replace(whole(3.0, [3.0]), n=8)
    with pytest.raises(ComparisonError, match="fd is not the same thing in all rows"):
        compare(
            {"CN": {0: [whole(4.0, [4.0])]}, "CN+": {0: [few]}},
            metrics={"fd": "lower"},
            baseline="CN",
        )


@pytest.mark.parametrize(
    ("rows", "metrics", "baseline", "told"),
    [
        ({"CN": row([0.1])}, {"aa": "lower"}, "CN", "of aa, 'lower' was said to be better, but AA-Align "),
        ({"CN": row([0.1])}, {"aa": "up"}, "CN", "direction of 'aa' was 'up'. Write 'higher' or 'lower'"),
        ({"CN": row([0.1])}, AA, "T2A", "the baseline 'T2A' is not a row. The rows are: CN."),
        ({}, AA, "T2A", "the baseline 'T2A' is not a row. The rows are: none."),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_told(rows, metrics, baseline, told):
    with pytest.raises(ComparisonError, match=told):
        compare(rows, metrics=metrics, baseline=baseline)


def test_a_row_builds_on_a_row():
    with pytest.raises(ComparisonError, match="'CN' builds on 'x', which is not a row. The rows are: CN."):
        compare({"CN": row([0.1])}, metrics=AA, baseline="CN", builds_on={"CN": "x"})


def test_statistics_of_other_draws_are_refused():
    other = dataclasses.replace(whole(3.0, [3.0]), seed=1)
    with pytest.raises(ComparisonError, match="distance, by toy classifier; n = 9, 0 draws, seed 1"):
        compare({"CN": {0: [whole(4.0, [4.0])]}, "CN+": {0: [other]}}, metrics={"fd": "lower"}, baseline="CN")
