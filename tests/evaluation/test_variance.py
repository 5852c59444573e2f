"""Parts of the variance, against a simulation that has known ones."""

import numpy as np
import pytest

from stav2a.evaluation.comparison import compare
from stav2a.evaluation.variance import parts_of_differences, parts_of_figures, variance_parts
from stav2a.metrics import bootstrap
from stav2a.reports.comparison_tables import comparison_document
from tests.evaluation.compared import mean


def scores(rng, seeds=40, clips=200, training=0.05, clip=0.3, both=0.2, shared=None):
    """Figures of single clips (S, N) with parts of known deviation."""
    shared = clip * rng.normal(size=clips) if shared is None else shared
    return training * rng.normal(size=(seeds, 1)) + shared + both * rng.normal(size=(seeds, clips))


def test_each_part_of_a_simulation_is_found():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(10):
        values = scores(rng)
        draws = bootstrap.resampled_means(list(values), 1000, 0)
        found.append(variance_parts(dict(enumerate(draws)), dict(enumerate(values.mean(axis=1)))).deviations)
    expected = 0.05, 0.3 / 200**0.5, 0.2 / 200**0.5
    assert np.mean(found, axis=0) == pytest.approx(expected, rel=0.1)


def test_pairs_take_out_what_clips_do_to_both_rows():
    rng = np.random.default_rng(1)
    clip = 0.3 * rng.normal(size=100)
    rows = {
        name: {seed: [mean(list(values))] for seed, values in enumerate(scores(rng, 5, 100, shared=clip))}
        for name in ("CN", "CN+Onset")
    }
    both = compare(rows, metrics={"aa": "higher"}, baseline="CN")
    figures, differences = parts_of_figures(both, "aa"), parts_of_differences(both, "aa")
    assert figures is not None and differences is not None
    assert figures.deviations[1] == pytest.approx(0.03, rel=0.3)
    assert differences.deviations[1] < 0.01
    text = comparison_document(both).text()
    assert "Parts of the variance" in text and "difference: trainings" in " ".join(text.split())


def test_one_seed_has_no_parts():
    rows = {name: {0: [mean([0.1, 0.5, value])]} for name, value in (("CN", 0.2), ("CN+Onset", 0.4))}
    both = compare(rows, metrics={"aa": "higher"}, baseline="CN")
    assert parts_of_figures(both, "aa") is None and parts_of_differences(both, "aa") is None
    assert "Parts of the variance" not in comparison_document(both).text()
    with pytest.raises(ValueError, match="two seeds or more"):
        variance_parts({0: np.zeros(3)}, {0: 0.0})
