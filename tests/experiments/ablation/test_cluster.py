"""Jobs through submitit: its own executor on this machine, with a small command."""

import sys

import pytest

from stav2a.experiments.ablation.launch import Job, run_all, submitit_start
from stav2a.utils.errors import UsageError

pytest.importorskip("submitit", reason="submitit is an optional dependency: pip install 'stav2a[slurm]'")


@pytest.mark.slow
def test_jobs_run_and_fail_as_they_do_here(tmp_path):
    start = submitit_start("submitit", tmp_path / "submitit", {"cpus_per_task": "1"})
    talk = "import os; print('with', os.environ['OMP_NUM_THREADS'])"
    jobs = [
        Job("well", (sys.executable, "-c", talk), tmp_path / "well.log"),
        Job("ill", (sys.executable, "-c", "import sys; sys.exit('no such clip')"), tmp_path / "ill.log"),
    ]
    quiet = {"on_start": lambda job: None, "on_end": lambda job, code, seconds: None}
    codes = run_all(jobs, start, width=2, **quiet)
    assert {job.title: code for job, code in codes.items()} == {"well": 0, "ill": 1}
    assert "with 1" in jobs[0].log.read_text()
    assert "no such clip" in jobs[1].log.read_text()


def test_a_setting_that_submitit_does_not_know_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="--slurm: Unknown argument 'partitoin' for executor 'slurm'"):
        submitit_start("submitit", tmp_path, {"partitoin": "gpu"})


def test_a_setting_of_another_kind_is_an_error(tmp_path):
    with pytest.raises(UsageError, match='--slurm: Parameter "timeout_min" expected type'):
        submitit_start("submitit", tmp_path, {"timeout_min": "soon"})


def test_a_machine_without_slurm_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="--cluster slurm: .*Start it on a machine that has sbatch."):
        submitit_start("slurm", tmp_path, {})


def test_a_missing_submitit_is_an_error_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(
        UsageError, match=r"needs submitit, which is not installed: pip install 'stav2a\[slurm\]'"
    ):
        submitit_start("slurm", tmp_path, {})
