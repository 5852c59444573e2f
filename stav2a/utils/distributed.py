"""Several processes on one run, as `torchrun` or `accelerate launch` start them; usually there is one.

All take part in training. The first one, the *main* process, does all else: it prepares, samples, measures,
tracks, and is the only one that writes.
"""

import contextlib
from datetime import timedelta
from typing import Any

import torch

PATIENCE = timedelta(days=7)  # the others wait while the main process prepares the data


def _state() -> Any:
    """Accelerate's one state a process; the first call joins the group that the launcher asks for."""
    from accelerate import PartialState

    return PartialState(cpu=on_cpu(), timeout=PATIENCE)


def on_cpu() -> bool:
    """Whether there is no GPU; Accelerate does not see that several processes are meant unless it is told."""
    return not torch.accelerator.is_available()


def count() -> int:
    """How many processes there are."""
    return _state().num_processes


def device() -> torch.device:
    """This process's GPU, or the CPU where there is none."""
    return _state().device


def is_main() -> bool:
    """Whether this is the one process that writes."""
    return _state().is_main_process


def main_first() -> contextlib.AbstractContextManager[None]:
    """The main process runs the block while the others wait, then they do."""
    return _state().main_process_first()


def wait() -> None:
    """Until all processes are here."""
    _state().wait_for_everyone()


def broadcast_from_main(value: Any = None) -> Any:
    """The main process's value, in every process; what the others give does not count."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]
