"""Every command that is printed runs as it is printed, by a shell in the current folder."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stav2a.experiments.run_folder import RunFolder, RunFolderError
from stav2a.experiments.tracking import TrackingError, connect
from stav2a.utils import program
from stav2a.utils.files import write_json

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


def is_opened_by(command: str, folder: Path) -> str:
    """All that a command of a dashboard prints, until its pages answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        f"exec {command} --port {port}", shell=True, cwd=folder, env=HERE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as served:  # fmt: skip
        try:
            printed = []
            while not (printed and printed[-1].startswith("all runs: ")):
                printed.append(served.stdout.readline())
                assert printed[-1], "it ended"
            return "".join(printed)
        finally:
            served.send_signal(signal.SIGTERM)
            served.wait(60)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, str, str]:
    """A folder, and what a run and a study in it printed."""
    folder = tmp_path_factory.mktemp("somewhere else")
    (folder / "mine.gin").write_text(
        "include 'ablations/base.gin'\n"
        "study.rows = {'A': 'recipes/pretrained_t2a.gin', 'B': ('recipes/pretrained_t2a.gin', "
        "'run.num_inference_steps = 3')}\nstudy.baseline = 'A'\nstudy.seeds = (0,)\n"
    )
    how = "--gin recipes/scale/smoke.gin --output 'my runs'"
    run = shell(f"{sys.executable} -m stav2a run --gin recipes/pretrained_t2a.gin {how}", folder)
    assert run.returncode == 0, run.stderr
    rows = shell(f"{sys.executable} -m stav2a ablation --gin mine.gin --jobs 1 {how}", folder)
    assert rows.returncode == 0, rows.stderr
    return folder, run.stdout, rows.stdout


def line(printed: str, start: str) -> str:
    """The rest of the line that begins so."""
    (found,) = re.findall(rf"^{re.escape(start)} +(.*)$", printed, flags=re.M)
    return str(found)


@pytest.mark.slow
def test_the_commands_that_a_run_prints(study):
    folder, run, _ = study
    sample = min((folder / line(run, "samples")).glob("*.mp4"))
    shutil.copy(sample, folder / "VIDEO.mp4")
    made = shell(line(run, "generate"), folder)
    assert made.returncode == 0, made.stderr
    assert (folder / "sounds" / "VIDEO.wav").is_file()
    assert is_opened_by(line(run, "tracking"), folder)


@pytest.mark.slow
def test_the_commands_that_a_study_prints(study):
    folder, _, rows = study
    assert "charts: http" in is_opened_by(line(rows, "opened by"), folder)
    table = folder / "my runs" / "ablations" / "mine" / "table.md"
    before = table.read_text()
    (again,) = re.findall("made again by `(.*?)`", before)
    table.unlink()
    done = shell(again, folder)
    assert done.returncode == 0, done.stderr
    assert table.read_text() == before


@pytest.mark.slow
def test_the_command_that_a_damaged_run_is_made_again_with(study, monkeypatch):
    folder, _, _ = study
    monkeypatch.chdir(folder)
    run = RunFolder(min(Path("my runs").glob("pretrained_t2a-*")))
    write_json(run.facts_file, {**run.facts(), "format": 0})
    with pytest.raises(RunFolderError) as caught:
        run.facts()
    command = caught.value.advice.removeprefix("Run its recipe again: ")
    done = shell(command, folder)
    assert done.returncode == 0, done.stderr


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
