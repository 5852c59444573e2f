import dataclasses
import math

import numpy as np
import pytest

from stav2a.evaluation.scores import evaluate, from_json, to_json
from stav2a.metrics.score import ArraySounds, EvaluationSet, MetricError, Score
from stav2a.reports.tables import table

FULL = Score(
    name="aa_align",
    label="AA-Align",
    definition="onsets, n = 2",
    higher_is_better=True,
    value=2 / 3,
    n=2,
    low=0.25,
    high=0.9,
    chance=0.1,
    corrected=0.6296,
    corrected_low=0.2,
    corrected_high=0.8,
    per_clip={"a": 1.0, "b": 1 / 3},
    left_out={"c": "no onset in either sound", "d": "no onset in either sound"},
    details={"onsets a generated clip": 3.1},
)
BARE = Score(name="fd", label="FD (toy)", definition="distance", higher_is_better=False, value=269.04, n=2)
NONE = Score(
    name="is", label="IS", definition="score", higher_is_better=True, unavailable="no classifier was given"
)


@pytest.fixture
def samples():
    sounds = ArraySounds(generated=[np.zeros(9)], references=[np.zeros(9)], sample_rate=9)
    return EvaluationSet(ids=["a"], sounds=sounds)


def test_the_text_table():
    assert table([FULL, BARE, NONE]) == (
        "metric      value  95 % interval  chance              corrected  n\n"
        "──────────────────────────────────────────────────────────────────\n"
        "AA-Align ↑  0.667  0.250 … 0.900   0.100  0.630 [0.200 … 0.800]  2\n"
        "FD (toy) ↓  269.0              –       –                      –  2\n"
        "\n"
        "Definitions:\n"
        "  - AA-Align: onsets, n = 2.\n"
        "  - FD (toy): distance.\n"
        "\n"
        "Beside them:\n"
        "  - AA-Align: onsets a generated clip 3.100.\n"
        "\n"
        "Left out:\n"
        "  - AA-Align: 2 of 4 clips, no onset in either sound (c, d)\n"
        "\n"
        "Not measured:\n"
        "  - IS: no classifier was given\n"
    )


def test_the_markdown_table():
    lines = table([FULL, BARE, NONE], style="markdown").splitlines()
    assert lines[:4] == [
        "| metric | value | 95 % interval | chance | corrected | n |",
        "|---|---:|---:|---:|---:|---:|",
        "| AA-Align ↑ | 0.667 | 0.250 … 0.900 | 0.100 | 0.630 [0.200 … 0.800] | 2 |",
        "| FD (toy) ↓ | 269.0 | – | – | – | 2 |",
    ]
    assert lines[lines.index("**Not measured**") + 2] == "- IS: no classifier was given"


def test_many_clips_left_out_are_counted_and_some_named():
    left_out = {f"clip{i}": "no video" for i in range(11)}
    assert (
        "11 of 13 clips, no video (clip0, clip1, clip2, clip3, clip4, clip5, clip6, clip7, and 3 more)"
        in table([dataclasses.replace(FULL, left_out=left_out)])
    )


def test_another_style_is_refused():
    with pytest.raises(MetricError, match="style was 'html'. Write one of: text, markdown."):
        table([], style="html")


def test_json_keeps_scores_to_the_last_bit():
    back = from_json(to_json([FULL, BARE, NONE]))
    assert back[:2] == [FULL, BARE]
    assert math.isnan(back[2].value)
    assert dataclasses.replace(back[2], value=0.0) == dataclasses.replace(NONE, value=0.0)
    assert "NaN" not in to_json([NONE])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "scores": [{"value": 1}]}', "no json"])
def test_other_json_is_refused(text):
    with pytest.raises(MetricError, match="no scores as `to_json` writes them"):
        from_json(text)


def test_json_of_a_later_format_is_refused():
    with pytest.raises(MetricError, match="scores of format 2; this version reads 1"):
        from_json('{"format": 2, "scores": []}')


def test_metrics_are_scored_in_order_and_progress_is_told(samples):
    told = []
    scores = evaluate(samples, [lambda s: FULL, lambda s: BARE], lambda *progress: told.append(progress))
    assert scores == [FULL, BARE]
    assert [done for done, _, _ in told] == [0, 1, 2]
    assert {total for _, total, _ in told} == {2}


def test_two_scores_of_one_name_are_refused(samples):
    with pytest.raises(MetricError, match="two metrics gave a score named 'aa_align'"):
        evaluate(samples, [lambda s: FULL, lambda s: FULL])


def test_a_metric_that_gives_no_score_is_refused(samples):
    with pytest.raises(MetricError, match="a metric gave float. Make it return"):
        evaluate(samples, [lambda s: 0.5])
