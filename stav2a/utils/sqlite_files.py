"""Files of an SQLite database: the one of its name, and those that SQLite keeps beside it."""

import contextlib
import os
import uuid
from pathlib import Path

# Changes that are not finished. SQLite applies them to whatever database has the name before the ending.
BESIDE = ("-journal", "-wal", "-shm")


def set_aside(database: Path, reason: str) -> Path | None:
    """Rename a database and the files beside it, so that the next one of its name begins with nothing of it.

    Args:
        database: Path of the database, which may be missing.
        reason: Last part of the new name.

    Returns:
        The new path, to which the same endings are added; None where no file was there.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     (database := Path(folder, "mlflow.db")).with_name("mlflow.db-wal").touch()
        ...     set_aside(database, "deleted").name, [path.name for path in Path(folder).iterdir()]
        ('mlflow.db.deleted', ['mlflow.db.deleted-wal'])
    """
    endings = (*BESIDE, "")
    if not any(os.path.exists(f"{database}{ending}") for ending in endings):
        return None
    aside = named = database.with_name(f"{database.name}.{reason}")
    while any(os.path.exists(f"{aside}{ending}") for ending in endings):
        aside = named.with_name(f"{named.name}-{uuid.uuid4().hex[:8]}")
    for ending in endings:
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{database}{ending}", f"{aside}{ending}")
    return aside
