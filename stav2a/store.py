"""The store: finished results under the signature of all they depend on, and unfinished ones beside them."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from stav2a import processes
from stav2a.checkpoints import save_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """A folder of results. An entry is there whole or not at all.

    Args:
        root: The folder; made when first written to.
    """

    root: Path

    def path(self, kind: str, key: str) -> Path:
        """Where the entry is, or would be."""
        return self.root / _name(kind, key)

    def has(self, kind: str, key: str) -> bool:
        """Whether the entry is finished."""
        return self.path(kind, key).is_dir()

    def obtain(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The finished entry. Where it is not there, `make` fills it, in one process at a time.

        Args:
            kind: What it is.
            key: All that it depends on.
            make: Fills the folder it is given.
        """
        if not self.has(kind, key):
            with self.alone(kind, key):
                if not self.has(kind, key):  # it may have been made while we waited
                    with self.create(kind, key) as folder:
                        make(folder)
        return self.path(kind, key)

    def obtain_together(self, kind: str, key: str, make: Callable[[], Callable[[Path], None]]) -> Path:
        """The finished entry, where all processes of a run have to work on it at once.

        Args:
            kind: What it is.
            key: All that it depends on.
            make: Called in every process of this run; what it returns fills a folder, in the main process.
        """
        with contextlib.ExitStack() as locked:
            if processes.is_main() and not self.has(kind, key):
                locked.enter_context(self.alone(kind, key))
            if not processes.told_by_main(self.has(kind, key)):
                fill = make()
                if processes.is_main():
                    with self.create(kind, key) as folder:
                        fill(folder)
            processes.wait()
        return self.path(kind, key)

    def alone(self, kind: str, key: str) -> contextlib.AbstractContextManager[None]:
        """Keep all other processes out that would make the same entry: they wait."""
        return alone(self.root / "locks" / _name(kind, key), f"{kind} in {self.root}")

    def partial(self, kind: str, key: str) -> Path:
        """A folder for an unfinished entry's own checkpoints, kept until the entry is finished."""
        folder = self.root / "partial" / _name(kind, key)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextlib.contextmanager
    def create(self, kind: str, key: str) -> Iterator[Path]:
        """A new folder to fill, renamed into place when the block ends without an error."""
        self.root.mkdir(parents=True, exist_ok=True)
        folder = self.root / f".{kind}-{uuid.uuid4().hex}"
        folder.mkdir()
        try:
            yield folder
            try:
                os.rename(folder, self.path(kind, key))
            except OSError:  # another process has finished it first
                if not self.has(kind, key):
                    raise
            shutil.rmtree(self.root / "partial" / _name(kind, key), ignore_errors=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """One process at a time. The lock ends with the process, however that ends.

    Args:
        lock: A file to lock, made if it is missing; it stays.
        what: Named to the user while we wait.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("another process is making the %s: waiting for it", what)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: both make the same, and one of them is kept
            pass
        yield


def _name(kind: str, key: str) -> str:
    return f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or none of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file or none of it."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_weights(temporary, tensors)
    os.replace(temporary, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file."""
    return load_file(path)
