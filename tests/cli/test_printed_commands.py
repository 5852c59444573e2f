"""Every command that is printed runs as it is printed, by a shell in the current folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stav2a.experiments.tracking import TrackingError, connect
from stav2a.utils import program

ROOT = Path(__file__).parents[2]
HERE = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("shell_finds", ["this environment", "another one", "none"])
def test_the_program_is_named_as_the_shell_finds_it(shell_finds, tmp_path, monkeypatch):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert program.command("listen", Path("my test")) == ".venv/bin/python -m stav2a listen 'my test'"
    for folder in (".venv/bin", "other"):
        (tmp_path / folder / "stav2a").touch(mode=0o755)
    place = {"this environment": ".venv/bin", "another one": "other", "none": ""}[shell_finds]
    monkeypatch.setenv("PATH", str(tmp_path / place) if place else "")
    name = "stav2a" if shell_finds == "this environment" else ".venv/bin/stav2a"
    assert program.command("dashboard") == f"{name} dashboard"
    assert program.module_command("mlflow", "db") == ".venv/bin/python -m mlflow db"


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, shell=True, cwd=folder, env=HERE, capture_output=True, text=True, timeout=280
    )


@pytest.mark.slow
def test_the_commands_that_mend_a_tracking_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with connect(None, tmp_path, experiment="mine", run_name="a") as tracker:
        store = tracker.store
    store.mlflow.MlflowClient(str(store)).delete_experiment("1")
    with pytest.raises(TrackingError) as caught:
        connect(None, tmp_path, experiment="mine", run_name="b").wait()
    (restore,) = re.findall(r"\((.*)\)", caught.value.advice)
    done = shell(restore, tmp_path)
    assert done.returncode == 0, done.stderr
    with connect(None, tmp_path, experiment="mine", run_name="b"):
        pass
    done = shell(program.module_command("mlflow", "db", "upgrade", str(store)), tmp_path)
    assert done.returncode == 0, done.stderr
