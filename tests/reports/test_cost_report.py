"""Costs of a study's rows: their table, and the rows in the plane of two metrics."""

import io

import numpy as np
import pytest
from PIL import Image

from stav2a.evaluation.comparison import compare
from stav2a.reports.comparison_tables import TRAINING, comparison_document, cost_table
from stav2a.reports.pages import plane_picture
from stav2a.reports.tables import NOTHING
from tests.evaluation.compared import mean

COSTS = {
    "cheap": {"parameters": 5_700_000, TRAINING: 40.0, "seconds_per_sound": 0.25},
    "dear": {"parameters": 6_500_000, TRAINING: 160.0, "flops_per_step": 3.21e9},
}


@pytest.fixture(scope="module")
def compared():
    values = np.random.default_rng(0).normal(0.5, 0.1, 20)
    rows = {"cheap": {0: [mean(values)]}, "dear": {0: [mean(values + 0.1)]}}
    return compare(rows, metrics={"aa": "higher"}, baseline="cheap", resamples=50)


def test_costs_stand_under_the_differences_with_dashes_for_what_is_unknown(compared):
    text = comparison_document(compared, costs=COSTS).text()
    assert text.index("Differences to cheap") < text.index("Cost\n")
    table = cost_table(["cheap", "dear"], COSTS)
    assert table.titles == ["parameters, M", "training, s", "GFLOP a step", "s a sound"]
    figures = {row: [cell.figure for cell in cells] for row, cells in table.rows()}
    assert figures == {
        "cheap": ["5.700", "40.00", NOTHING, "0.250"],
        "dear": ["6.500", "160.00", "3.210", NOTHING],
    }
    assert "Cost" not in comparison_document(compared).text()


def test_a_dearer_row_has_a_larger_dot(compared):
    def inked(costs):
        picture = plane_picture(compared, ("aa", "aa"), costs)
        assert picture is not None and "AA-Align of cheap, dear" in picture.label
        return (np.asarray(Image.open(io.BytesIO(picture.content)))[..., 3] > 0).sum()

    equal = {"cheap": {TRAINING: 160.0}, "dear": {TRAINING: 160.0}}
    assert inked(COSTS) < inked(equal)


def test_without_a_plane_or_its_metrics_there_is_no_picture(compared):
    assert plane_picture(compared, (), COSTS) is None
    assert plane_picture(compared, ("aa", "fd"), COSTS) is None
