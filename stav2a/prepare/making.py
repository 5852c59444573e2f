"""Clips into shards: what is there is left, what is missing is made, whatever happens on the way."""

from collections.abc import Callable, Iterable, Iterator

from tqdm import tqdm

from stav2a.data.cache.layout import DROPPED, FAILED, KEPT, Row
from stav2a.prepare.folder import Folder
from stav2a.prepare.stages import Work

Engine = Callable[[Work, Iterable[int], int], Iterator[Row]]


def make_shards(folder: Folder, work: Work, engine: Engine, workers: int) -> None:
    """Bring every shard to its end.

    A shard holds the same clips in the same order whatever the engine and the number of workers; a finished
    clip is on disk before the next is asked for, so that a killed process loses only what it had in hand.

    Args:
        folder: Where to.
        work: What is done to a clip.
        engine: Who does it.
        workers: How many at a time.
    """
    plan = folder.plan
    waiting: dict[int, set[int]] = {}
    with Progress(plan.clips) as progress:
        for row in engine(work, _missing(folder, waiting, progress), workers):
            shard = row.position // plan.shard_clips
            folder.write(folder.part(shard, row.position), row.pack())
            progress.add(row.facts["status"])
            waiting[shard].discard(row.position)
            if not waiting[shard]:
                folder.close(shard, plan.positions(shard))
                del waiting[shard]


def _missing(folder: Folder, waiting: dict[int, set[int]], progress: "Progress") -> Iterator[int]:
    """The clips still to do, shard by shard."""
    plan = folder.plan
    for shard in range(plan.shards):
        positions = plan.positions(shard)
        missing = folder.missing(shard, positions)
        progress.skip(len(positions) - len(missing))
        if folder.shard(shard).exists():
            continue
        if missing:
            waiting[shard] = set(missing)
            yield from missing
        else:
            folder.close(shard, positions)


class Progress:
    """A bar with clips a second, the time left, and how many were kept, dropped, and failed.

    Args:
        clips: All of them.
    """

    def __init__(self, clips: int) -> None:
        self.bar = tqdm(total=clips, desc="preparing clips", unit="clip", disable=None, smoothing=0.1)
        self.counts = dict.fromkeys((KEPT, DROPPED, FAILED), 0)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def skip(self, clips: int) -> None:
        """Clips that were there: they count, but not for the speed."""
        if not self.bar.disable:
            self.bar.initial += clips
            self.bar.update(clips)

    def add(self, status: str) -> None:
        """A clip made now."""
        self.counts[status] += 1
        self.bar.set_postfix(self.counts, refresh=False)
        self.bar.update()
