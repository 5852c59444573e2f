"""Intervals and agreement, against figures made by hand, published ones, and simulation."""

import numpy as np
import pytest

from stav2a.listening.analysis import cluster_draws, krippendorff_alpha, t_half_width
from stav2a.metrics import bootstrap

NAN = float("nan")


def test_the_t_interval_by_hand():
    # n = 4, mean 70, s² = (100 + 0 + 0 + 100) / 3, t(0.975, 3) = 3.1824: 3.1824 · 8.1650 / 2
    assert t_half_width(np.array([60.0, 70.0, 70.0, 80.0])) == pytest.approx(12.9923, abs=1e-3)


def test_one_rating_has_no_t_interval():
    assert np.isnan(t_half_width(np.array([70.0])))


def test_draws_of_two_annotators_and_two_clips_by_hand():
    # Annotators give 0 and 10 whatever the clip: a draw has none, one or two of the second, 1 : 2 : 1.
    ratings = np.array([[[0.0], [0.0]], [[10.0], [10.0]]])
    draws = cluster_draws(ratings, resamples=20_000)[:, 0]
    assert set(np.unique(draws)) == {0.0, 5.0, 10.0}
    assert [np.mean(draws == value) for value in (0, 5, 10)] == pytest.approx([0.25, 0.5, 0.25], abs=0.015)


def test_annotators_and_clips_are_drawn_apart():
    # Additive levels: the variance of a draw's mean is that of annotators plus that of clips, σ²/n each.
    ratings = (np.array([0.0, 6.0])[:, None] + np.array([0.0, 3.0, 9.0])[None, :])[..., None]
    draws = cluster_draws(ratings, resamples=40_000)[:, 0]
    assert draws.var() == pytest.approx(9 / 2 + 14 / 3, rel=0.03)
    assert draws.mean() == pytest.approx(3 + 4, abs=0.05)


def test_one_annotator_and_one_clip_are_not_drawn():
    one = np.array([[[40.0], [60.0]]])
    assert set(np.unique(cluster_draws(one, resamples=500))) == {40.0, 50.0, 60.0}
    assert np.unique(cluster_draws(one[:, :1], resamples=500)).tolist() == [40.0]


def test_what_is_not_rated_weighs_nothing():
    # The second annotator knows the second clip alone; the mean of all ratings is 30, not that of means.
    ratings = np.array([[[10.0], [20.0]], [[NAN], [60.0]]])
    draws = cluster_draws(ratings, resamples=4000)[:, 0]
    assert np.isnan(draws).any()  # the second annotator twice, and the first clip twice
    assert set(np.unique(draws[np.isfinite(draws)])) <= {10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 100 / 3, 35.0}


def test_columns_share_their_draws():
    first = np.random.default_rng(0).uniform(1, 100, (4, 5))
    draws = cluster_draws(np.stack([first, first + 7], axis=-1), resamples=100)
    assert draws[:, 1] - draws[:, 0] == pytest.approx(np.full(100, 7.0))


def test_the_same_seed_draws_the_same():
    ratings = np.random.default_rng(0).uniform(1, 100, (3, 4, 2))
    assert np.array_equal(cluster_draws(ratings, resamples=50), cluster_draws(ratings, resamples=50))
    assert not np.array_equal(
        cluster_draws(ratings, resamples=50), cluster_draws(ratings, resamples=50, seed=1)
    )


def test_alpha_by_hand():
    # Units (10, 20) and (30, 30): D_o = (100 + 100) / 4 = 50. Among 10 20 30 30 the squared differences of
    # pairs are 100 400 400 100 100 0, twice 1100 over 4 · 3: D_e = 183.33. α = 1 - 50 / 183.33.
    assert krippendorff_alpha(np.array([[10.0, 30.0], [20.0, 30.0]])) == pytest.approx(1 - 50 / (2200 / 12))


def test_alpha_of_the_published_example():
    # Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), example with 4 observers and 12
    # units: 0.849 for interval data.
    observers = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
            [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
        ]
    )
    assert krippendorff_alpha(observers) == pytest.approx(0.849, abs=5e-4)


def test_alpha_is_not_known_without_pairs_or_without_differences():
    assert np.isnan(krippendorff_alpha(np.array([[10.0, 20.0]])))
    assert np.isnan(krippendorff_alpha(np.array([[10.0, NAN], [NAN, 20.0]])))
    assert np.isnan(krippendorff_alpha(np.full((2, 3), 50.0)))


def test_alpha_of_noise_is_near_zero():
    noise = np.random.default_rng(0).uniform(1, 100, (6, 400))
    assert abs(krippendorff_alpha(noise)) < 0.05


@pytest.mark.slow
def test_clusters_hold_the_truth_where_t_does_not():
    rng = np.random.default_rng(1)
    held = np.zeros(2)
    for trial in range(200):
        levels = 5 * rng.normal(size=(6, 1)) + 5 * rng.normal(size=(1, 20))
        ratings = levels + 10 * rng.normal(size=(6, 20))
        low, high = bootstrap.ends(cluster_draws(ratings[..., None], resamples=500, seed=trial)[:, 0])
        held += [low < 0 < high, abs(ratings.mean()) < t_half_width(ratings.ravel())]
    assert held[0] / 200 > 0.88
    assert held[1] / 200 < 0.75
