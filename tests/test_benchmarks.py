"""The benchmarks' own machinery: a killed ladder goes on, rungs are judged by their precision's rounding."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks import gpu_programme, joint_steps, ladder, report
from tests.benchmarks.arms import ALONE, PLAIN, PLAIN_HALF, PLAIN_TF32
from tests.benchmarks.measuring import tf32

WANTED = ["fast", "fast, bfloat16", "fast, guidance from 0.2 to 0.8"]


@pytest.mark.slow
def test_a_killed_ladder_goes_on_and_loses_nothing(tmp_path, monkeypatch):
    file, rounds = tmp_path / "x.json", []

    def killed(*given: Any, real: Any = ladder.in_turns) -> None:
        real(*given)
        rounds.append(1)
        if len(rounds) == 2:  # in the second round, before it is written
            raise KeyboardInterrupt

    monkeypatch.setattr(ladder, "in_turns", killed)
    with pytest.raises(KeyboardInterrupt):
        ladder.measure("laptop", 1, 2, 3, file, wanted=WANTED)
    kept = json.loads(file.read_text())
    assert kept["rounds"] == len(kept["times"]) == 1
    record = ladder.measure("laptop", 1, 2, 3, file, wanted=WANTED)
    assert record["times"][:1] == kept["times"] and record["first_runs"] == kept["first_runs"]
    assert len(record["times"]) == record["rounds"] == 3 and len(rounds) == 4
    assert json.loads(file.read_text()) == record

    arms = record["arms"]
    assert list(arms) == [PLAIN, "fast", PLAIN_HALF, "fast, bfloat16", "fast, guidance from 0.2 to 0.8"]
    assert arms["fast"]["allowed_error"] == 1e-5 and report.exactness(arms["fast"]) == "yes"
    half = arms["fast, bfloat16"]
    assert half["allowed_error"] == 2 * arms[PLAIN_HALF]["error"] and report.exactness(half) == "yes"
    assert report.exactness({**half, "error": 1.0}).startswith("**no: above")
    assert report.exactness(arms["fast, guidance from 0.2 to 0.8"]) == "no"
    assert "| fast, bfloat16 |" in report.loop_table("x", record)

    with pytest.raises(SystemExit, match=r"x.json is of another measurement \(steps\)"):
        ladder.measure("laptop", 1, 4, 3, file, wanted=WANTED)


def test_the_rungs_of_a_gpu_are_compared_with_what_users_of_diffusers_run(monkeypatch):
    monkeypatch.setattr(ladder, "DEVICE", torch.device("cuda"))
    one, many = ladder.chosen("paper", 1), ladder.chosen("paper", 8)
    assert {PLAIN, PLAIN_HALF, PLAIN_TF32} <= {*one} and not {*ALONE} & {*one}
    assert ladder.baseline() == PLAIN_HALF
    assert {arm.precision for name, arm in many.items() if name != PLAIN} == {"bfloat16"}
    assert {PLAIN, PLAIN_HALF} < {*ladder.chosen("paper", 8, ["fast, TF32, graph"])}
    with pytest.raises(SystemExit, match="there is no rung 'fas'. There are: plain, bfloat16"):
        ladder.chosen("paper", 1, ["fas"])


def test_tf32_is_allowed_within_a_rung_alone():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32)
    for allowed in (True, False):
        with tf32(allowed):
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (allowed, allowed)
        assert (matmul.allow_tf32, cudnn.allow_tf32) == before


def test_the_programme_runs_its_steps_in_order_and_the_failed_ones_again(tmp_path):
    flag = tmp_path / "flag"
    steps = {
        "first": ["-c", "print('one')"],
        "second": ["-c", f"import pathlib, sys; sys.exit(not pathlib.Path({str(flag)!r}).exists())"],
    }
    done = gpu_programme.run(steps, tmp_path)
    assert [done[name]["exit_status"] for name in steps] == [0, 1]
    before = done["first"]
    flag.touch()
    done = gpu_programme.run(steps, tmp_path)
    assert [done[name]["exit_status"] for name in steps] == [0, 0] and done["first"] == before
    assert (tmp_path / "programme.md").read_text().index("| first |") > 0


def test_the_programme_is_the_one_of_the_documents():
    steps = gpu_programme.programme("paper", "laptop", [1, 8, 32], 20, 5, minutes=9, rungs="", alone="a|b")
    assert list(steps) == [
        "smoke", "one-loss", "joint-steps", "ladder-1", "ladder-8", "ladder-32", "alone",
    ]  # fmt: skip
    told = (Path(__file__).parents[1] / "docs" / "gpu.md").read_text()
    assert all(f"--only {name}" in told for name in steps)


@pytest.mark.slow
def test_a_joint_step_of_the_benchmark_has_a_loss(tmp_path):
    run = joint_steps.run("laptop", 4, {}, tmp_path / "run")
    assert 0 < run.step() < 10
