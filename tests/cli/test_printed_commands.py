"""Every command that is printed runs as it is printed, by a shell in the current folder."""

import os
import sys
from pathlib import Path

import pytest

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
