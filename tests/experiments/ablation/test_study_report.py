"""Records of studies: what this version writes, and what it makes of older ones."""

import json
from dataclasses import replace

import pytest

from stav2a.evaluation.hypotheses import Hypothesis
from stav2a.experiments.ablation import study
from stav2a.experiments.ablation.planning import plan
from stav2a.experiments.ablation.study_report import RecordError, StudyFolder, new_record, parse_record
from stav2a.utils.files import write_json

TWO_ROWS = "tests/experiments/ablation/two_rows.gin"


def test_a_record_is_read_back(tmp_path):
    planned = plan(study.load(TWO_ROWS, bindings=["run.guidance_scale = 2.0"], seeds=[3]), tmp_path)
    folder = StudyFolder(tmp_path, "two_rows")
    folder.logs.mkdir(parents=True)
    assert folder.read() == {}
    record = new_record(planned, "stav2a ablation --gin two_rows.gin")
    write_json(folder.record, record)
    assert folder.read() == json.loads(json.dumps(record))
    assert record["overlay"] == {"recipes": (), "bindings": ("run.guidance_scale = 2.0",)}
    assert [(run["row"], run["seed"]) for run in record["runs"]] == [("none", 3), ("attentive", 3)]


def test_a_hypothesis_keeps_the_time_when_it_was_first_stated(tmp_path):
    planned = plan(study.load(TWO_ROWS, seeds=[3, 4]), tmp_path)
    first, second = (Hypothesis(name, "attentive", "none", "aa_align") for name in ("H1", "H2"))

    def recorded(before, finished, *hypotheses):
        stated = replace(planned.study, hypotheses=hypotheses)
        made = new_record(replace(planned, study=stated), "command", before, finished)
        return made, {each["name"]: each["finished_runs"] for each in made["hypotheses"]}

    record, times = recorded({}, 0, first)
    assert times == {"H1": 0}
    record, times = recorded(record, 3, first, second)
    assert times == {"H1": 0, "H2": 3}
    _, times = recorded(record, 4, replace(first, metric="fd"), second)
    assert times == {"H1": 4, "H2": 3}


def test_a_record_of_format_1_is_read():
    old = {"format": 1, "goes": [{"runs": 3}], "over": {"recipes": []}, "parents": {"a.db": "1"}}
    new = {"format": 2, "attempts": [{"runs": 3}], "overlay": {"recipes": []}, "tracking": {"a.db": "1"}}
    assert parse_record(json.dumps({**old, "name": "x"})) == {**new, "name": "x"}


def test_a_record_of_another_format_is_an_error():
    with pytest.raises(RecordError) as caught:
        parse_record('{"format": 3, "name": "x"}')
    assert caught.value.message == "the study x was written in format 3, this version reads 2."
    assert caught.value.advice == "Run it again."
