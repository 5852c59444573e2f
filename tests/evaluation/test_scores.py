import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest

from stav2a.evaluation.comparison import compare
from stav2a.evaluation.scores import clips_csv, evaluate, from_json, mean_of_samplings, to_json
from stav2a.metrics.bootstrap import chance_levels, corrected_for_chance, mean_interval, replicates
from stav2a.metrics.reporter import MetricReporter
from stav2a.metrics.score import FLOOR, ArraySounds, EvaluationSet, MetricError, Score
from stav2a.reports.comparison_tables import comparison_document, scores_document
from tests.evaluation.compared import mean, study

FULL = Score(
    name="aa_align",
    label="AA-Align",
    definition="onsets matched",
    higher_is_better=True,
    judge="SuperFlux",
    value=2 / 3,
    n=2,
    low=0.25,
    high=0.9,
    draws=2000,
    chance=0.1,
    others=3,
    corrected=0.6296,
    corrected_low=0.2,
    corrected_high=0.8,
    per_clip={"a": 1.0, "b": 1 / 3},
    skipped={"c": "no onset in either sound", "d": "no onset in either sound"},
    extras={"onsets a generated clip": 3.1},
)
BARE = Score(
    name="fd",
    label="FD",
    definition="distance",
    higher_is_better=False,
    judge="toy",
    value=269.04,
    n=2,
    floor=3.5,
)
NONE = Score(
    name="is", label="IS", definition="score", higher_is_better=True, unavailable="no classifier was given"
)


@pytest.fixture
def samples():
    sounds = ArraySounds(generated=[np.zeros(9)], references=[np.zeros(9)], sample_rate=9)
    return EvaluationSet(ids=["a"], sounds=sounds)


def test_a_comparison_is_recomputed_from_the_values_of_single_clips():
    rows, metrics = study(), {"aa": "higher", "fd": "lower"}
    lines = list(csv.DictReader(io.StringIO(clips_csv(rows, metrics))))
    read: dict = {row: {} for row in rows}
    for line in lines:
        if line["aa"]:
            read[line["row"]].setdefault(int(line["seed"]), {})[line["clip"]] = float(line["aa"])
    again = {row: {seed: [mean(clips)] for seed, clips in seeds.items()} for row, seeds in read.items()}
    expected = compare(rows, metrics=metrics, baseline="CN")
    found = compare(again, metrics={"aa": "higher"}, baseline="CN")
    assert len(found.estimates) == 3
    for key, estimate in found.estimates.items():  # with the intervals
        assert estimate == expected.estimates[key]
    assert found.to_baseline["CN+Onset", "aa"] == expected.to_baseline["CN+Onset", "aa"]
    whole = {(x["row"], int(x["seed"])): float(x["fd"]) for x in lines if not x["clip"]}
    assert whole["CN", 1] == expected.estimates["CN", "fd"].by_seed[1]


def test_the_text_table():
    assert scores_document([FULL, BARE, NONE]).text() == (
        "            value                  chance  corrected             clips\n"
        "──────────────────────────────────────────────────────────────────────\n"
        "AA-Align ↑   0.667 [0.250, 0.900]   0.100  0.630 [0.200, 0.800]      2\n"
        "FD ↓        269.04                      –      –                     2\n"
        "\n"
        "How to read them:\n"
        "  - In brackets: 95 % bootstrap intervals over clips. Draws: 2000. Seed: 0.\n"
        "  - Chance: each sound with the references of other clips: 3. Corrected: 0 is chance, 1 perfect.\n"
        "\n"
        "What was measured:\n"
        "  - AA-Align: onsets matched; onsets a generated clip 3.1.\n"
        "  - FD: distance; bias floor (a perfect generator at this n) 3.5.\n"
        "  - AA-Align: by SuperFlux.\n"
        "  - FD: by toy.\n"
        "\n"
        "Too few clips:\n"
        "  - AA-Align: 2 of 30; FD: 2 of 2048. With fewer clips a figure says little by itself: "
        "compare systems on the\n    same clips alone, and look at the intervals.\n"
        "\n"
        "Left out:\n"
        "  - AA-Align: 2 of 4 clips, no onset in either sound: c, d.\n"
        "\n"
        "Missing:\n"
        "  - IS: no classifier was given.\n"
    )


def test_the_markdown_table():
    lines = scores_document([FULL, BARE, NONE]).markdown().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table == [
        "|  | value | chance | corrected | clips |",
        "|:---|---:|---:|---:|---:|",
        "| **AA-Align ↑** | 0.667<br><sub>[0.250,&nbsp;0.900]</sub> | 0.100 "
        "| 0.630<br><sub>[0.200,&nbsp;0.800]</sub> | 2 |",
        "| **FD ↓** | 269.04 | – | – | 2 |",
    ]
    assert lines[lines.index("### Missing") + 2] == "- IS: no classifier was given."


def test_conditions_of_intervals_are_stated_once_with_their_exceptions():
    others = [dataclasses.replace(FULL, label=label) for label in ("AV-Align", "F1")]
    whole = dataclasses.replace(BARE, low=1.0, high=2.0, draws=300, centred=True)
    text = scores_document([FULL, *others, whole]).text()
    assert "Draws: 2000; 300 for FD. Seed: 0." in text
    assert "FD: intervals are centred, and hold at this number of clips only." in text


def test_many_clips_left_out_are_counted_and_some_named():
    skipped = {f"clip{i}": "no video" for i in range(11)}
    text = scores_document([dataclasses.replace(FULL, skipped=skipped)]).text()
    assert "11 of 13 clips, no video: clip0, clip1, clip2, clip3, clip4, and 6 more." in text


def test_json_keeps_scores_to_the_last_bit():
    back = from_json(to_json([FULL, BARE, NONE]))
    assert back[:2] == [FULL, BARE]
    assert math.isnan(back[2].value)
    assert dataclasses.replace(back[2], value=0.0) == dataclasses.replace(NONE, value=0.0)
    assert "NaN" not in to_json([NONE])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "scores": [{"value": 1}]}', "no json"])
def test_other_json_is_refused(text):
    with pytest.raises(MetricError, match="no scores as `to_json` writes them"):
        from_json(text)


def test_json_of_another_format_is_refused_with_advice():
    with pytest.raises(MetricError) as caught:
        from_json('{"format": 3, "scores": []}')
    assert caught.value.message == "scores of format 3; this version reads 2 and 1."
    assert caught.value.advice == "Evaluate again, or read them with a newer version."


def test_json_of_format_1_is_read():
    """Its definition holds n, the draws and the judge, and stays as it is."""
    old = {
        "name": "fd", "label": "FD (toy)", "definition": "distance by the toy; n = 9; 95 % …", "n": 9,
        "higher_is_better": False, "value": 2.0, "low": 1.5, "high": 2.5, "chance": None, "corrected": None,
        "corrected_low": None, "corrected_high": None, "per_clip": None, "left_out": {"a": "no sound"},
        "details": {FLOOR: 0.5, "real": 1.0}, "unavailable": None, "replicates": [2.0, 2.1],
    }  # fmt: skip
    (score,) = from_json(json.dumps({"format": 1, "scores": [old]}))
    assert (score.floor, score.extras, score.skipped) == (0.5, {"real": 1.0}, {"a": "no sound"})
    assert (score.described, score.draws) == (old["definition"], 0)
    assert "Draws" not in scores_document([score]).text()


def test_metrics_are_scored_in_order(samples):
    assert evaluate(samples, [lambda s: FULL, lambda s: BARE]) == [FULL, BARE]


def test_two_scores_of_one_name_are_refused(samples):
    with pytest.raises(MetricError, match="two metrics gave a score named 'aa_align'"):
        evaluate(samples, [lambda s: FULL, lambda s: FULL])


def test_a_metric_that_gives_no_score_is_refused(samples):
    with pytest.raises(MetricError, match="a metric gave float. Make it return"):
        evaluate(samples, [lambda s: 0.5])


def of_clips(values: np.ndarray) -> Score:
    """Mean over clips, with a level by chance; a clip's pairs with other clips score a quarter of its own."""
    reporter = MetricReporter(name="aa", label="AA", higher_is_better=True, shuffles=20, resamples=200)
    ids = [f"clip{i}" for i in range(len(values))]
    return reporter.mean(ids, values, "toy", empty="silent", pair=lambda i, j: float(values[i]) / 4)


def test_the_mean_of_samplings_is_that_of_each_clip_s_means():
    first, second = np.random.default_rng(0).uniform(size=(2, 12))
    first[3] = second[3] = second[5] = np.nan
    [found] = mean_of_samplings([[of_clips(first)], [of_clips(second)]])
    means = (first + second) / 2
    means[5] = first[5]
    assert found.value == pytest.approx(np.nanmean(means))
    drawn = mean_interval([*means[np.isfinite(means)], np.nan], resamples=200)
    assert (found.low, found.high) == pytest.approx(tuple(drawn))
    assert (found.samplings, found.n, found.draws) == (2, 11, 200)
    assert found.per_clip == pytest.approx({f"clip{i}": means[i] for i in range(12) if i != 3})
    assert found.skipped == {"clip3": "silent"}
    assert found.high - found.low < of_clips(second).high - of_clips(second).low


def test_the_corrected_mean_of_samplings_is_near_the_one_with_levels_of_each_clip():
    sides = np.random.default_rng(1).uniform(0.5, 0.9, size=(3, 60))
    [found] = mean_of_samplings([[of_clips(values)] for values in sides])
    levels = chance_levels(lambda i, j: sides.mean(0)[i] / 4, 60)
    assert found.chance == pytest.approx(levels.mean())
    exact = corrected_for_chance(sides.mean(0), levels, resamples=200)
    assert found.corrected == pytest.approx(exact.value)
    width = exact.high - exact.low
    assert abs(found.corrected_low - exact.low) < 0.3 * width
    assert abs(found.corrected_high - exact.high) < 0.3 * width


def test_the_mean_of_samplings_of_a_statistic_has_the_mean_replicates():
    reporter = MetricReporter(name="fd", label="FD", higher_is_better=False, resamples=40)
    sides = np.random.default_rng(2).normal(size=(2, 30))
    spreads = [lambda clips, side=side: float(side[clips].std()) for side in sides]
    scores = [reporter.statistic(each, 30, "toy", judge="", floor=1.0, extras={"x": 2.0}) for each in spreads]
    [found] = mean_of_samplings([[score] for score in scores])
    drawn = np.mean([replicates(each, 30, resamples=40) for each in spreads], axis=0)
    assert found.value == pytest.approx(np.mean([score.value for score in scores]))
    assert found.replicates == pytest.approx(drawn.tolist())
    assert found.low < found.value < found.high and found.centred and found.n == 30
    assert (found.floor, found.extras, found.corrected, found.per_clip) == (1.0, {"x": 2.0}, None, None)


def test_a_score_without_draws_has_a_mean_without_an_interval():
    bare = dataclasses.replace(BARE, per_clip={"a": 1.0, "b": 2.0}, value=1.5)
    [found] = mean_of_samplings([[bare], [dataclasses.replace(bare, per_clip={"a": 2.0}, value=2.0)]])
    assert (found.value, found.low, found.n) == (1.75, None, 2)
    assert found.per_clip == {"a": 1.5, "b": 2.0}
    [empty] = mean_of_samplings([[dataclasses.replace(BARE, per_clip={})]] * 2)
    assert (empty.value, empty.samplings) == (BARE.value, 2)


def test_one_sampling_is_itself_and_a_missing_figure_stays_missing():
    assert mean_of_samplings([[FULL, BARE, NONE]]) == [FULL, BARE, NONE]
    [absent] = mean_of_samplings([[BARE], [dataclasses.replace(BARE, unavailable="a reason")]])
    assert absent.unavailable == "a reason (sound 2 of 2)"
    assert from_json(to_json(mean_of_samplings([[FULL], [FULL]])))[0].samplings == 2


def test_the_table_says_of_how_many_sounds_a_score_is_the_mean():
    text = scores_document(mean_of_samplings([[FULL, BARE]] * 3)).text()
    assert "A score is the mean over several sounds of each clip. Sounds: 3." in text
    assert "several sounds" not in scores_document([FULL, BARE]).text()


def test_a_comparison_says_so_of_rows_with_one_sound_and_with_three():
    one = dataclasses.replace(FULL, per_clip={"a": 0.5, "b": 0.25})
    rows = {"one": {0: [one]}, "three": {0: mean_of_samplings([[one]] * 3)}}
    for order in (rows, dict(reversed(rows.items()))):
        compared = compare(order, metrics={"aa_align": "higher"}, baseline="one")
        assert compared.metrics[0].samplings == (1, 3)
        told = "A score is the mean over several sounds of each clip. Sounds: 1 to 3, by row."
        assert told in " ".join(comparison_document(compared).text().split())
