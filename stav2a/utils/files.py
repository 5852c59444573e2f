"""Files and folders that are there whole or not at all, and locks between processes."""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stav2a.utils.errors import UsageError

logger = logging.getLogger(__name__)

TEMPORARY = re.compile(r"\.tmp-(?P<host>[0-9a-f]{6})-(?P<process>\d+)-[0-9a-f]{8}(\.[\w-]+)?")
# Of the machine, and of the container, whose processes have numbers of their own.
PROCESSES = f"{socket.gethostname()} {os.stat('/proc/self/ns/pid').st_ino}"
HOST = hashlib.sha256(PROCESSES.encode()).hexdigest()[:6]
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EROFS)


def temporary_beside(path: Path) -> Path:
    """Temporary name in a path's folder, with the path's ending; `sweep` knows whose it is."""
    return path.with_name(f".tmp-{HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}{path.suffix}")


def sweep(paths: Iterable[Path]) -> None:
    """Remove those of some paths that are temporary and whose process, on this machine, has ended."""
    for path in list(paths):
        found = TEMPORARY.fullmatch(path.name)
        if found and found["host"] == HOST and not _runs(int(found["process"])):
            with contextlib.suppress(OSError):  # another user's, or in a folder that was removed
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Temporary name beside `path`, which takes its name when the block ends without an error.

    The file has the rights that the umask gives, also if it is written by a library that keeps it private.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        temporary.touch()
        rights = temporary.stat().st_mode
        yield temporary
        os.chmod(temporary, rights)
        flush_to_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def give_rights(path: Path) -> None:
    """Give a file the rights that the umask gives: some libraries keep what they write private."""
    probe = temporary_beside(path)
    probe.touch()
    try:
        os.chmod(path, probe.stat().st_mode)
    finally:
        probe.unlink()


def flush_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of files, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system that can't
            os.fsync(handle)
    finally:
        os.close(handle)


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
    """Folder to fill, which takes its name when the block ends without an error; else nothing is left.

    Raises:
        UsageError: The name is taken, or the folder can't be made.
    """
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} is there already. Choose another folder, or move it away first.")
    temporary = temporary_beside(path)
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"{path} can't be made ({error.strerror}). Choose a folder of your own.") from None
    try:
        yield temporary
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # the first that is not empty keeps those above it
            for parent in made:
                parent.rmdir()


def check_writable(output: Path) -> None:
    """Make a folder for results, and sweep it.

    Raises:
        UsageError: It can't be made, or can't be written to.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
        sweep(output.glob(".tmp-*"))
    except OSError as error:
        message = f"--output {output} can't be written ({error.strerror})."
        raise UsageError(message, advice="Choose a folder of your own.") from None


def check_replaced(folder: Path, names: Sequence[str], mark: str, *, overwrite: bool) -> None:
    """Refuse to replace files of the user's in a folder of results.

    Args:
        folder: The folder, there or not.
        names: Files, which have an ending, and folders, which will be written.
        mark: What the command leaves in each folder that it has made: files beside it are its own.
        overwrite: Whether the user gave --overwrite.

    Raises:
        UsageError: One of them is there, and no mark; or a folder stands in the place of a file.
    """
    found = next((folder / name for name in names if os.path.lexists(folder / name)), None)
    if found and not overwrite and not os.path.lexists(folder / mark):
        raise UsageError(
            f"{found} is there already, and this command did not make it. Choose another --output, or give "
            "--overwrite to replace it."
        )
    for name in names:
        if Path(name).suffix and (folder / name).is_dir():
            raise UsageError(f"{folder / name} is a folder, where a file is to be written. Move it away.")


@contextlib.contextmanager
def exclusive(lock: Path, what: str) -> Iterator[None]:
    """Run the block in one process at a time. The lock ends with the process, also after kill -9.

    Args:
        lock: File to lock, made if it is missing; it stays.
        what: What is made, for the line that says that another process is waited for.

    Raises:
        PermissionError: The file is another user's.
        OSError: It can't be locked, but for file systems without locks: there all make it, and one is kept.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        try:
            held.acquire(timeout=0)
        except Timeout:
            logger.warning("another process is making the %s: waiting for it", what)
            held.acquire()
    except NotImplementedError:  # filelock's word for a file system without locks
        pass
    except PermissionError as error:
        advice = "It may be another user's: let its owner make it writable for you, or choose another folder."
        raise PermissionError(f"{lock} can't be locked ({error.strerror}). {advice}") from error
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
    try:
        yield
    finally:
        held.release()


def is_locked(lock: Path) -> bool:
    """True while a process is in the `exclusive` block of this lock; False where there are no locks."""
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        return True
    except (NotImplementedError, OSError):  # which `exclusive` explains
        return False
    held.release()
    return False
