"""Jobs through submitit: its own executor on this machine, with a small command."""

import sys

import pytest

from stav2a.experiments.ablation.launch import Job, SubmititLauncher, run_all
from stav2a.utils.errors import UsageError

pytest.importorskip("submitit", reason="submitit is an optional dependency: pip install 'stav2a[slurm]'")


class Nobody:
    def started(self, job):
        pass

    def ended(self, ended):
        pass


@pytest.mark.slow
def test_jobs_run_and_fail_as_they_do_here(tmp_path):
    launcher = SubmititLauncher("submitit", tmp_path / "submitit", {"cpus_per_task": "1"})
    talk = "import os; print('with', os.environ['OMP_NUM_THREADS'])"
    jobs = [
        Job("well", (sys.executable, "-c", talk), tmp_path / "well.log"),
        Job("ill", (sys.executable, "-c", "import sys; sys.exit('no such clip')"), tmp_path / "ill.log"),
    ]
    done = run_all(jobs, launcher, width=2, listener=Nobody())
    assert {ended.job.title: ended.code for ended in done} == {"well": 0, "ill": 1}
    assert "with 1" in jobs[0].log.read_text()
    assert "no such clip" in jobs[1].log.read_text()


def test_a_setting_that_submitit_does_not_know_is_told(tmp_path):
    with pytest.raises(UsageError, match="--slurm: Unknown argument 'partitoin' for executor 'slurm'"):
        SubmititLauncher("submitit", tmp_path, {"partitoin": "gpu"})


def test_a_setting_of_another_kind_is_told(tmp_path):
    with pytest.raises(UsageError, match='--slurm: Parameter "timeout_min" expected type'):
        SubmititLauncher("submitit", tmp_path, {"timeout_min": "soon"})


def test_a_machine_without_slurm_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="--cluster slurm: .*Start it on a machine that has sbatch."):
        SubmititLauncher("slurm", tmp_path, {})


def test_a_missing_submitit_is_told_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(
        UsageError, match=r"needs submitit, which is not installed: pip install 'stav2a\[slurm\]'"
    ):
        SubmititLauncher("slurm", tmp_path, {})
