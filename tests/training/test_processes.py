"""Training shared by two processes on the CPU, started as users start it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.stage_settings import STAGES

ROOT = Path(__file__).parents[2]
SCRIPT = "tests.training.shared_work"


def torchrun(processes: int, *command: object) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    subprocess.run(
        [sys.executable, *launcher, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )


def losses(folder: Path, stage: str) -> dict[str, Any]:
    return json.loads((folder / stage / "history.json").read_text())


def weights(folder: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(folder / stage / "end.safetensors")


@pytest.fixture(scope="module")
def ends(tmp_path_factory) -> dict[str, Path]:
    """All stages by one process, by two, and by two that were stopped after three steps."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("one", "two", "resumed")}
    torchrun(1, SCRIPT, folders["one"])
    torchrun(2, SCRIPT, folders["two"])
    torchrun(2, SCRIPT, folders["resumed"], 3)
    torchrun(2, SCRIPT, folders["resumed"])
    return folders


@pytest.mark.slow
def test_the_processes_know_of_one_another(ends):
    assert {name: (folder / "processes").read_text() for name, folder in ends.items()} == {
        "one": "1", "two": "2", "resumed": "2",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_learn_what_one_does(ends, stage):
    one, two = losses(ends["one"], stage), losses(ends["two"], stage)
    assert one.keys() == two.keys() and len(one["loss"]) == 6
    for name, points in one.items():
        assert [value for _, value in two[name]] == pytest.approx([v for _, v in points], rel=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_that_were_stopped_end_with_the_bits_of_an_unbroken_run(ends, stage):
    assert losses(ends["resumed"], stage) == losses(ends["two"], stage)
    unbroken = weights(ends["two"], stage)
    assert all(torch.equal(t, unbroken[name]) for name, t in weights(ends["resumed"], stage).items())
