"""One function over many items in worker processes of this machine."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from stav2a.utils.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
MOST_JOBS = 4  # by default; a run takes about 1 GB


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
    context = _context()
    started = context.Value("i", 0)  # so that each has a number
    with ProcessPoolExecutor(workers, context, _start_worker, (function, started)) as pool:
        try:
            yield partial(pool.submit, _call)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def default_jobs() -> int:
    """Number of processes that share the processors by default."""
    return min(usable_cpus(), MOST_JOBS)


def threads_of(jobs: int) -> int:
    """Number of threads of each of so many processes that share the processors."""
    return max(1, usable_cpus() // jobs)


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
    use_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _call(*items: Any) -> list[Any]:
    return [_function(item) for item in items]


def use_threads(count: int) -> None:
    """Set the threads of this process's tensors, and one for its pictures.

    With one, sums round alike everywhere, and processes do not compete.
    """
    import cv2
    import torch

    torch.set_num_threads(count)
    cv2.setNumThreads(1)


def keep_freed_memory() -> None:
    """Let the allocator keep what tensors free, where it is glibc's: each step asks for the same again.

    Giving pages back to the system, and getting them zeroed, took 5 to 10 % of a training step on a CPU.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's; larger arrays are not kept
        libc.mallopt(M_TRIM_THRESHOLD, 2**29)
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)


class SideProcess:
    """A process that works beside this one, takes messages, and ends with it, also by kill -9.

    Args:
        work: Picklable function of the process's end of a pipe.
    """

    def __init__(self, work: Callable[[Connection], None]) -> None:
        context = _context()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work_beside, args=(work, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, message: Any) -> bool:
        """Send a message; False if the process has ended."""
        try:
            self.pipe.send(message)
        except OSError:
            return False
        return True

    def answer(self) -> Any:
        """Wait for the next answer; None if the process has ended without one."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return None

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def _work_beside(work: Callable[[Connection], None], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other one's
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(pipe)


def _context() -> Any:
    """Context of new processes. Not fork, which copies torch's locked threads.

    A fork server imports the package once for all.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stav2a.training.corpus", "stav2a.data.struck_objects"])
    return context


def prepare_processes() -> None:
    """Begin to import what other processes will need, beside what this one does."""
    _context()
    forkserver.ensure_running()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
