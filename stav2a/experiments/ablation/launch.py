"""Jobs in processes of their own, a few at a time: on this machine, or handed to submitit."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stav2a.utils.errors import UsageError

POLL_EVERY_S = 0.1
STOP_TIMEOUT_S = 60.0  # for processes that were asked to stop and have something to write


@dataclass(frozen=True)
class Job:
    """One command: its name for messages, its words, and the file for all that it prints."""

    title: str
    command: tuple[str, ...]
    log: Path

    def last_lines(self, count: int = 12) -> list[str]:
        """The end of its log, without the steps of progress bars."""
        text = self.log.read_bytes().decode(errors="replace") if self.log.is_file() else ""
        lines = (line.split("\r")[-1].rstrip() for line in text.split("\n"))
        return [line for line in lines if line][-count:]


class Process(Protocol):
    """A job that was started.

    `poll` returns its exit code, negative for a signal, and None while it runs; `stop` asks it to end, as
    Ctrl-C does; `kill` ends it.
    """

    def poll(self) -> int | None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


Start = Callable[[Job], Process]  # starts a job, without waiting for it


def run_all(
    jobs: Sequence[Job],
    start: Start,
    *,
    width: int,
    on_start: Callable[[Job], None],
    on_end: Callable[[Job, int, float], None],
    may_start: Callable[[Job, Sequence[Job]], bool] = lambda job, running: True,
) -> dict[Job, int]:
    """Run jobs, a few at a time, in their order except those that may not start yet.

    Args:
        jobs: Jobs to run. One that fails does not stop the others.
        start: Starts a job.
        width: Number of jobs at a time.
        on_start: Called with every job that has been started.
        on_end: Called with every job that has ended, its exit code and its seconds.
        may_start: Called with a job and those that are running, if any are.

    Returns:
        Exit code of every job, in the order in which they ended.

    Raises:
        KeyboardInterrupt: Ctrl-C; by then the running jobs have been asked to stop, and have stopped.
    """
    waiting, running, codes = list(jobs), dict[Job, tuple[Process, float]](), dict[Job, int]()
    try:
        while waiting or running:
            ready = (job for job in waiting if not running or may_start(job, list(running)))
            if len(running) < width and (job := next(ready, None)):
                waiting.remove(job)
                running[job] = start(job), time.monotonic()
                on_start(job)
                continue
            time.sleep(POLL_EVERY_S)
            for job, (process, began) in list(running.items()):
                code = process.poll()
                if code is not None:
                    del running[job]
                    codes[job] = code
                    on_end(job, code, time.monotonic() - began)
    finally:
        _stop([process for process, _ in running.values()])
    return codes


def _stop(processes: Sequence[Process]) -> None:
    """Ask all to stop, wait, and kill those that don't; a second Ctrl-C kills them at once."""
    for process in processes:
        process.stop()
    deadline = time.monotonic() + STOP_TIMEOUT_S
    try:
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(POLL_EVERY_S)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()


class LocalProcess(subprocess.Popen[bytes]):
    """A job on this machine, with all processes that it starts.

    It runs in a session of its own: Ctrl-C in the terminal reaches this process alone. Its `environment` is
    added to that of this process.
    """

    def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
        with job.log.open("wb") as log:
            super().__init__(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def stop(self) -> None:
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGINT)

    def kill(self) -> None:
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


class GPUPool:
    """The GPUs of this machine, as many for each job as it asks for; a job sees no others.

    Args:
        devices: Numbers or names of the GPUs, as CUDA_VISIBLE_DEVICES has them.
        count: GPUs of a job.
        environment: Added to the environment of every job.

    Raises:
        UsageError: There are fewer GPUs than a job asks for.
    """

    def __init__(self, devices: Sequence[str], count: int, environment: Mapping[str, str]) -> None:
        if not 1 <= count <= len(devices):
            there = f"{len(devices)} of them here" if devices else "none here"
            raise UsageError(f"--gpus-a-run {count}: there are {there}.", advice="Leave the option out.")
        self.free, self.count, self.environment = list(devices), count, dict(environment)

    @property
    def width(self) -> int:
        """Number of jobs that have GPUs at a time."""
        return len(self.free) // self.count

    def start(self, job: Job) -> "GPUProcess":
        """Start a job on GPUs that are free."""
        own, self.free = self.free[: self.count], self.free[self.count :]
        return GPUProcess(job, {**self.environment, "CUDA_VISIBLE_DEVICES": ",".join(own)}, self, own)


class GPUProcess(LocalProcess):
    """A job on GPUs of its own, which it gives back when it has ended."""

    def __init__(self, job: Job, environment: Mapping[str, str], pool: GPUPool, own: list[str]) -> None:
        self.pool, self.own = pool, own
        super().__init__(job, environment)

    def poll(self) -> int | None:
        code = super().poll()
        if code is not None:
            self.pool.free, self.own = [*self.pool.free, *self.own], []
        return code


def visible_gpus() -> list[str]:
    """Numbers or names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return named[:count] if len(named) >= count and named[0] else [str(number) for number in range(count)]


COMMON = {"timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"}
TIMEOUT_MIN = 720  # submitit's own is 5, too short to train a row


def submitit_start(cluster: str, folder: Path, settings: Mapping[str, str]) -> Start:
    """Function that hands jobs to submitit.

    Args:
        cluster: `slurm`, or `submitit` for its processes on this machine, to try it out.
        folder: Folder of submitit's own files, on a disk that all machines share.
        settings: Settings such as slurm_partition without its prefix, or timeout_min, as submitit names them.

    Raises:
        UsageError: submitit is not installed, finds no Slurm, or does not know a setting.
    """
    try:
        import submitit
    except ImportError:
        message = f"--cluster {cluster} needs submitit, which is not installed: pip install 'stav2a[slurm]'"
        raise UsageError(message) from None
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster="slurm" if cluster == "slurm" else "local")
    except RuntimeError as error:
        message = f"--cluster {cluster}: {error}."
        raise UsageError(message, advice="Start it on a machine that has sbatch.") from None
    parameters: dict[str, int | str] = {"timeout_min": TIMEOUT_MIN}
    for name, value in settings.items():
        parameters[name if name in COMMON else f"slurm_{name}"] = int(value) if value.isdigit() else value
    try:
        executor.update_parameters(**parameters)
    except (AssertionError, NameError, TypeError, ValueError) as error:
        raise UsageError(f"--slurm: {error}") from None
    count = settings.get("cpus_per_task")
    threads = [f"OMP_NUM_THREADS={count}", f"MKL_NUM_THREADS={count}"] if count else []

    def start(job: Job) -> SubmititJob:
        command = submitit.helpers.CommandFunction(["env", *threads, *job.command], verbose=True)
        try:
            submitted = executor.submit(command)
        except submitit.core.utils.FailedJobError as error:
            raise UsageError(f"the cluster refused the job {job.title}: {error}") from None
        job.log.write_text(f"submitit job {submitted.job_id}: {submitted.paths.stdout}\n", encoding="utf-8")
        return SubmititJob(submitted, job.log)

    return start


@dataclass(frozen=True)
class SubmititJob:
    """A job that was handed to submitit."""

    job: Any
    log: Path

    def poll(self) -> int | None:
        """Exit code, 1 for all failures; None while it waits or runs."""
        if not self.job.done():
            return None
        printed = [text for text in (self.job.stdout(), self.job.stderr()) if text]
        self.log.write_text("\n".join(printed), encoding="utf-8")
        return 1 if self.job.exception() else 0

    def stop(self) -> None:
        self.job.cancel(check=False)

    kill = stop  # there is no harder way
