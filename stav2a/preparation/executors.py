"""The local engine: worker processes on this machine, a few clips ahead of what is written."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from stav2a.data.prepared.shards import ClipRecord
from stav2a.preparation.clip_stages import ClipWork, failed
from stav2a.utils.errors import UsageError
from stav2a.utils.parallel import process_pool

AHEAD = 4  # clips given out for each worker
DIED = "the process that read it died, as from a lack of memory or a fault in a decoder. Leave it out."
_work: ClipWork | None = None  # of a worker process: its encoders are sent once, not with every clip


def run_local(work: ClipWork, positions: Iterable[int], workers: int) -> Iterator[ClipRecord]:
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
) -> Iterator[ClipRecord]:
    """Until all is done, or a process dies: then the clips that were under way are suspects."""
    running: dict[Future[ClipRecord], int] = {}
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


def _finished(running: dict[Future[ClipRecord], int], suspects: list[int]) -> Iterator[ClipRecord]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        position = running.pop(future)
        try:
            yield future.result()
        except BrokenProcessPool:
            suspects.append(position)


def alone(work: ClipWork, position: int) -> ClipRecord:
    """One clip in a process of its own; if that dies, the clip has failed."""
    with process_pool(1, _start, work) as pool:
        try:
            return pool.submit(_do, position).result()
        except BrokenProcessPool:
            return failed(work.decode.plan.entry(position), DIED)


def _start(work: ClipWork) -> None:
    global _work
    _work = work
    use_one_thread()


def _do(position: int) -> ClipRecord:
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


logger = logging.getLogger(__name__)
BLOCK = 16  # clips handed out together, at most


def run_ray(work: ClipWork, positions: Iterable[int], workers: int) -> Iterator[ClipRecord]:
    """Do the work on every clip; results come as they are finished.

    Args:
        work: Both stages.
        positions: Of the clips; all are known at the beginning, at 8 bytes each.
        workers: Processors to use on this machine; a cluster named by RAY_ADDRESS has its own.

    Raises:
        UsageError: Ray is not installed.
    """
    todo = np.fromiter(positions, np.int64)
    if not len(todo):
        return
    ray = _started(workers)
    try:
        blocks = np.array_split(todo, min(len(todo), max(workers, len(todo) // BLOCK)))
        clips = ray.data.from_numpy(blocks)
        gpus, cpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        if work.encode.encoders and gpus:
            clips = _mapped(ray, clips, work.decode, cpus, num_cpus=1)
            clips = _mapped(ray, clips, work.encode, gpus, num_cpus=0, num_gpus=1)
        else:
            clips = _mapped(ray, clips, work, cpus, num_cpus=1)
        left = set(todo.tolist())
        for each in clips.iter_rows():
            row = ClipRecord.unpack(each["row"])
            left.discard(row.position)
            yield row
    finally:
        ray.shutdown()
    if left:  # of blocks whose actor died, as often as it was tried
        logger.warning(
            "%d clips were not finished by Ray: each is done in a process of its own here", len(left)
        )
    for position in sorted(left):
        yield alone(work, position)


class RayActor:
    """A stage as Ray's actors call it: clips travel as bytes.

    Args:
        stage: Takes a position or a row, gives a row.
    """

    def __init__(self, stage: Callable[[Any], ClipRecord]) -> None:
        use_one_thread()
        self.stage = stage

    def __call__(self, given: dict[str, Any]) -> dict[str, bytes]:
        taken = ClipRecord.unpack(given["row"]) if "row" in given else int(given["data"])
        return {"row": self.stage(taken).pack()}


def _mapped(ray: Any, clips: Any, stage: Callable[[Any], ClipRecord], actors: int, **needs: int) -> Any:
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, actors))
    patience = {"max_restarts": -1, "max_task_retries": 1}  # a clip may kill its actor, and not for ever
    return clips.map(RayActor, fn_constructor_args=[stage], compute=pool, **needs, **patience)


def _started(workers: int) -> Any:
    """Ray, in the cluster that the environment names, or on this machine."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise UsageError(
            "--engine ray needs Ray: pip install 'stav2a[ray]'. Or leave --engine out."
        ) from None
    here = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **here)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # `run` tells of what was not done
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours shows more
    context.max_errored_blocks = -1  # see `run`: they are done again, a clip at a time
    return ray
