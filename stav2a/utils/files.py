"""Files and folders that are there whole or not at all, and locks between processes."""

import contextlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stav2a.utils.errors import UsageError

logger = logging.getLogger(__name__)
LONGEST_NAME = 255  # bytes, in most file systems


def temporary_name(path: Path) -> Path:
    """Name of a process's own beside a file, no longer than a name may be."""
    ending = f".{os.getpid()}{path.suffix}"
    stem = os.fsdecode(os.fsencode(path.stem)[: LONGEST_NAME - 1 - len(os.fsencode(ending))])
    return path.with_name(f".{stem}{ending}")


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Temporary name beside `path`, which takes its name when the block ends without an error.

    The file has the rights that the umask gives, also if it is written by a library that keeps it private.
    """
    path = Path(path)
    temporary = temporary_name(path)
    try:
        temporary.touch()
        rights = temporary.stat().st_mode
        yield temporary
        os.chmod(temporary, rights)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Folder to fill, which takes its name when the block ends without an error.

    Raises:
        UsageError: The name is taken, or the folder can't be made.
    """
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} is there already. Choose another folder, or move it away first.")
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"{path} can't be made ({error.strerror}). Choose a folder of your own.") from None
    try:
        yield temporary
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_writable(output: Path) -> None:
    """Make a folder for results.

    Raises:
        UsageError: It can't be made, or can't be written to.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"--output {output} can't be written ({error.strerror}). Choose a folder of your own."
        ) from None


def check_replaced(folder: Path, names: Iterable[str], mark: str, *, overwrite: bool) -> None:
    """Refuse to replace files of the user's in a folder of results.

    Args:
        folder: The folder, there or not.
        names: Files that will be written.
        mark: What the command leaves in each folder that it has made: files beside it are its own.
        overwrite: Whether the user gave --overwrite.

    Raises:
        UsageError: One of them is there, and no mark.
    """
    found = next((folder / name for name in names if os.path.lexists(folder / name)), None)
    if found and not overwrite and not os.path.lexists(folder / mark):
        raise UsageError(
            f"{found} is there already, and this command did not make it. Choose another --output, or give "
            "--overwrite to replace it."
        )


@contextlib.contextmanager
def exclusive(lock: Path, what: str) -> Iterator[None]:
    """Run the block in one process at a time. The lock ends with the process, also after kill -9.

    Args:
        lock: File to lock, made if it is missing; it stays.
        what: What is made, for the line that says that another process is waited for.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        logger.warning("another process is making the %s: waiting for it", what)
        held.acquire()
    except (OSError, NotImplementedError):  # a file system without locks: both make the same, one is kept
        pass
    try:
        yield
    finally:
        held.release()
