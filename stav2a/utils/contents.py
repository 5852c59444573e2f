"""Hashes of files by their content: what a result depends on, and whether a file is still whole."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stav2a.utils.errors import StaV2AError
from stav2a.utils.files import write_json
from stav2a.utils.progress import progress

PROGRESS_FROM = 64  # files to read
MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)  # errors where there is no such file


class FileState(NamedTuple):
    """Size, inode and times of a file: a change of its content changes one of them."""

    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int


class ChangedError(StaV2AError):
    """A file that changed between its hash and the end of its reading: what was read is not stored."""


def file_state(path: Path) -> FileState:
    """The present state of a file."""
    found = path.stat()
    return FileState(found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content.

    Raises:
        OSError: It can't be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class HashedFile:
    """A file, its state before it was hashed, and the hash of its content."""

    path: Path
    state: FileState
    content: str

    @classmethod
    def of(cls, path: Path) -> "HashedFile":
        """Hash a file.

        Raises:
            OSError: It can't be read.
        """
        return cls(path, file_state(path), file_hash(path))

    def check_unchanged(self) -> None:
        """Make sure, after the file was read, that it is still what was hashed.

        Raises:
            ChangedError: Its state is another one, or it does not exist.
        """
        try:
            same = file_state(self.path) == self.state
        except OSError:
            same = False
        if not same:
            advice = "Give the command again when nothing writes to it."
            raise ChangedError(f"{self.path} changed while it was read.", advice=advice)


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, in order of their paths; hidden ones are left out."""
    found = (path for path in folder.rglob("[!.]*") if path.is_file())
    return sorted(
        path for path in found if not any(part[0] == "." for part in path.relative_to(folder).parts)
    )


def hashes_of(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Hashes of files by their path in a folder, for `damage`."""
    return {file.relative_to(folder).as_posix(): file_hash(file) for file in files}


def damage(folder: Path, hashes: Mapping[str, str]) -> str:
    """Fault of a folder's files, by their hashes when they were written; empty if there is none.

    Raises:
        OSError: One can't be read, for another reason than that it is missing.
    """
    for name, expected in hashes.items():
        try:
            if file_hash(folder / name) != expected:
                return f"{name} is not what was written"
        except MISSING:
            return f"{name} is missing"
    return ""


class Contents:
    """Hashes of files that results depend on, kept in a file between runs.

    A file is read again when its size, its times or its inode differ from those that it was hashed with.

    Args:
        cache: File of the hashes, made when there is something to keep; None keeps them in memory alone.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self.cache = cache
        try:
            found = json.loads(cache.read_text(encoding="utf-8")) if cache else {}
        except (OSError, ValueError):  # there is none yet, or it is damaged: everything is read again
            found = {}
        self._asked: dict[str, HashedFile] = {}
        known = found.items() if isinstance(found, dict) else ()
        self._known = {name: kept for name, kept in known if isinstance(kept, list) and len(kept) == 2}

    def of(self, path: Path) -> str | None:
        """Hash of a file's content, or of a folder's files with their names; None where there is nothing."""
        if path.is_file():
            return self.of_files([path])[0]
        if not path.is_dir():
            return None
        files = files_in(path)
        names = [file.relative_to(path).as_posix() for file in files]
        named = list(zip(names, self.of_files(files), strict=True))
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()

    def of_files(self, files: Iterable[Path]) -> list[str]:
        """Hashes of files, in their order.

        Raises:
            OSError: One can't be read.
        """
        states = [(path, os.path.abspath(path), file_state(path)) for path in files]
        new = [each for each in states if self._known.get(each[1], [None])[0] != list(each[2])]
        shown = len(new) >= PROGRESS_FROM
        with progress(len(new), "reading the dataset", "file", leave=False, shown=shown) as bar:
            for path, name, state in bar.counted(new):
                self._known[name] = [list(state), file_hash(path)]
        if new:
            self._keep()
        found = {name: HashedFile(path, state, str(self._known[name][1])) for path, name, state in states}
        self._asked |= found
        return [found[name].content for _, name, _ in states]

    def check_unchanged(self, files: Iterable[Path] | None = None) -> None:
        """Refuse files that are not as they were when their hash was asked for, after they were read.

        Args:
            files: The files; those whose hash was not asked for are left out. None is all whose hash was.

        Raises:
            ChangedError: One has changed since.
        """
        names = list(self._asked) if files is None else map(os.path.abspath, files)
        for name in names:
            if asked := self._asked.get(name):
                asked.check_unchanged()

    def _keep(self) -> None:
        if self.cache:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.cache, self._known)
