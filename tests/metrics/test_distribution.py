import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torchmetrics import KLDivergence
from torchmetrics.image.fid import _compute_fid

from stav2a.metrics.distribution import (
    FrechetStatistic,
    frechet_distance,
    frechet_floor,
    inception_score,
    kl_divergences,
)
from stav2a.metrics.score import MetricError
from stav2a.metrics.semantic import class_hits


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def torchmetrics_fd(x, y):
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    return float(_compute_fid(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T)))


@pytest.mark.parametrize(("n", "m"), [(200, 300), (12, 300), (300, 12)])
def test_frechet_equals_torchmetrics(rng, n, m):
    x, y = rng.normal(size=(n, 8)) @ rng.normal(size=(8, 8)), 0.5 + rng.normal(size=(m, 8))
    assert frechet_distance(x, y) == pytest.approx(torchmetrics_fd(x, y), rel=1e-9)


def test_frechet_of_fewer_clips_than_dimensions(rng):
    """Padding with zeros adds dimensions but no distance: 6 clips in 4 dimensions, and in 40."""
    x, y = rng.normal(size=(6, 4)), 1 + 2 * rng.normal(size=(7, 4))
    turn = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    wide = [np.pad(each, ((0, 0), (0, 36))) @ turn for each in (x, y)]
    assert frechet_distance(*wide) == pytest.approx(frechet_distance(x, y), rel=1e-9)
    assert frechet_distance(x, y) == pytest.approx(torchmetrics_fd(x, y), rel=1e-9)


def test_frechet_of_rank_one_by_hand():
    """Along unit vectors u, v: tr sqrt(s u u^T t v v^T) = sqrt(s t) |u.v|.

    x = +-1 along (1, 0): variance 2. y = (0, 3) +- 2 along (0.6, 0.8): variance 8.
    FD = 9 + 2 + 8 - 2 sqrt(16) * 0.6 = 14.2
    """
    x = np.array([[1.0, 0.0], [-1.0, 0.0]])
    y = np.array([[1.2, 4.6], [-1.2, 1.4]])
    assert frechet_distance(x, y) == pytest.approx(14.2, rel=1e-12)


def test_frechet_of_one_dimension_by_hand():
    """(mean difference)^2 + (deviation difference)^2, ddof 1: (1 - 3)^2 + (sqrt 2 - sqrt 8)^2 = 6."""
    assert frechet_distance([[0.0], [2.0]], [[1.0], [5.0]]) == pytest.approx(6.0)


def test_frechet_is_symmetric_and_zero_for_equals(rng):
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(20, 5))
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-12)
    assert 0 <= frechet_distance(x, x) < 1e-12
    assert frechet_distance(x, x + 3) == pytest.approx(5 * 9)


@pytest.mark.parametrize(
    ("n", "windows", "d"), [(128, 1, 64), (127, 1, 64), (20, 1, 50), (30, 4, 50), (3, 1, 2), (2, 3, 2)]
)
@pytest.mark.parametrize("dead", [False, True])
def test_drawn_clips_have_the_distance_of_their_rows(rng, n, windows, d, dead):
    """In both forms, also with columns that are zero, or that one clip alone has."""
    x, y = np.exp(-8 * np.arange(d) / d) * rng.normal(size=(2, n, windows, d))
    x, y = [each[: max(1, windows - i % 3)] for i, each in enumerate(x)], 0.5 * y + 0.1
    if dead:
        y[:, :, :1] = x[0][:, 0] = x[1][:, 0] = 0.0
        y[1:, :, 1] = 0.0
    distance = FrechetStatistic(x, y)
    for _ in range(10):
        clips = rng.integers(n, size=n)
        rows = [np.concatenate([side[i] for i in clips]) for side in (x, y)]
        assert distance(clips) == pytest.approx(frechet_distance(*rows), rel=1e-9, abs=1e-14)


def test_all_clips_once_have_the_distance_to_the_bit(rng):
    x, y = rng.normal(size=(2, 40, 3, 5))
    whole = frechet_distance(x.reshape(-1, 5), y.reshape(-1, 5))
    assert FrechetStatistic(list(x), list(y))(np.arange(40)) == whole


def test_drawn_clips_are_refused_as_their_rows_are():
    with pytest.raises(MetricError, match="needs 2 clips or more a side; got 1 and 1"):
        FrechetStatistic([np.ones((1, 3))], [np.ones((1, 3))])(np.arange(1))
    with pytest.raises(MetricError, match="widths 3 and 4 can't be compared"):
        FrechetStatistic(np.ones((5, 1, 3)), np.ones((5, 1, 4)))(np.arange(5))
    with pytest.raises(MetricError, match="reference embeddings are not all finite: row 1 is not"):
        FrechetStatistic(np.ones((2, 1, 1)), [np.ones((1, 1)), np.array([[np.inf]])])


@pytest.mark.parametrize(("n", "d"), [(200, 8), (128, 64), (60, 100), (50, 128), (200, 128), (1000, 128)])
def test_the_floor_is_what_equal_distributions_reach(rng, n, d):
    """Against fresh pairs of samples; the floor sees one sample alone."""
    mix = rng.normal(size=(d, d)) / np.sqrt(d)

    def sample():
        return np.maximum(rng.normal(size=(n, d)) @ mix, 0)

    fresh = np.mean([frechet_distance(sample(), sample()) for _ in range(20)])
    seen = np.mean([frechet_floor(sample(), n) for _ in range(4)])
    assert seen == pytest.approx(fresh, rel=0.25)


def test_the_floor_of_a_few_of_many_clips_needs_no_extrapolation(rng):
    many = rng.normal(size=(2000, 5))
    fresh = np.mean([frechet_distance(*rng.normal(size=(2, 50, 5))) for _ in range(100)])
    assert frechet_floor(many, 50, draws=100) == pytest.approx(fresh, rel=0.1)
    assert frechet_floor(np.ones((40, 3)), 40) == 0
    with pytest.raises(MetricError, match="needs 8 real clips or more; got 7"):
        frechet_floor(np.ones((7, 3)), 7)


def test_frechet_refuses_what_it_cannot_measure(rng):
    with pytest.raises(MetricError, match="needs 2 clips or more a side; got 1 and 4"):
        frechet_distance(np.ones((1, 3)), np.ones((4, 3)))
    with pytest.raises(MetricError, match="widths 3 and 4 can't be compared"):
        frechet_distance(np.ones((5, 3)), np.ones((5, 4)))
    with pytest.raises(MetricError, match="generated embeddings are not all finite: row 1 is not"):
        frechet_distance(np.array([[0.0], [np.inf]]), np.ones((5, 1)))


def test_kl_by_hand_in_both_directions():
    """p = (3/4, 1/4) real, q = (1/2, 1/2) generated."""
    p, q = [[np.log(3), 0.0]], [[0.0, 0.0]]
    assert kl_divergences(q, p) == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert kl_divergences(p, q) == pytest.approx(0.5 * np.log(2 / 3) + 0.5 * np.log(2))


def test_kl_eps_is_added_to_the_generated_side():
    """p = (1, e^-60), q = (e^-60, 1): KL is 60 exactly, and -log(1e-6 + e^-60) = 13.8155 as released."""
    p, q = [[60.0, 0.0]], [[0.0, 60.0]]
    assert kl_divergences(q, p)[0] == pytest.approx(60.0)
    assert kl_divergences(q, p, eps=1e-6)[0] == pytest.approx(-np.log(1e-6), abs=1e-6)


def test_kl_equals_torchmetrics(rng):
    ours, real = rng.normal(size=(50, 7)), 3 * rng.normal(size=(50, 7))
    theirs = KLDivergence(log_prob=True)(
        torch.as_tensor(log_softmax(real, axis=1)), torch.as_tensor(log_softmax(ours, axis=1))
    )
    assert kl_divergences(ours, real).mean() == pytest.approx(float(theirs), rel=1e-6)


def test_kl_is_zero_for_equals_and_survives_extremes(rng):
    logits = rng.normal(size=(20, 5))
    assert kl_divergences(logits, logits) == pytest.approx(np.zeros(20), abs=1e-12)
    assert np.isfinite(kl_divergences(np.array([[1e4, 0.0]]), np.array([[0.0, 1e4]]))).all()
    assert (kl_divergences(logits, rng.normal(size=(20, 5))) >= 0).all()


def test_kl_refuses_unpaired_logits():
    with pytest.raises(MetricError, match=r"logits of shapes \(2, 3\) and \(4, 3\) don't pair up"):
        kl_divergences(np.zeros((2, 3)), np.zeros((4, 3)))


def test_inception_score_of_sure_and_varied_sounds_is_the_number_of_classes():
    """Any split of two clips of different classes scores 2; one split of all classes alike scores 5."""
    logits = 1e3 * np.tile(np.eye(5), (8, 1))
    assert inception_score(logits, splits=1) == pytest.approx((5.0, 0.0))


def test_inception_score_by_hand_in_two_splits():
    """RandomState(2020) makes the splits (2, 1) and (3, 0).

    Clips 0 and 1 are of class A for sure, 2 and 3 of class B: both splits hold one of each, the mean is
    (1/2, 1/2), each KL is log 2, each score 2, the deviation 0. Of classes A, B, B, A each split holds one
    class alone, and scores 1.
    """
    assert np.random.RandomState(2020).permutation(4).tolist() == [2, 1, 3, 0]
    sure = 1e3 * np.eye(2)
    assert inception_score(sure[[0, 0, 1, 1]], splits=2) == pytest.approx((2.0, 0.0))
    assert inception_score(sure[[0, 1, 1, 0]], splits=2) == pytest.approx((1.0, 0.0))


def test_inception_score_of_the_same_sound_again_and_again_is_one(rng):
    assert inception_score(np.tile(rng.normal(size=(1, 5)), (40, 1))) == pytest.approx((1.0, 0.0))
    assert inception_score(np.zeros((40, 5))) == pytest.approx((1.0, 0.0))


def test_inception_score_splits_as_released(rng):
    logits = rng.normal(size=(47, 6)) * 4
    p = torch.softmax(torch.as_tensor(logits), 1).numpy()[np.random.RandomState(2020).permutation(47)]
    scores = []
    for i in range(10):
        part = p[i * 47 // 10 : (i + 1) * 47 // 10]
        kl = (part * (np.log(part) - np.log(part.mean(0)))).sum(1).mean()
        scores.append(np.exp(kl))
    assert inception_score(logits) == pytest.approx((np.mean(scores), np.std(scores)))


def test_inception_score_needs_twenty_clips():
    assert inception_score(np.zeros((20, 3))).mean == 1.0
    with pytest.raises(MetricError, match="in 10 splits needs 20 clips or more; got 19"):
        inception_score(np.zeros((19, 3)))


def test_class_hits():
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [5.0, 5.0]])
    assert class_hits(logits, [0, 0, 0]).tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(MetricError, match="labels from 0 to 2, but the classifier has classes 0 to 1"):
        class_hits(logits, [0, 1, 2])
    with pytest.raises(MetricError, match="Give one label a clip"):
        class_hits(logits, [0, 1])
