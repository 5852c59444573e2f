import math

import numpy as np
import pytest

from stav2a.metrics import bootstrap
from stav2a.metrics.alignment import aa_align
from stav2a.metrics.distribution import frechet_distance
from stav2a.metrics.score import MetricError


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        low, high = bootstrap.mean_interval(rng.exponential(size=60), resamples=400, seed=seed)
        covered += low < 1.0 < high
    assert 0.89 < covered / 300 < 0.98


def test_the_interval_equals_the_normal_one_for_many_clips():
    values = np.random.default_rng(1).normal(size=2000)
    low, high = bootstrap.mean_interval(values, resamples=4000)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_equal_seeds_give_equal_intervals():
    values = np.random.default_rng(2).normal(size=50)
    assert bootstrap.mean_interval(values, seed=3) == bootstrap.mean_interval(values, seed=3)
    assert bootstrap.mean_interval(values, seed=3) != bootstrap.mean_interval(values, seed=4)


def test_draws_in_parts_are_draws_all_the_same(monkeypatch):
    values = np.random.default_rng(2).normal(size=50)
    whole = bootstrap.mean_interval(values, resamples=500)
    monkeypatch.setattr(bootstrap, "_CELLS", 1000)
    assert bootstrap.mean_interval(values, resamples=500) == pytest.approx(whole)


def test_clips_without_a_value_are_left_out():
    low, high = bootstrap.mean_interval([0.2, math.nan, 0.4, math.nan])
    assert (low, high) == pytest.approx((0.2, 0.4))


@pytest.mark.parametrize("values", [[0.5], [math.nan, 0.5], [math.nan, math.nan]])
def test_one_clip_has_no_interval(values):
    assert np.isnan(bootstrap.mean_interval(values)).all()
    assert bootstrap.replicates(lambda clips: 0.0, 1).size == 0
    assert np.isnan(bootstrap.ends(bootstrap.centred([], 0.5))).all()


def test_the_interval_of_a_biased_statistic_lies_around_it():
    """Plain percentiles of a resampled FD lie wholly above FD."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 20)), rng.normal(size=(60, 20))

    def distance(clips):
        return frechet_distance(x[clips], y[clips])

    plain = np.quantile([distance(rng.integers(60, size=60)) for _ in range(100)], [0.025, 0.975])
    drawn = bootstrap.replicates(distance, 60, resamples=100)
    low, high = bootstrap.ends(bootstrap.centred(drawn, distance(np.arange(60))))
    assert plain[0] > distance(np.arange(60))
    assert low < distance(np.arange(60)) < high


def test_the_interval_of_a_statistic_covers_its_expectation():
    rng = np.random.default_rng(0)
    n, d = 40, 6

    def sample():
        return rng.normal(size=(n, d)) * 1.5 + 0.3, rng.normal(size=(n, d))

    expected = np.mean([frechet_distance(*sample()) for _ in range(400)])
    covered = 0
    for seed in range(60):
        x, y = sample()
        drawn = bootstrap.replicates(
            lambda c, x=x, y=y: frechet_distance(x[c], y[c]), n, resamples=60, seed=seed
        )
        low, high = bootstrap.ends(bootstrap.centred(drawn, frechet_distance(x, y)))
        covered += low < expected < high
    assert covered / 60 > 0.8


def test_replicates_of_different_models_are_of_the_same_draws():
    seen: list[list[list[int]]] = [[], []]
    for clips_seen in seen:
        bootstrap.replicates(lambda clips, kept=clips_seen: float(kept.append(clips.tolist()) or 0), 5)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 300
    assert bootstrap.replicates(lambda clips: clips[0], 50, seed=1)[0] != seen[0][0][0]


@pytest.mark.parametrize("n", [2, 3, 7, 50])
def test_no_clip_keeps_its_place_and_no_pair_comes_twice(n):
    shuffles = bootstrap.derangements(n, 10, seed=5)
    assert shuffles.shape == (min(10, n - 1), n)
    for shuffle in shuffles:
        assert sorted(shuffle) == list(range(n))
        assert (shuffle != np.arange(n)).all()
    pairs = {(i, j) for shuffle in shuffles for i, j in enumerate(shuffle)}
    assert len(pairs) == shuffles.size


def test_one_clip_has_no_chance_level():
    assert np.isnan(bootstrap.chance_levels(lambda i, j: 1.0, 1)).all()


def test_enough_shuffles_meet_every_other_clip():
    scores = np.random.default_rng(0).uniform(size=(6, 6))
    levels = bootstrap.chance_levels(lambda i, j: scores[i, j], 6, shuffles=99)
    expected = (scores.sum(axis=1) - np.diag(scores)) / 5
    assert levels == pytest.approx(expected)


def test_independent_onsets_score_their_chance_level():
    """What is unaligned comes out as 0, however dense its onsets are."""
    rng = np.random.default_rng(0)
    ours, theirs = ([np.sort(rng.uniform(0, 4, 26)) for _ in range(150)] for _ in range(2))
    values = np.array([aa_align(a, b) for a, b in zip(ours, theirs, strict=True)])
    levels = bootstrap.chance_levels(lambda i, j: aa_align(ours[i], theirs[j]), 150)
    assert values.mean() > 0.35
    corrected = bootstrap.corrected_for_chance(values, levels)
    assert corrected.low < 0 < corrected.high
    assert abs(corrected.value) < 0.05


def test_what_is_aligned_stays_one():
    rng = np.random.default_rng(0)
    onsets = [np.sort(rng.uniform(0, 4, 26)) for _ in range(40)]
    levels = bootstrap.chance_levels(lambda i, j: aa_align(onsets[i], onsets[j]), 40)
    assert bootstrap.corrected_for_chance(np.ones(40), levels) == pytest.approx((1.0, 1.0, 1.0))


def test_correction_by_hand():
    assert bootstrap.corrected_for_chance([0.6, 0.8, math.nan], [0.1, 0.2, 0.3]).value == pytest.approx(
        (0.7 - 0.2) / (1 - 0.2)
    )


def test_no_correction_where_chance_is_perfect():
    assert np.isnan(bootstrap.corrected_for_chance([1.0, 1.0], [1.0, 1.0])).all()


def test_wrong_input_is_told():
    with pytest.raises(MetricError, match="3 values and 2 chance levels"):
        bootstrap.corrected_for_chance([1.0, 1.0, 1.0], [0.5, 0.5])
    with pytest.raises(MetricError, match=r"the values were of shape \(0,\)"):
        bootstrap.mean_interval([])
