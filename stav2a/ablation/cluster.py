"""Jobs on a Slurm cluster, through submitit; or through submitit's own processes on this machine.

A cluster shares a file system: the store, the run folders and the tracking store must lie on it, or the
tracking store be a server.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stav2a.ablation.pool import Job
from stav2a.errors import UsageError

CLUSTERS = {"slurm": "slurm", "submitit": "local"}  # what submitit calls them
COMMON = {"timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"}
TIMEOUT_MIN = 720  # submitit's own is 5, in which no row is trained


class Submitted:
    """A launcher that hands jobs to submitit.

    Args:
        cluster: `slurm`, or `submitit` for its processes on this machine, to try it out.
        folder: Takes submitit's own files. Seen by all machines.
        settings: Such as slurm_partition without its prefix, or timeout_min, as submitit names them.

    Raises:
        UsageError: submitit is not installed, finds no Slurm, or does not know a setting.
    """

    def __init__(self, cluster: str, folder: Path, settings: Mapping[str, str]) -> None:
        try:
            import submitit
        except ImportError:
            raise UsageError(
                f"--cluster {cluster} needs submitit, which is not installed: pip install 'stav2a[slurm]'"
            ) from None
        self._submitit = submitit
        self._threads = settings.get("cpus_per_task")
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=CLUSTERS[cluster])
        except RuntimeError as error:
            raise UsageError(
                f"--cluster {cluster}: {error}. Start it on a machine that has sbatch."
            ) from None
        self._set({"timeout_min": str(TIMEOUT_MIN), **settings})

    def start(self, job: Job) -> "SubmittedProcess":
        """Submit a job. Until it ends its log says where submitit keeps its output."""
        threads = [f"{name}={self._threads}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
        command = ["env", *(threads if self._threads else ()), *job.command]
        try:
            submitted = self._executor.submit(self._submitit.helpers.CommandFunction(command, verbose=True))
        except self._submitit.core.utils.FailedJobError as error:
            raise UsageError(f"the cluster refused the job {job.title}: {error}") from None
        job.log.write_text(f"submitit job {submitted.job_id}: {submitted.paths.stdout}\n", encoding="utf-8")
        return SubmittedProcess(submitted, job.log)

    def _set(self, settings: Mapping[str, str]) -> None:
        named = {name if name in COMMON else f"slurm_{name}": _value(text) for name, text in settings.items()}
        try:
            self._executor.update_parameters(**named)
        except (AssertionError, NameError, TypeError, ValueError) as error:
            raise UsageError(f"--slurm: {error}") from None


@dataclass(frozen=True)
class SubmittedProcess:
    """A job that submitit watches."""

    job: Any
    log: Path

    def poll(self) -> int | None:
        """Its exit code, or None while it waits or runs; 1 for every way of failing."""
        if not self.job.done():
            return None
        printed = [text for text in (self.job.stdout(), self.job.stderr()) if text]
        self.log.write_text("\n".join(printed), encoding="utf-8")
        return 1 if self.job.exception() else 0

    def stop(self) -> None:
        """Ask it to end."""
        self.job.cancel(check=False)

    def kill(self) -> None:
        """Ask once more: there is no harder way."""
        self.stop()


def _value(text: str) -> int | str:
    return int(text) if text.isdigit() else text
