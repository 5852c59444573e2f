"""Data-parallel processes of one run, as `torchrun` or `accelerate launch` start them; usually there is one.

All of them train and sample; the main process alone prepares, evaluates and tracks.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from stav2a.utils.errors import UsageError
from stav2a.utils.parallel import worker_number

STEP_LIMIT = timedelta(minutes=30)  # of an exchange of gradients: a process that is lost ends the run
WAIT_LIMIT = timedelta(days=7)  # of the others while the main process prepares the data


def _state() -> Any:
    """Accelerate's state of this process; the first call joins the group that the launcher asks for."""
    from accelerate import PartialState

    try:
        return PartialState(cpu=on_cpu(), timeout=STEP_LIMIT)
    except (ValueError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(
            f"this process can't join the others that its environment names (WORLD_SIZE, RANK): {reason}.",
            advice="Start all of them by torchrun, or unset both variables.",
        ) from error


@functools.cache
def _waiting() -> Any:
    """Group of all processes, apart from the one of the gradients; its first use joins it."""
    return torch.distributed.new_group(timeout=WAIT_LIMIT, backend="gloo")


def on_cpu() -> bool:
    """True without a GPU. Accelerate joins several processes on CPUs only if this is passed on."""
    return not torch.accelerator.is_available()


def count() -> int:
    """Number of processes."""
    return _state().num_processes


def device() -> torch.device:
    """This process's GPU, or the CPU where there is none."""
    return _state().device


def device_named(name: str) -> torch.device:
    """The device of this name, such as "cuda:1"; "auto" is `device`, or a worker process's share of the GPUs.

    Raises:
        UsageError: It is not there.
    """
    if name == "auto":
        number = worker_number()
        return device() if number is None or on_cpu() else gpu_of_worker(number)
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(". ")
        raise UsageError(
            f"the device {name!r} can't be used: {reason}.", advice="Write auto or cpu."
        ) from error
    return found


def gpu_of_worker(number: int) -> torch.device:
    """The GPU of a worker process: they take the GPUs in turn."""
    found = torch.accelerator.current_accelerator()
    assert found is not None, "asked where there is no GPU"
    return torch.device(found.type, number % torch.accelerator.device_count())


def rank() -> int:
    """Number of this process, from 0, which is the main one."""
    return _state().process_index


def is_main() -> bool:
    """True in the one process that writes."""
    return _state().is_main_process


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Context in which the main process runs the block while the others wait, then they do."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


def wait() -> None:
    """Wait until every process has called this."""
    if count() > 1:
        torch.distributed.barrier(group=_waiting())


def broadcast_from_main(value: Any = None) -> Any:
    """The main process's value, in every process; the values that the others pass are ignored."""
    values = [value]
    if count() > 1:
        torch.distributed.broadcast_object_list(values, src=0, group=_waiting())
    return values[0]


def copy_from_main(tensors: Sequence[Tensor]) -> None:
    """Put the main process's values into the tensors of every process."""
    if count() > 1:
        for tensor in tensors:
            torch.distributed.broadcast(tensor, src=0)
