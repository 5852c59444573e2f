"""Data-parallel processes of one run, as `torchrun` or `accelerate launch` start them; usually there is one.

All of them train; the main process alone prepares, samples, evaluates, tracks and writes.
"""

import contextlib
from datetime import timedelta
from typing import Any

import torch

PATIENCE = timedelta(days=7)  # the others wait while the main process prepares the data


def _state() -> Any:
    """Accelerate's state of this process; the first call joins the group that the launcher asks for."""
    from accelerate import PartialState

    return PartialState(cpu=on_cpu(), timeout=PATIENCE)


def on_cpu() -> bool:
    """True without a GPU. Accelerate joins several processes on CPUs only if this is passed on."""
    return not torch.accelerator.is_available()


def count() -> int:
    """Number of processes."""
    return _state().num_processes


def device() -> torch.device:
    """This process's GPU, or the CPU where there is none."""
    return _state().device


def is_main() -> bool:
    """True in the one process that writes."""
    return _state().is_main_process


def main_first() -> contextlib.AbstractContextManager[None]:
    """Context in which the main process runs the block while the others wait, then they do."""
    return _state().main_process_first()


def wait() -> None:
    """Wait until every process has called this."""
    _state().wait_for_everyone()


def broadcast_from_main(value: Any = None) -> Any:
    """The main process's value, in every process; the values that the others pass are ignored."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]
