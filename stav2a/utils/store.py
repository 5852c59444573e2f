"""Store of results, each under the signature of all it depends on, with unfinished ones beside them."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from stav2a.utils import distributed
from stav2a.utils.checkpoints import save_weights
from stav2a.utils.contents import MISSING, Contents, damage, files_in, hashes_of
from stav2a.utils.files import atomic, exclusive, flush_to_disk, is_locked, temporary_beside, write_json

CONTENT = "content.json"  # the label of an entry and the hashes of its files
POLL_EVERY_S = 0.1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """Folder of results. An entry is there whole or not at all, and checked before it is used.

    An entry has a kind, a key (the signature of all it depends on) and, where there are several of a kind, a
    name for the reader of the folder: `stage-joint-0c6233e3f1d2a4b5`.

    Args:
        root: The folder; made when first written to.
    """

    root: Path

    @classmethod
    def of(cls, output: Path) -> "Store":
        """Store in a folder of runs."""
        return cls(output / "store")

    @cached_property
    def contents(self) -> Contents:
        """Hashes of the files that the entries' keys depend on, as this process found them."""
        return Contents(self.root / "contents.json")

    def path(self, kind: str, key: str, name: str = "") -> Path:
        """Folder of the entry, finished or not."""
        return self.root / _label(kind, key, name)

    def has(self, kind: str, key: str, name: str = "") -> bool:
        """True where the entry is finished. Its files are not read; `find` does that."""
        return self.path(kind, key, name).is_dir()

    def find(self, kind: str, key: str, name: str = "") -> Path | None:
        """Folder of the finished entry, its files held against their hashes; None where it is missing.

        A damaged entry is missing too, with a warning; it is moved to `damaged/` when a new one is there.

        Raises:
            OSError: A file can't be read, for another reason than that it is missing.
        """
        path = self.path(kind, key, name)
        if not os.path.lexists(path):
            return None
        if fault := _fault(path):
            logger.warning("%s is damaged: %s. It is made again.", path, fault)
            return None
        return path

    def set_aside(self, kind: str, key: str, fault: str, name: str = "") -> None:
        """Move a finished entry that is of no use to `damaged/`, with a warning, so that it is made again."""
        path = self.path(kind, key, name)
        logger.warning("%s is damaged: %s. It is made again.", path, fault)
        self._move_aside(path)

    def obtain(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """Folder of the finished entry. Where it is missing, `make` fills it, in one process at a time."""
        path = self.path(kind, key)
        if self.find(kind, key) is None:
            with self.exclusive(kind, key):
                if _fault(path):  # it may have been made in the meantime
                    with self.create(kind, key) as folder:
                        make(folder)
        return path

    def obtain_together(
        self, kind: str, key: str, make: Callable[[], Callable[[Path], None]], name: str = ""
    ) -> Path:
        """Folder of the finished entry, where all processes of a run have to work on it at once.

        `make` is called in every process of this run; what it returns fills a folder, in the main process.
        """
        with contextlib.ExitStack() as locked:
            found = distributed.is_main() and self.find(kind, key, name) is not None
            if distributed.is_main() and not found:
                locked.enter_context(self.exclusive(kind, key, name))
                path = self.path(kind, key, name)
                found = not _fault(path)  # it may have been made in the meantime
            if not distributed.broadcast_from_main(found):
                fill = make()
                if distributed.is_main():
                    with self.create(kind, key, name) as folder:
                        fill(folder)
            distributed.wait()
        return self.path(kind, key, name)

    def exclusive(self, kind: str, key: str, name: str = "") -> contextlib.AbstractContextManager[None]:
        """Lock of an entry: other processes that would make it wait."""
        return self.lock(_label(kind, key, name), f"{kind} in {self.root}")

    def is_being_made(self, kind: str, key: str, name: str = "") -> bool:
        """True where the entry is missing, and a process has its lock."""
        lock = self.root / "locks" / _label(kind, key, name)
        return not self.has(kind, key, name) and lock.exists() and is_locked(lock)

    def lock(self, name: str, what: str) -> contextlib.AbstractContextManager[None]:
        """Lock of this name; `what` is made under it, for the line that says that it is waited for."""
        return exclusive(self.root / "locks" / name, what)

    def partial(self, kind: str, key: str, name: str = "") -> Path:
        """Folder for the checkpoints of an unfinished entry, kept until the entry is finished."""
        folder = self.root / "partial" / _label(kind, key, name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def folders(self, kind: str, key: str, name: str = "") -> list[Path]:
        """Folders of the entry that exist: the finished one, and the one of its checkpoints."""
        paths = [folder / _label(kind, key, name) for folder in (self.root, self.root / "partial")]
        return [path for path in paths if path.exists()]

    @contextlib.contextmanager
    def create(self, kind: str, key: str, name: str = "") -> Iterator[Path]:
        """Folder to fill, renamed into place when the block ends without an error."""
        path = self.path(kind, key, name)
        self.root.mkdir(parents=True, exist_ok=True)
        folder = temporary_beside(path)
        folder.mkdir()
        try:
            yield folder
            content = {"entry": path.name, "files": hashes_of(folder, files_in(folder))}
            write_json(folder / CONTENT, content)
            flush_to_disk(folder)
            if os.path.lexists(path) and _fault(path):
                self._move_aside(path)
            try:
                os.rename(folder, path)
                flush_to_disk(self.root)
            except OSError:  # another process has finished it first
                if not path.is_dir():
                    raise
            shutil.rmtree(self.root / "partial" / path.name, ignore_errors=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _move_aside(self, path: Path) -> None:
        (self.root / "damaged").mkdir(exist_ok=True)
        path.rename(self.root / "damaged" / f"{path.name}.{uuid.uuid4().hex[:8]}")


@dataclass(frozen=True)
class StoreTask:
    """An entry that a run takes from the store, or makes and leaves there.

    Args:
        kind: Kind of the entry.
        key: Its key.
        name: Its name.
        needs: Keys of the tasks that are to be done before.
        do: Takes the entry from the store, or makes it under its lock; in all processes of `torchrun`.
    """

    kind: str
    key: str
    name: str
    needs: frozenset[str]
    do: Callable[[], object]


def in_turn(
    tasks: Sequence[StoreTask],
    store: Store,
    on_wait: Callable[[StoreTask], None],
    poll_every_s: float = POLL_EVERY_S,
) -> Iterator[StoreTask]:
    """Tasks in an order that lets several processes on one store work side by side.

    A task comes when those that it needs are done here. First come those in the store that others wait for;
    then the missing ones that no process is making, of these first those that most tasks wait for; last the
    others in the store. What another process is making comes when it is finished.

    Args:
        tasks: The tasks.
        store: Store of their entries.
        on_wait: Called once with the first of the tasks, if all that may come are being made elsewhere.
        poll_every_s: Time between two looks at the store while waiting.
    """
    left = list(tasks)
    while left:
        found = _next(left, store, on_wait, poll_every_s) if distributed.is_main() else 0
        found = distributed.broadcast_from_main(found)
        yield left[found]
        del left[found]


def _next(
    left: Sequence[StoreTask], store: Store, on_wait: Callable[[StoreTask], None], poll_every_s: float
) -> int:
    """Number of the task that comes next; waits until there is one."""
    missing = {task.key for task in left}
    waiting = {task.key: {other.key for other in left if task.key in other.needs} for task in left}
    for _ in left:  # also those that wait for them
        waiting = {key: own.union(*(waiting[each] for each in own)) for key, own in waiting.items()}
    possible = [i for i, task in enumerate(left) if not task.needs & missing]
    possible.sort(key=lambda i: -len(waiting[left[i].key]))
    entries = {i: (left[i].kind, left[i].key, left[i].name) for i in possible}
    told = False
    while True:
        finished = [i for i in possible if store.has(*entries[i])]
        opening = [i for i in finished if waiting[left[i].key]]  # taken in a moment, and then others may come
        for i in dict.fromkeys([*opening, *(i for i in possible if i not in finished), *finished]):
            if not store.is_being_made(*entries[i]):
                return i
        if not told:
            on_wait(left[possible[0]])
            told = True
        time.sleep(poll_every_s)


def _fault(entry: Path) -> str:
    """Fault of an entry; empty where there is none."""
    if not entry.is_dir():
        return "it is no folder"
    try:
        content = json.loads((entry / CONTENT).read_text(encoding="utf-8"))
        written, hashes = content["entry"], content["files"]
    except MISSING:
        return f"{CONTENT} is missing"
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"{CONTENT} can't be read"
    if not isinstance(hashes, dict) or not hashes:
        return f"{CONTENT} lists no files"
    return f"it is the content of {written}" if written != entry.name else damage(entry, hashes)


def _label(kind: str, key: str, name: str = "") -> str:
    """Name of a folder or of a lock.

    Example:
        >>> _label("stage", "a", "joint"), _label("clips", "a")
        ('stage-joint-ca978112ca1bbdca', 'clips-ca978112ca1bbdca')
    """
    return "-".join(part for part in (kind, name, hashlib.sha256(key.encode()).hexdigest()[:16]) if part)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all."""
    with atomic(path) as temporary:
        save_weights(temporary, tensors)
