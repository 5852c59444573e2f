"""One function over many items in worker processes of this machine."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from stav2a.utils.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cpus() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    description: str,
    fewest: int = 16,
) -> Iterator[Result]:
    """`map` in order. The results do not depend on the number of workers.

    Workers stay a little ahead of the results that are taken, and no more: large results don't pile up.

    Args:
        function: Picklable function of one picklable item.
        workers: Number of processes; by default one a usable core. 1 stays in this process.
        description: Name of the work, for its progress.
        fewest: Number of items from which processes are worth their start; fewer stay in this process.
    """
    workers = min(workers or usable_cpus(), len(items))
    with progress(len(items), description, "clip") as bar:
        if workers <= 1 or len(items) < fewest:
            for item in items:
                yield function(item)
                bar.update()
            return
        size = max(1, min(8, len(items) // workers // 4))  # items sent together, as each message has its cost
        chunks = (items[start : start + size] for start in range(0, len(items), size))
        with process_pool(workers, function) as submit:
            running = deque(submit(*chunk) for chunk in islice(chunks, 3 * workers))
            while running:
                results = running.popleft().result()
                running.extend(submit(*chunk) for chunk in islice(chunks, 1))
                for result in results:
                    yield result
                    bar.update()


@contextlib.contextmanager
def process_pool(
    workers: int, function: Callable[[Item], Result]
) -> Iterator[Callable[..., Future[list[Result]]]]:
    """Worker processes that use one thread each, leave Ctrl-C to this process, and end with it.

    Each gets the picklable function of one item once.

    Returns:
        A function that sends items to one of the processes, and returns the future of their results.
    """
    # Not fork, which copies torch's locked threads. A fork server imports the package once for all.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stav2a.training.corpus", "stav2a.data.struck_objects"])
    started = context.Value("i", 0)  # so that each has a number
    with ProcessPoolExecutor(workers, context, _start_worker, (function, started)) as pool:
        try:
            yield partial(pool.submit, _call)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_function: Callable[[Any], Any]  # of a worker process
_number: int | None = None  # of a worker process


def worker_number() -> int | None:
    """Number of this worker process among its pool's, from 0; None in any other process."""
    return _number


def _start_worker(function: Callable[[Any], Any], started: Any) -> None:
    global _function, _number
    _function = function
    with started.get_lock():
        _number = started.value
        started.value += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    use_one_thread()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _call(*items: Any) -> list[Any]:
    return [_function(item) for item in items]


def use_one_thread() -> None:
    """One thread for this process's arrays and pictures: sums round alike, and processes do not compete."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
