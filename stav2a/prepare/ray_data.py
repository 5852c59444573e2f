"""The Ray Data engine: the same two stages, streamed over the machines of a cluster, or over this one.

Where there are GPUs, clips are decoded on processors and encoded by actors that hold the encoders, one a GPU;
else the same actors do both. Results come to this process, which alone writes, so the folder is the same as
the local engine's.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from stav2a.data.cache.layout import Row
from stav2a.errors import UsageError
from stav2a.prepare.local import alone, use_one_thread
from stav2a.prepare.stages import Work

logger = logging.getLogger(__name__)
BLOCK = 16  # clips handed out together, at most


def run(work: Work, positions: Iterable[int], workers: int) -> Iterator[Row]:
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
            row = Row.unpack(each["row"])
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


class Doing:
    """A stage as Ray's actors call it: clips travel as bytes.

    Args:
        stage: Takes a position or a row, gives a row.
    """

    def __init__(self, stage: Callable[[Any], Row]) -> None:
        use_one_thread()
        self.stage = stage

    def __call__(self, given: dict[str, Any]) -> dict[str, bytes]:
        taken = Row.unpack(given["row"]) if "row" in given else int(given["data"])
        return {"row": self.stage(taken).pack()}


def _mapped(ray: Any, clips: Any, stage: Callable[[Any], Row], actors: int, **needs: int) -> Any:
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, actors))
    patience = {"max_restarts": -1, "max_task_retries": 1}  # a clip may kill its actor, and not for ever
    return clips.map(Doing, fn_constructor_args=[stage], compute=pool, **needs, **patience)


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
