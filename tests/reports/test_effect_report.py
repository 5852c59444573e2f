"""Tables, notes, figures and page of a study of factors."""

import csv
import io
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from stav2a.evaluation.comparison import compare
from stav2a.evaluation.factorial import Power, factorial_effects
from stav2a.reports.comparison_tables import comparison_document
from stav2a.reports.effect_tables import EFFECT_COLUMNS, effect_notes, effect_tables, effects_csv
from stav2a.reports.pages import write_page
from tests.evaluation.compared import mean
from tests.reports.test_report import Reader

FACTORS = {"local head": ["linear", "onset"], "pooler": ["none", "mean", "attentive"]}
ROWS = {" + ".join(levels): dict(zip(FACTORS, levels, strict=True)) for levels in product(*FACTORS.values())}
REFUSED = {"onset + mean": "there is no such thing. Write another."}


def compared(seeds: int):
    rng = np.random.default_rng(0)
    hard = rng.normal(0.5, 0.2, 40)
    rows = {}
    for row, levels in ROWS.items():
        level = 0.1 * (levels["local head"] == "onset") - 0.2 * (levels["pooler"] == "none")
        rows[row] = {
            seed: [mean(hard + level + rng.normal(0, 0.02) + rng.normal(0, 0.05, 40))]
            for seed in range(seeds)
            if row not in REFUSED
        }
    del rows["onset + mean"]
    both = compare(rows, metrics={"aa": "higher"}, baseline="linear + none", resamples=200)
    return both, factorial_effects(both, ROWS, FACTORS)


@pytest.fixture(scope="module")
def two_seeds():
    return compared(2)


def document(both, effects):
    return comparison_document(both, effect_tables(both, effects), effect_notes(both, effects, REFUSED))


def test_the_effects_stand_above_the_rows_and_refusals_below(two_seeds):
    text = document(*two_seeds).text()
    titles = ["Main effects", "Interactions", "Seeds that differences need", "Smallest difference found"]
    places = [text.index(f"{title}\n") for title in [*titles, "Metrics", "How to read them:"]]
    assert places == sorted(places)
    assert "local head: onset − linear  +0.093 [" in text
    assert "pooler: attentive − none    +0.215 [" in text
    assert "local head onset × pooler attentive  " in text
    assert "Refused:\n  - onset + mean: there is no such thing. Write another.\n" in text
    assert "local head × pooler: no row with scores has onset with mean." in " ".join(text.split())
    assert "(4 degrees of freedom)" in " ".join(text.split())  # five rows, two seeds


def test_an_effect_that_needs_an_assumption_names_it(two_seeds):
    notes = " ".join(document(*two_seeds).text().split())
    assert (
        "local head: onset − linear, pooler: mean − none: the interactions of local head × pooler are taken "
        "to be zero, because the rows can't tell them." in notes
    ), "attentive − none is measured with either head"


def test_one_seed_has_effects_and_says_why_seeds_can_not_be_counted():
    text = document(*compared(1)).text()
    assert "Main effects\n" in text and "Seeds that differences need" not in text
    told = "AA-Align: the seeds that a difference needs can't be estimated, because there is one seed."
    assert told in " ".join(text.split())


def test_the_seeds_that_differences_need_are_numbers_or_say_what_is_needed_instead(two_seeds):
    both, effects = two_seeds
    power = Power(measured=2, clips=0.0001, seeds=0.001, freedom=4)
    mains = [
        replace(each, difference=replace(each.difference, value=value), power=power)
        for each, value in zip(
            [each for each in effects.mains["aa"] if not each.is_baseline],
            (0.1, 0.02, 0.02802),
            strict=True,
        )
    ]
    equal = replace(mains[0], difference=replace(mains[0].difference, value=0.0))
    shown = replace(effects, mains={"aa": mains}, interactions={"aa": [equal]})
    table = effect_tables(both, shown)[2]
    cells = [cells for _, cells in table.rows()]
    assert [cell.figure for cell, _ in cells] == ["2", "more clips", "> 1000", "–"]
    assert cells[0][0].interval == "[2, 4]"  # 4 of 4 * 0.001 / 1.064 / (0.1^2 / 2.8^2 - 0.0001)
    assert [half.figure for _, half in cells] == ["0.037"] * 4  # 1.96 * sqrt(0.0001 + 0.001 / 4)


def test_the_csv_has_every_level_and_pair_with_all_figures(two_seeds):
    lines = list(csv.DictReader(io.StringIO(effects_csv(*two_seeds))))
    assert tuple(lines[0]) == EFFECT_COLUMNS and len(lines) == 5 + 6
    onset = next(line for line in lines if line["level"] == "onset" and not line["other_level"])
    assert (onset["factor"], onset["against"], onset["assumed_zero"]) == (
        "local head", "linear", "local head × pooler"
    )  # fmt: skip
    assert float(onset["difference"]) == pytest.approx(2 * float(onset["effect"]))
    assert float(onset["half_width_twice_the_seeds"]) < float(onset["half_width"])
    assert int(onset["seeds_needed_low"]) <= int(onset["seeds_needed"]) <= int(onset["seeds_needed_high"])
    linear = next(line for line in lines if line["level"] == "linear")
    assert linear["difference"] == linear["seeds_needed"] == ""
    gap = next(line for line in lines if (line["level"], line["other_level"]) == ("onset", "mean"))
    assert gap["mean"] == gap["difference"] == ""


def test_the_page_draws_main_effects_and_interactions(two_seeds, tmp_path):
    both, effects = two_seeds
    page = write_page(tmp_path / "p.html", document(*two_seeds), title="x", comparison=both, effects=effects)
    pictures = [str(image["alt"]) for image in Reader(page.read_text(encoding="utf-8")).all("img")]
    assert pictures[0].startswith("Main effects on AA-Align: local head: onset − linear +0.093")
    assert pictures[1].startswith("Interactions on AA-Align: ")
    assert pictures[2].startswith("AA-Align by row: ")


def test_a_study_of_rows_has_no_section_of_effects(two_seeds, tmp_path):
    both, _ = two_seeds
    page = write_page(tmp_path / "p.html", comparison_document(both), title="x", comparison=both)
    assert "Main effects" not in page.read_text(encoding="utf-8")
