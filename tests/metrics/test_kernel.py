import numpy as np
import pytest

from stav2a.metrics.distribution import KernelDistance
from stav2a.metrics.score import MetricError


def kernel_distance(generated, reference):
    return KernelDistance(generated, reference)()


def test_two_clips_a_side_by_hand():
    """Real 0 and 1, generated 0 and 2, on a line. The width is 1, the one distance between the real ones.

    k(d) = exp(-d^2 / 2). Within: k(2) and k(1). Between: k(0), k(1), k(2), k(1).
    100 (k(2) + k(1) - (1 + 2 k(1) + k(2)) / 2) = 50 (k(2) - 1)
    """
    assert kernel_distance([[0.0], [2.0]], [[0.0], [1.0]]) == pytest.approx(50 * (np.exp(-2) - 1))


def test_equal_distributions_are_at_zero_however_few_the_clips():
    rng = np.random.default_rng(0)
    drawn = [kernel_distance(rng.normal(size=(8, 16)), rng.normal(size=(8, 16))) for _ in range(400)]
    assert abs(np.mean(drawn)) < 3 * np.std(drawn) / 20
    assert min(drawn) < 0 < kernel_distance(rng.normal(size=(8, 16)) + 2, rng.normal(size=(8, 16)))


def test_draws_of_clips_add_no_bias():
    rng = np.random.default_rng(1)
    distance = KernelDistance(rng.normal(size=(40, 4)) + 0.5, rng.normal(size=(40, 4)))
    draws = np.array([distance(rng.integers(40, size=40)) for _ in range(2000)])
    assert draws.mean() == pytest.approx(distance(), abs=4 * draws.std() / np.sqrt(2000))
    assert distance(np.arange(40)) == pytest.approx(distance(), rel=1e-12)
    assert np.isnan(distance(np.zeros(40, int)))


@pytest.mark.parametrize(
    ("generated", "reference", "told"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), r"embeddings of shapes \(2, 3\) and \(2, 4\)"),
        (np.ones((1, 3)), np.ones((1, 3)), "needs 2 clips or more; got 1"),
        (np.ones((3, 3)), np.ones((3, 3)), "needs real sounds that differ"),
    ],
)
def test_what_cannot_be_measured_is_refused(generated, reference, told):
    with pytest.raises(MetricError, match=told):
        kernel_distance(generated, reference)
