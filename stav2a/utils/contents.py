"""Hashes of files by their content: what a result depends on, and whether a file is still whole."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from tqdm import tqdm

from stav2a.utils.files import write_json

PROGRESS_FROM = 64  # files to read


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content.

    Raises:
        OSError: It can't be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        except FileNotFoundError:
            return f"{name} is missing"
    return ""


class Contents:
    """Hashes of files that results depend on, kept in a file between runs.

    A file is read again when its size, its times or its inode differ from those that it was hashed with.

    Args:
        cache: File of the hashes; made when there is something to keep.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        try:
            found = json.loads(cache.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # there is none yet, or it is damaged: everything is read again
            found = {}
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
        states = [(path, os.path.abspath(path), _state(path)) for path in files]
        new = [each for each in states if self._known.get(each[1], [None])[0] != each[2]]
        quiet = None if len(new) >= PROGRESS_FROM else True
        for path, name, state in tqdm(
            new, desc="reading the dataset", unit="file", leave=False, disable=quiet
        ):
            self._known[name] = [state, file_hash(path)]
        if new:
            self._keep()
        return [str(self._known[name][1]) for _, name, _ in states]

    def _keep(self) -> None:
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.cache, self._known)


def _state(path: Path) -> list[int]:
    """Size, inode and times of a file: a change of its content changes one of them."""
    found = path.stat()
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
