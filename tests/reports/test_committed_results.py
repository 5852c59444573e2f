"""The committed tables follow from the committed values of single clips."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from stav2a.experiments.ablation import planning, study

ABLATIONS = Path(__file__).parents[2] / "ablations"
RESULTS = ABLATIONS / "results"
STUDIES = {  # study and recipes over it; number of rows and of seeds, and the baseline
    "table3": (("table3",), 7, 5, "CN"),
    "table3_first": (("table3", "recipes/evaluation/first_report.gin"), 7, 5, "CN"),
    "table1": (("table1",), 9, 3, "STA-V2A"),
    "table1_first": (("table1", "recipes/evaluation/first_report.gin"), 9, 3, "STA-V2A"),
    "replication": (("replication",), 2, 10, "CN"),
    "onset_pretext_easy": (("onset_pretext", "recipes/levels/easy.gin"), 3, 3, "CN"),
    "onset_pretext_hard": (("onset_pretext", "recipes/levels/hard.gin"), 3, 3, "CN"),
    "windows": (("windows",), 4, 3, "1, 2, 4, 8"),
    "tokens": (("tokens",), 4, 3, "K = 4"),
    "poolers": (("poolers",), 6, 3, "attentive"),
    "local_heads": (("local_heads",), 4, 3, "linear"),
    "filter_threshold": (("filter_threshold",), 5, 3, "0.2"),
    "guidance": (("guidance",), 5, 3, "w = 2"),
    "steps": (("steps",), 4, 3, "10 steps"),
    "scheduler": (("scheduler",), 3, 3, "DDPM"),
    "text": (("text",), 4, 3, "CN+Onset+GVF"),
    "text_first": (("text", "recipes/evaluation/first_report.gin"), 4, 3, "CN+Onset+GVF"),
    "samplings": (("samplings",), 4, 5, "CN, three sounds"),
    "stability": (("stability",), 5, 3, "CN"),
}


class Committed(NamedTuple):
    table: pd.DataFrame
    clips: pd.DataFrame
    rows: int
    seeds: int
    baseline: str


@pytest.fixture(params=STUDIES)
def committed(request) -> Committed:
    name = request.param
    names = {"row": str, "baseline": str}  # some are numbers
    table, clips = (pd.read_csv(RESULTS / f"{name}_laptop{end}.csv", dtype=names) for end in ("", "_clips"))
    return Committed(table, clips, *STUDIES[name][1:])


def test_every_figure_is_the_mean_over_seeds_of_its_clips(committed):
    table, clips, rows, count, _ = committed
    names = set(table["metric"])
    assert names == set(clips.columns[3:]) and len(table) == rows * len(names)
    for line in table.itertuples():
        # of the whole set: one value
        seeds = clips[clips["row"] == line.row].groupby("seed")[line.metric].mean()
        assert len(seeds) == count
        assert seeds.mean() == pytest.approx(line.value, rel=1e-9), (line.row, line.metric)


def test_every_difference_is_that_of_two_figures(committed):
    table, _, rows, _, baseline = committed
    values = table.set_index(["row", "metric"])["value"]
    compared = table[table["difference"].notna()]
    assert set(compared["baseline"]) == {baseline}
    assert len(compared) == (rows - 1) * table["metric"].nunique()
    for line in compared.itertuples():
        paired = values[line.row, line.metric] - values[baseline, line.metric]
        assert line.difference == pytest.approx(paired, rel=1e-6, abs=1e-9)


def test_several_samplings_of_the_trainings_are_those_of_the_table():
    table, more = (
        pd.read_csv(RESULTS / f"{name}_laptop_clips.csv") for name in ("table3_first", "samplings_first")
    )
    first = more[more["sampling"] == 0].merge(table, on=["row", "seed", "clip"], suffixes=("", "_of_table"))
    assert len(first) == 2 * 5 * (128 + 1)  # the clips, and FD of them all
    for metric in ("aa_align", "class_accuracy_vague", "fd"):
        # these sounds were not rounded to a file's 16 bits, which FD sees
        assert (first[metric] - first[f"{metric}_of_table"]).abs().max() < (2e-3 if metric == "fd" else 1e-5)
    means = more.groupby(["row", "seed", "sampling"])["aa_align"].mean().unstack("row")
    difference = (means["CN+Onset"] - means["CN"]).unstack("sampling")
    assert difference.mean(axis=None) == pytest.approx(0.0175, abs=5e-5)
    # the spread of one sampling's and of three samplings' means over the trainings, docs/ablation.md
    assert difference.mean(axis=1).var() / difference.var().mean() == pytest.approx(0.42, abs=0.01)


@pytest.mark.slow
def test_the_figures_are_not_older_than_what_makes_the_sounds(tmp_path):
    """If this fails, data, stages or sampling have changed since the study was run: run it again."""
    for name, ((file, *overlay), *_) in STUDIES.items():
        runs = pd.read_csv(RESULTS / f"{name}_laptop_runs.csv", dtype=str)
        seeds = sorted({int(seed) for seed in runs["seed"]})
        loaded = study.load(ABLATIONS / f"{file}.gin", overlay, seeds=seeds)
        runs_today = planning.plan(loaded, tmp_path).runs
        today = {(run.row.name, str(run.seed)): run.sounds_key for run in runs_today}
        assert today == {(run.row, run.seed): run.sounds_key for run in runs.itertuples()}, name
