"""The local engine: worker processes on this machine, a few clips ahead of what is written."""

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from stav2a.data.cache.layout import Row
from stav2a.data.pool import process_pool
from stav2a.prepare.stages import Work, failed

AHEAD = 4  # clips given out for each worker
DIED = "the process that read it died, as from a lack of memory or a fault in a decoder. Leave it out."

_work: Work | None = None  # of a worker process: its encoders are sent once, not with every clip


def run(work: Work, positions: Iterable[int], workers: int) -> Iterator[Row]:
    """Do the work on every clip; results come as they are finished.

    A clip whose process dies is tried again alone, and fails if that one dies as well.

    Args:
        work: Both stages.
        positions: Of the clips; taken one by one, never far ahead.
        workers: Processes; 1 stays in this one.
    """
    if workers == 1:
        with one_thread():
            yield from map(work, positions)
        return
    left = iter(positions)
    while True:
        suspects: list[int] = []
        with process_pool(workers, _start, work) as pool:
            yield from _pooled(pool, left, workers * AHEAD, suspects)
        if not suspects:
            return
        for position in suspects:
            yield alone(work, position)


def _pooled(
    pool: ProcessPoolExecutor, positions: Iterator[int], ahead: int, suspects: list[int]
) -> Iterator[Row]:
    """Until all is done, or a process dies: then the clips that were under way are suspects."""
    running: dict[Future[Row], int] = {}
    for position in positions:
        try:
            running[pool.submit(_do, position)] = position
        except BrokenProcessPool:
            suspects.append(position)
            break
        if len(running) >= ahead:
            yield from _finished(running, suspects)
            if suspects:
                break
    while running:
        yield from _finished(running, suspects)


def _finished(running: dict[Future[Row], int], suspects: list[int]) -> Iterator[Row]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        position = running.pop(future)
        try:
            yield future.result()
        except BrokenProcessPool:
            suspects.append(position)


def alone(work: Work, position: int) -> Row:
    """One clip in a process of its own; if that dies, the clip has failed."""
    with process_pool(1, _start, work) as pool:
        try:
            return pool.submit(_do, position).result()
        except BrokenProcessPool:
            return failed(work.decode.plan.entry(position), DIED)


def _start(work: Work) -> None:
    global _work
    _work = work
    use_one_thread()


def _do(position: int) -> Row:
    assert _work is not None
    return _work(position)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for this process: sums round alike whatever the machine, and workers do not fight."""
    import cv2
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    use_one_thread()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def use_one_thread() -> None:
    """In a worker process."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
