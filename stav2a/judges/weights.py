"""Where a judge's published weights lie: named, or in one folder for all of them."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

ENVIRONMENT = "STAV2A_WEIGHTS"
_FOLDER: ContextVar[Path | None] = ContextVar("weights_folder", default=None)


@contextlib.contextmanager
def looked_for_in(folder: Path | None) -> Iterator[None]:
    """Inside, judges whose weights have no path of their own look into this folder; None changes nothing."""
    token = _FOLDER.set(folder if folder is not None else _FOLDER.get())
    try:
        yield
    finally:
        _FOLDER.reset(token)


def place(given: str | None, published: str) -> Path | None:
    """Where weights should be: a path that was given, or the published name in the folder of all.

    Args:
        given: A judge's own setting.
        published: The name under which the weights are published.
    """
    if given is not None:
        return Path(given)
    folder = _FOLDER.get() or os.environ.get(ENVIRONMENT)
    return Path(folder) / published if folder else None


def missing(what: str, at: Path | None, published: str) -> str | None:
    """What to say of weights that are not there; None where they are."""
    if at is None:
        return (
            f"weights of {what} not found: put {published} into a folder and name it with --weights-dir or "
            f"${ENVIRONMENT}"
        )
    return None if at.exists() else f"weights of {what} not found: put {published} here: {at}"


def fingerprint(file: Path) -> str:
    """The first letters of a file's sha256, to tell weights apart in definitions."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:12]
