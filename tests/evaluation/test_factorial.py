"""Effects of factors: known ones are recovered, gaps are told, and the seeds that a difference needs."""

from itertools import product

import numpy as np
import pytest

from stav2a.evaluation.comparison import Comparison, compare
from stav2a.evaluation.factorial import EffectCoding, FactorialEffects, Power, factorial_effects
from stav2a.metrics import bootstrap
from tests.evaluation.compared import mean, whole

FACTORS = {"head": ["linear", "onset"], "pooler": ["none", "mean", "attentive"], "fuser": ["concat", "sum"]}
ROWS = {" + ".join(levels): dict(zip(FACTORS, levels, strict=True)) for levels in product(*FACTORS.values())}
BASELINE = "linear + none + concat"
HEAD = {"linear": -0.05, "onset": 0.05}  # each adds up to zero
POOLER = {"none": -0.2, "mean": 0.05, "attentive": 0.15}
FUSER = {"concat": 0.01, "sum": -0.01}
BOTH = {  # head and pooler: each row and column adds up to zero
    ("linear", "none"): 0.03, ("linear", "mean"): -0.01, ("linear", "attentive"): -0.02,
    ("onset", "none"): -0.03, ("onset", "mean"): 0.01, ("onset", "attentive"): 0.02,
}  # fmt: skip
CLIPS = np.random.default_rng(0).normal(0.5, 0.2, 12)  # hard and easy, the same for all rows


def truth(levels: dict[str, str]) -> float:
    head, pooler = levels["head"], levels["pooler"]
    return HEAD[head] + POOLER[pooler] + FUSER[levels["fuser"]] + BOTH[head, pooler]


def compared(rows=ROWS, seeds=(0, 1), noise=0.0) -> Comparison:
    """Rows of the model above; seeds that shift all rows alike, and each by itself where there is noise."""
    rng = np.random.default_rng(1)
    scores = {
        row: {
            seed: [mean(CLIPS + truth(levels) + 0.1 * seed + rng.normal(0, noise, len(CLIPS)))]
            for seed in seeds
        }
        for row, levels in ROWS.items()
        if row in rows
    }
    return compare(scores, metrics={"aa": "higher"}, baseline=BASELINE, resamples=200)


def effects(*missing: str, **changes) -> FactorialEffects:
    rows = [row for row in ROWS if row not in missing]
    return factorial_effects(compared(rows, **changes), ROWS, FACTORS)


def main(found: FactorialEffects, factor: str, level: str):
    return next(each for each in found.mains["aa"] if each.levels == {factor: level})


def interaction(found: FactorialEffects, **levels: str):
    return next(each for each in found.interactions["aa"] if each.levels == levels)


def is_exact(found, value: float) -> bool:
    """True where the estimate is the value on every seed and draw: what varies is the same for all rows."""
    return [*found.by_seed.values(), found.low, found.high] == pytest.approx([value] * 4, abs=1e-12)


GAPS = {
    "full": (),
    "one gap": ("onset + mean + sum",),
    "two gaps": ("linear + none + sum", "onset + attentive + concat"),  # as many rows as parameters are left
}


@pytest.mark.parametrize("missing", GAPS.values(), ids=GAPS)
def test_known_effects_are_recovered_exactly_with_and_without_gaps(missing):
    found = effects(*missing)
    for factor, true in (("head", HEAD), ("pooler", POOLER), ("fuser", FUSER)):
        base = FACTORS[factor][0]
        for level, value in true.items():
            each = main(found, factor, level)
            assert is_exact(each.coded, value)
            assert each.mean.value == pytest.approx(CLIPS.mean() + 0.05 + value)
            assert each.difference is None if level == base else is_exact(each.difference, value - true[base])
            assert each.assumes == ()
    for (head, pooler), value in BOTH.items():
        each = interaction(found, head=head, pooler=pooler)
        assert is_exact(each.coded, value)
        if not each.is_baseline:
            corners = BOTH[head, "none"], BOTH["linear", pooler], BOTH["linear", "none"]
            assert is_exact(each.difference, value - corners[0] - corners[1] + corners[2])
    assert is_exact(interaction(found, head="onset", fuser="sum").difference, 0.0)


def test_in_a_full_design_effects_are_differences_of_means():
    both = compared(noise=0.1)
    found = factorial_effects(both, ROWS, FACTORS)
    means = {row: both.estimates[row, "aa"].value for row in ROWS}

    def over(factor: str, level: str) -> float:
        return float(np.mean([means[row] for row, levels in ROWS.items() if levels[factor] == level]))

    for level in ("mean", "attentive"):
        value = over("pooler", level) - over("pooler", "none")
        assert main(found, "pooler", level).difference.value == pytest.approx(value)


def test_the_interval_of_one_seed_is_that_of_the_paired_draws():
    both = compared(noise=0.1, seeds=(0,))
    difference = main(factorial_effects(both, ROWS, FACTORS), "head", "onset").difference
    onset, linear = (
        np.mean([both.draws[row, "aa"][0] for row in ROWS if ROWS[row]["head"] == head], axis=0)
        for head in ("onset", "linear")
    )
    assert (difference.low, difference.high) == pytest.approx(bootstrap.ends(onset - linear))


def test_levels_that_never_meet_leave_their_interaction_out_and_it_is_said():
    gone = [row for row, levels in ROWS.items() if levels["pooler"] == "none" and levels["fuser"] == "sum"]
    found = effects(*gone)
    assert found.empty == {("pooler", "fuser"): [("none", "sum")]}
    assert interaction(found, pooler="none", fuser="sum").mean is None
    fuser = main(found, "fuser", "sum")
    assert is_exact(fuser.difference, -0.02) and fuser.assumes == (("pooler", "fuser"),)
    head = main(found, "head", "onset")  # needs no assumption: each head meets the same others
    assert is_exact(head.difference, 0.1) and head.assumes == ()
    others = [each for each in found.interactions["aa"] if set(each.levels) == {"pooler", "fuser"}]
    assert all(each.difference is None for each in others)  # all are differences to 'none'


def test_one_at_a_time_has_main_effects_and_no_interactions():
    base = ROWS[BASELINE]
    near = [row for row, levels in ROWS.items() if sum(levels[f] != base[f] for f in base) <= 1]
    found = effects(*(set(ROWS) - set(near)))
    onset = main(found, "head", "onset")
    assert onset.difference.value == pytest.approx(0.1 + BOTH["onset", "none"] - BOTH["linear", "none"])
    assert set(onset.assumes) == {("head", "pooler"), ("head", "fuser"), ("pooler", "fuser")}
    assert all(each.difference is None for each in found.interactions["aa"])


def test_a_level_without_any_row_is_left_out_and_named():
    found = effects(*(row for row, levels in ROWS.items() if levels["pooler"] == "mean"))
    assert found.without == {"pooler": ["mean"]}
    assert found.factors["pooler"] == ["none", "attentive"]
    expected = 0.35 + (BOTH["linear", "attentive"] - BOTH["linear", "none"]) / 2
    expected += (BOTH["onset", "attentive"] - BOTH["onset", "none"]) / 2
    assert is_exact(main(found, "pooler", "attentive").difference, expected)


def test_a_row_that_lacks_a_seed_is_left_out_of_this_seed_alone():
    rows = {row: {seed: [mean(CLIPS + truth(each) + seed)] for seed in (0, 1)} for row, each in ROWS.items()}
    del rows["onset + mean + sum"][1]
    both = compare(rows, metrics={"aa": "higher"}, baseline=BASELINE, resamples=50)
    found = factorial_effects(both, ROWS, FACTORS)
    assert is_exact(main(found, "pooler", "mean").difference, 0.25)
    assert list(main(found, "pooler", "mean").difference.by_seed) == [0, 1]


def test_statistics_of_the_set_have_effects_by_their_replicates():
    drawn = np.random.default_rng(0).normal(size=300)
    rows = {
        row: {0: [whole(20 - 10 * truth(each), (20 - 10 * truth(each) + drawn).tolist())]}
        for row, each in ROWS.items()
    }
    both = compare(rows, metrics={"fd": "lower"}, baseline=BASELINE)
    found = factorial_effects(both, ROWS, FACTORS)
    onset = next(each for each in found.mains["fd"] if each.levels == {"head": "onset"})
    assert (onset.difference.value, onset.difference.low) == pytest.approx((-1.0, -1.0))


def test_the_coding_of_a_factor_adds_up_to_zero():
    coding = EffectCoding(FACTORS)
    assert coding.size == 1 + 1 + 2 + 1 + 2 + 1 + 2
    average = sum(coding.mean(levels) for levels in ROWS.values()) / len(ROWS)
    assert average == pytest.approx(coding.mean({}))


def test_what_rounding_leaves_of_equal_rows_is_no_effect():
    rows = {row: {0: [mean([0.1, 0.7, 1 / 3])]} for row in ROWS}
    found = factorial_effects(
        compare(rows, metrics={"aa": "higher"}, baseline=BASELINE, resamples=20), ROWS, FACTORS
    )
    for each in [*found.mains["aa"], *found.interactions["aa"]]:
        assert (each.coded.value, each.coded.low, each.coded.high) == (0, 0, 0)


def test_one_seed_tells_nothing_of_the_seeds_that_are_needed():
    found = effects(seeds=(0,), noise=0.1)
    assert found.spread == {"aa": "there is one seed"}
    assert all(each.power is None for each in found.mains["aa"])


def test_the_predicted_width_at_the_measured_seeds_is_the_interval_s_own():
    """With many rows the pooled variance is near each difference's own."""
    found = effects(seeds=range(6), noise=0.3)
    for each in found.mains["aa"]:
        if each.difference:
            width = (each.difference.high - each.difference.low) / 2
            assert each.power.measured == 6 and each.power.freedom == 11 * 5
            assert each.power.half_width(6) == pytest.approx(width, rel=0.35)


def test_the_variance_of_seeds_is_recovered_from_simulated_trainings():
    """Rows vary by 0.1 with their training: the difference of two halves of 12 rows does by 2 * 0.1^2 / 6."""
    rng = np.random.default_rng(0)
    rows = {row: {seed: [mean(CLIPS + rng.normal(0, 0.1))] for seed in range(20)} for row in ROWS}
    found = factorial_effects(
        compare(rows, metrics={"aa": "higher"}, baseline=BASELINE, resamples=50), ROWS, FACTORS
    )
    power = main(found, "head", "onset").power
    assert power.seeds == pytest.approx(2 * 0.1**2 / 6, rel=0.2)
    assert power.clips == pytest.approx(0.0, abs=1e-12)  # all rows find the same clips hard
    assert power.seeds_for(0.1) == 3  # 2.8^2 * 0.0033 / 0.01 = 2.6


def test_clips_set_a_floor_that_no_number_of_seeds_goes_below():
    power = Power(measured=2, clips=0.01, seeds=0.01, freedom=3)
    assert power.half_width(10**9) == pytest.approx(0.196, abs=1e-3)
    assert power.seeds_for(0.28) is None and power.seeds_for(0.4) == 2
    assert power.seeds_for(0.0) is None
    low, high = power.range_for(0.3)
    assert low < power.seeds_for(0.3) < high
    assert power.smallest(power.seeds_for(0.3)) <= 0.3
