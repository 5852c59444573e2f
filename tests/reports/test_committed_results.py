"""The committed table follows from the committed values of single clips."""

from pathlib import Path

import pandas as pd
import pytest

RESULTS = Path(__file__).parents[2] / "ablations" / "results"


@pytest.fixture(scope="module")
def clips() -> pd.DataFrame:
    return pd.read_csv(RESULTS / "table3_laptop_clips.csv")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(RESULTS / "table3_laptop.csv")


def test_every_figure_is_the_mean_over_seeds_of_its_clips(table, clips):
    names = set(table["metric"])
    assert names == set(clips.columns[3:]) and len(table) == 7 * len(names)
    for line in table.itertuples():
        seeds = (
            clips[clips["row"] == line.row].groupby("seed")[line.metric].mean()
        )  # of the whole set: one value
        assert len(seeds) == 3
        assert seeds.mean() == pytest.approx(line.value, rel=1e-9), (line.row, line.metric)


def test_every_difference_is_that_of_two_figures(table):
    values = table.set_index(["row", "metric"])["value"]
    compared = table[table["difference"].notna()]
    assert set(compared["baseline"]) == {"CN"} and len(compared) == 6 * table["metric"].nunique()
    for line in compared.itertuples():
        paired = values[line.row, line.metric] - values["CN", line.metric]
        assert line.difference == pytest.approx(paired, rel=1e-6, abs=1e-9)
