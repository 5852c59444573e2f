"""The store: finished results under the signature of all they depend on, and unfinished ones beside them."""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from stav2a.utils import distributed
from stav2a.utils.checkpoints import save_weights
from stav2a.utils.files import atomic, exclusive


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
            with self.exclusive(kind, key):
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
            if distributed.is_main() and not self.has(kind, key):
                locked.enter_context(self.exclusive(kind, key))
            if not distributed.broadcast_from_main(self.has(kind, key)):
                fill = make()
                if distributed.is_main():
                    with self.create(kind, key) as folder:
                        fill(folder)
            distributed.wait()
        return self.path(kind, key)

    def exclusive(self, kind: str, key: str) -> contextlib.AbstractContextManager[None]:
        """Keep all other processes out that would make the same entry: they wait."""
        return exclusive(self.root / "locks" / _name(kind, key), f"{kind} in {self.root}")

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


def _name(kind: str, key: str) -> str:
    return f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all."""
    with atomic(path) as temporary:
        save_weights(temporary, tensors)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file."""
    return load_file(path)
