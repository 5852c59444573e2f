"""The committed tables follow from the committed values of single clips."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

RESULTS = Path(__file__).parents[2] / "ablations" / "results"
STUDIES = {"table3": (7, "CN"), "table1": (8, "STA-V2A")}  # number of rows, and the baseline


class Committed(NamedTuple):
    table: pd.DataFrame
    clips: pd.DataFrame
    rows: int
    baseline: str


@pytest.fixture(params=STUDIES)
def committed(request) -> Committed:
    name = request.param
    table, clips = (pd.read_csv(RESULTS / f"{name}_laptop{end}.csv") for end in ("", "_clips"))
    return Committed(table, clips, *STUDIES[name])


def test_every_figure_is_the_mean_over_seeds_of_its_clips(committed):
    table, clips, rows, _ = committed
    names = set(table["metric"])
    assert names == set(clips.columns[3:]) and len(table) == rows * len(names)
    for line in table.itertuples():
        # of the whole set: one value
        seeds = clips[clips["row"] == line.row].groupby("seed")[line.metric].mean()
        assert len(seeds) == 3
        assert seeds.mean() == pytest.approx(line.value, rel=1e-9), (line.row, line.metric)


def test_every_difference_is_that_of_two_figures(committed):
    table, _, rows, baseline = committed
    values = table.set_index(["row", "metric"])["value"]
    compared = table[table["difference"].notna()]
    assert set(compared["baseline"]) == {baseline}
    assert len(compared) == (rows - 1) * table["metric"].nunique()
    for line in compared.itertuples():
        paired = values[line.row, line.metric] - values[baseline, line.metric]
        assert line.difference == pytest.approx(paired, rel=1e-6, abs=1e-9)
