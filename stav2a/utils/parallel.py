"""The same function over many items in worker processes, with a progress bar."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    description: str,
    progress: bool = True,
    fewest: int = 16,
) -> Iterator[Result]:
    """`map` in order. The results do not depend on the number of workers.

    Workers stay a little ahead of whoever takes the results, and no more: large results don't pile up.

    Args:
        function: Picklable; must not use torch, whose threads workers would fight over.
        items: Picklable.
        workers: Processes; by default one a core. 1 stays in this process.
        description: What the progress bar says.
        progress: Show the bar.
        fewest: Fewer items stay in this process: starting others would take longer.
    """
    workers = min(workers or os.cpu_count() or 1, len(items))
    bar = tqdm(total=len(items), desc=description, unit="clip", disable=None if progress else True)
    with bar:
        if workers <= 1 or len(items) < fewest:
            for item in items:
                yield function(item)
                bar.update()
            return
        with process_pool(workers) as pool:
            for result in _ahead(pool, function, items, workers):
                yield result
                bar.update()


@contextlib.contextmanager
def process_pool(
    workers: int, start: Callable[..., None] | None = None, *given: object
) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that leave Ctrl-C to this one, end with it, and use one thread.

    Args:
        workers: How many.
        start: Called first in each of them.
        given: What with; sent once to each.
    """
    # Not fork, which copies torch's locked threads. A fork server imports the package once for all.
    servable = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if servable else "spawn")
    if servable:
        context.set_forkserver_preload(["stav2a.data.decoded", "stav2a.data.struck_objects"])
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(start, given)
    ) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ahead(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """`pool.map`, but with so many items in hand at most; in chunks, as each has its cost."""
    size = max(1, min(8, len(items) // workers // 4))
    chunks = (items[start : start + size] for start in range(0, len(items), size))
    running = deque(pool.submit(_each, function, chunk) for chunk in islice(chunks, 3 * workers))
    while running:
        results = running.popleft().result()
        running.extend(pool.submit(_each, function, chunk) for chunk in islice(chunks, 1))
        yield from results


def _each(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]


def _start_worker(start: Callable[..., None] | None, given: Sequence[object]) -> None:
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*given)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
