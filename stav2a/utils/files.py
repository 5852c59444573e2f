"""Files and folders that are there whole or not at all, and locks between processes."""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stav2a.utils.errors import UsageError


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends without an error.

    Raises:
        UsageError: The name is taken, or can't be had.
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


logger = logging.getLogger(__name__)


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
