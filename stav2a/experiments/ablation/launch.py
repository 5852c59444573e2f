"""Child processes, a few at a time: started when they may, told of when they end, stopped with us."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stav2a.utils.errors import UsageError

LOOK_EVERY_S = 0.1
PATIENCE_S = 60.0  # for children that were asked to stop and have something to write down


@dataclass(frozen=True)
class Job:
    """One command.

    Args:
        title: For people.
        command: What is run.
        log: Takes all that it prints. Its folder exists.
    """

    title: str
    command: tuple[str, ...]
    log: Path

    def last_lines(self, count: int = 12) -> list[str]:
        """The end of what it printed, without the steps of its progress bars."""
        text = self.log.read_bytes().decode(errors="replace") if self.log.is_file() else ""
        lines = (line.split("\r")[-1].rstrip() for line in text.split("\n"))
        return [line for line in lines if line][-count:]


@dataclass(frozen=True)
class FinishedJob:
    """A job that has ended.

    Args:
        job: Which.
        code: Its exit code; negative for a signal.
        seconds: How long it took.
    """

    job: Job
    code: int
    seconds: float


class Process(Protocol):
    """A job that is running."""

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""

    def stop(self) -> None:
        """Ask it to end, as Ctrl-C does."""

    def kill(self) -> None:
        """End it."""


class Launcher(Protocol):
    """Where jobs run."""

    def start(self, job: Job) -> Process:
        """Start a job, without waiting for it."""


class JobListener(Protocol):
    """Who is told."""

    def started(self, job: Job) -> None:
        """A job has been started."""

    def ended(self, ended: FinishedJob) -> None:
        """A job has ended, well or not."""


class LocalLauncher:
    """Processes on this machine.

    Args:
        environment: Variables that they get beside our own.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = {**os.environ, **environment}

    def start(self, job: Job) -> "LocalProcess":
        """Start the command in a session of its own: Ctrl-C in the terminal reaches us alone."""
        with job.log.open("wb") as log:
            child = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        return LocalProcess(child)


@dataclass(frozen=True)
class LocalProcess:
    """A process on this machine, with all that it starts."""

    child: subprocess.Popen[bytes]

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self.child.poll()

    def stop(self) -> None:
        """Ask it to end, as Ctrl-C does."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)
        self.child.wait()

    def _signal(self, number: int) -> None:
        if self.child.poll() is None:
            os.killpg(self.child.pid, number)


def run_all(
    jobs: Sequence[Job],
    launcher: Launcher,
    *,
    width: int,
    listener: JobListener,
    may_start: Callable[[Job, Sequence[Job]], bool] = lambda job, running: True,
) -> list[FinishedJob]:
    """Run jobs, a few at a time, in their order but for those that may not start yet.

    Args:
        jobs: What to run. One that fails does not stop the others.
        launcher: Where.
        width: How many at a time.
        listener: Told of what happens.
        may_start: Asked of a job, with those that are running. Not asked while nothing is running.

    Returns:
        All of them, as they ended.

    Raises:
        KeyboardInterrupt: Ctrl-C; by then the running jobs have been asked to stop, and have stopped.
    """
    waiting, running, done = list(jobs), dict[Job, tuple[Process, float]](), list[FinishedJob]()
    try:
        while waiting or running:
            while len(running) < width and (job := _next(waiting, list(running), may_start)):
                waiting.remove(job)
                running[job] = launcher.start(job), time.monotonic()
                listener.started(job)
            for job, (process, began) in list(running.items()):
                code = process.poll()
                if code is not None:
                    del running[job]
                    done.append(FinishedJob(job, code, time.monotonic() - began))
                    listener.ended(done[-1])
            time.sleep(LOOK_EVERY_S if running else 0)
    finally:
        _stop([process for process, _ in running.values()])
    return done


def _next(
    waiting: Sequence[Job], running: Sequence[Job], may_start: Callable[[Job, Sequence[Job]], bool]
) -> Job | None:
    return next((job for job in waiting if not running or may_start(job, running)), None)


def _stop(processes: Sequence[Process]) -> None:
    """Ask all to stop, wait, and end those that don't; a second Ctrl-C ends them at once."""
    for process in processes:
        process.stop()
    until = time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < until and any(process.poll() is None for process in processes):
            time.sleep(LOOK_EVERY_S)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()


CLUSTERS = {"slurm": "slurm", "submitit": "local"}  # what submitit calls them
COMMON = {"timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"}
TIMEOUT_MIN = 720  # submitit's own is 5, in which no row is trained


class SubmititLauncher:
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

    def start(self, job: Job) -> "SubmititJob":
        """Submit a job. Until it ends its log says where submitit keeps its output."""
        threads = [f"{name}={self._threads}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
        command = ["env", *(threads if self._threads else ()), *job.command]
        try:
            submitted = self._executor.submit(self._submitit.helpers.CommandFunction(command, verbose=True))
        except self._submitit.core.utils.FailedJobError as error:
            raise UsageError(f"the cluster refused the job {job.title}: {error}") from None
        job.log.write_text(f"submitit job {submitted.job_id}: {submitted.paths.stdout}\n", encoding="utf-8")
        return SubmititJob(submitted, job.log)

    def _set(self, settings: Mapping[str, str]) -> None:
        named = {name if name in COMMON else f"slurm_{name}": _value(text) for name, text in settings.items()}
        try:
            self._executor.update_parameters(**named)
        except (AssertionError, NameError, TypeError, ValueError) as error:
            raise UsageError(f"--slurm: {error}") from None


@dataclass(frozen=True)
class SubmititJob:
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
