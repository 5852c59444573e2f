"""The engines: worker processes on this machine, or Ray's actors on many."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from stav2a.data.prepared.shards import ClipRecord
from stav2a.preparation.clip_stages import ClipWork, failed
from stav2a.utils.errors import UsageError
from stav2a.utils.parallel import process_pool, use_threads

AHEAD = 4  # clips under way per worker: those written wait for no slower one
DIED = "the process that read it died, as from a lack of memory or a fault in a decoder. Leave it out."
logger = logging.getLogger(__name__)


def run_local(work: ClipWork, positions: Iterable[int], workers: int) -> Iterator[ClipRecord]:
    """Prepare every clip in processes of this machine; records come as they are finished.

    Positions are taken one by one and never far ahead; one worker is this process. A clip whose process dies
    is tried again alone, and fails if that process dies as well.
    """
    if workers == 1:
        with one_thread():
            yield from map(work, positions)
        return
    left = iter(positions)
    suspects: list[int] = [-1]
    while suspects:  # the clips that were under way when a process died, which ends its pool
        suspects = []
        with process_pool(workers, work) as submit:
            yield from _finished(submit, left, workers * AHEAD, suspects)
        for position in suspects:
            yield _alone(work, position)


def _finished(
    submit: Callable[..., Future[list[ClipRecord]]], left: Iterator[int], ahead: int, suspects: list[int]
) -> Iterator[ClipRecord]:
    """Records of one pool, until all clips are done or a process of it dies."""
    running: dict[Future[list[ClipRecord]], int] = {}
    while True:
        while not suspects and len(running) < ahead and (position := next(left, None)) is not None:
            try:
                running[submit(position)] = position
            except BrokenProcessPool:
                suspects.append(position)
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            position = running.pop(future)
            try:
                yield from future.result()
            except BrokenProcessPool:
                suspects.append(position)


def _alone(work: ClipWork, position: int) -> ClipRecord:
    """One clip in a process of its own; if that dies, the clip has failed."""
    with process_pool(1, work) as submit:
        try:
            return submit(position).result()[0]
        except BrokenProcessPool:
            return failed(work.decode.plan.entry(position), DIED)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for this process, as for the workers: sums round alike whatever the machine."""
    import cv2
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    use_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


BLOCK = 16  # clips that an actor takes together, at most


def run_ray(work: ClipWork, positions: Iterable[int], workers: int) -> Iterator[ClipRecord]:
    """Prepare every clip by Ray's actors; records come as they are finished.

    All positions are read at the beginning, at 8 bytes each. The workers are processors of this machine; a
    cluster named by RAY_ADDRESS has its own.

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
        if gpus and work.encode.encoders:
            clips = _mapped(ray, clips, work.decode, cpus, num_cpus=1)
            clips = _mapped(ray, clips, work.encode, gpus, num_cpus=0, num_gpus=1)
        else:
            clips = _mapped(ray, clips, work, cpus, num_cpus=1)
        left = set(todo.tolist())
        for each in clips.iter_rows():
            record = ClipRecord.unpack(each["record"])
            left.discard(record.position)
            yield record
    finally:
        ray.shutdown()
    if left:  # clips of blocks whose actor died at every attempt
        logger.warning("%d clips were not finished by Ray: each is done here, in a process alone", len(left))
    for position in sorted(left):
        yield _alone(work, position)


class RayActor:
    """A stage in the form that Ray's actors call, with records as bytes."""

    def __init__(self, stage: Callable[[Any], ClipRecord]) -> None:
        use_threads(1)
        self.stage = stage

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        item = ClipRecord.unpack(row["record"]) if "record" in row else int(row["data"])
        return {"record": self.stage(item).pack()}


def _mapped(ray: Any, clips: Any, stage: Callable[[Any], ClipRecord], actors: int, **needs: int) -> Any:
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, actors))
    retries = {"max_restarts": -1, "max_task_retries": 1}  # a clip may kill its actor, but not without end
    return clips.map(RayActor, fn_constructor_args=[stage], compute=pool, **needs, **retries)


def _started(workers: int) -> Any:
    """Ray, in the cluster that the environment names, or on this machine."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise UsageError(
            "--engine ray needs Ray: pip install 'stav2a[ray]'. Or leave --engine out."
        ) from None
    local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # `run_ray` reports what was not done
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the command's own shows more
    context.max_errored_blocks = -1  # their clips are done again, one at a time
    return ray
