import numpy as np
import pytest

from stav2a.evaluation.comparison import compare, estimate, over_seeds
from tests.evaluation.compared import mean


def test_the_spread_over_seeds_is_the_textbook_standard_error():
    """No clip differs from another, so that seeds alone make the interval."""
    values = np.array([0.1, 0.4, 0.7, 0.5])
    drawn = over_seeds(np.repeat(values[:, None], 40_000, axis=1))
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.002)
    assert drawn.std() == pytest.approx(values.std(ddof=1) / np.sqrt(4), rel=0.02)


def test_two_seeds_by_hand():
    """Drawn twice the first, twice the second, or both: 1/4, 1/4, 1/2; stretched by the root of 2."""
    drawn = over_seeds(np.tile([[0.0], [1.0]], 4000))
    low, high = 0.5 - 0.5 * np.sqrt(2), 0.5 + 0.5 * np.sqrt(2)
    assert sorted(set(drawn.round(9))) == pytest.approx([low, 0.5, high])
    assert (drawn == 0.5).mean() == pytest.approx(0.5, abs=0.03)


def test_one_seed_has_the_spread_of_its_clips():
    draws = np.random.default_rng(0).normal(size=(1, 100))
    assert over_seeds(draws).tolist() == draws[0].tolist()


def test_seeds_and_clips_are_drawn_independently():
    """Two independent parts: their variances add up."""
    rng = np.random.default_rng(0)
    clips, seeds = rng.normal(0, 0.1, 20_000), np.array([[0.1], [0.2], [0.6]])
    variance = seeds.var(ddof=1) / 3 + 0.1**2
    assert over_seeds(seeds + clips).var() == pytest.approx(variance, rel=0.05)


def test_the_same_seed_draws_the_same():
    draws = np.random.default_rng(0).normal(size=(3, 50))
    assert over_seeds(draws, 1).tolist() == over_seeds(draws, 1).tolist()
    assert over_seeds(draws, 1).tolist() != over_seeds(draws, 2).tolist()


def test_without_draws_there_is_no_interval():
    found = estimate({0: 0.5, 1: 1.0}, None)
    assert (found.value, found.low, found.high) == (0.75, None, None)


def test_a_difference_is_of_the_seeds_that_both_sides_have():
    def row(values):
        return {seed: [mean([value, value])] for seed, value in values.items()}

    rows = {"CN": row({1: 0.25, 2: 9.0}), "CN+": row({0: 0.5, 1: 0.75})}
    found = compare(rows, metrics={"aa": "higher"}, baseline="CN").to_baseline["CN+", "aa"]
    assert (found.by_seed, found.low, found.high) == ({1: 0.5}, 0.5, 0.5)
