"""Ratings in SQLite: each is on the disk before it is answered, and several programs may write at once."""

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stav2a.listening.material import ListenError, StorageError, Video

LOWEST, HIGHEST = 1, 100


@dataclass(frozen=True)
class Scale:
    """What is rated.

    Args:
        name: In the database and in tables for programs.
        label: The paper's letters.
        title: What they stand for, in the paper's words.
        question: What a listener is asked, in ours: the paper does not print its own.
    """

    name: str
    label: str
    title: str
    question: str


# In the order of Table II: the parts first, then the whole.
SCALES = (
    Scale("aq", "AQ", "Audio quality", "The sound alone: is it clear and natural, free of noise and faults?"),
    Scale("sa", "SA", "Semantic alignment", "Are these the sounds of the things and events in the picture?"),
    Scale("ta", "TA", "Temporal alignment", "Do the sounds come at the moments when you see them happen?"),
    Scale("oq", "OQ", "Overall quality", "All in all: how good is this sound for this video?"),
)
NAMES = tuple(scale.name for scale in SCALES)


APPLICATION = 0x5354324C  # "ST2L", in the file's header
PATIENCE_S = 10.0  # for another program's write
_SCALES = ", ".join(f"'{name}'" for name in NAMES)
_SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
CREATE TABLE setup (settings TEXT NOT NULL);
CREATE TABLE videos (
    token TEXT PRIMARY KEY, clip TEXT NOT NULL, system TEXT NOT NULL, seconds REAL NOT NULL,
    source TEXT NOT NULL, UNIQUE (clip, system)
);
CREATE TABLE heard (
    annotator TEXT NOT NULL, token TEXT NOT NULL REFERENCES videos, at TEXT NOT NULL,
    PRIMARY KEY (annotator, token)
);
CREATE TABLE ratings (
    annotator TEXT NOT NULL, token TEXT NOT NULL REFERENCES videos,
    scale TEXT NOT NULL CHECK (scale IN ({_SCALES})),
    value INTEGER NOT NULL CHECK (value BETWEEN {LOWEST} AND {HIGHEST}), at TEXT NOT NULL,
    PRIMARY KEY (annotator, token, scale)
);
"""


@dataclass(frozen=True)
class Rating:
    """One figure that somebody gave; `heard` tells whether the video was played to its end."""

    annotator: str
    clip: str
    system: str
    scale: str
    value: int
    at: str
    heard: bool


@dataclass(frozen=True)
class Database:
    """The file of one listening test.

    Args:
        path: Where it lies.
    """

    path: Path

    def create(self, settings: dict[str, Any], videos: Sequence[Video]) -> None:
        """Write a new one, whole or not at all."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        with Database(temporary)._open() as connection:
            connection.executescript(_SCHEMA)
            connection.execute("INSERT INTO setup VALUES (?)", (json.dumps(settings),))
            connection.executemany("INSERT INTO videos VALUES (?, ?, ?, ?, ?)", map(astuple, videos))
        os.replace(temporary, self.path)

    def check(self) -> None:
        """Read the whole file once.

        Raises:
            StorageError: It is damaged, or of another program.
        """
        with self._open() as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            (application,) = connection.execute("PRAGMA application_id").fetchone()
        if found != "ok":
            raise self._damaged(found)
        if application != APPLICATION:
            raise StorageError(f"{self.path}: not the database of a listening test. Give another folder.")

    def settings(self) -> dict[str, Any]:
        """What the test was set up with."""
        with self._open() as connection:
            (text,) = connection.execute("SELECT settings FROM setup").fetchone()
            return dict(json.loads(text))

    def videos(self) -> list[Video]:
        """All of them, by clip and system."""
        with self._open() as connection:
            rows = connection.execute("SELECT * FROM videos ORDER BY clip, system").fetchall()
        return [Video(*row) for row in rows]

    def rate(self, annotator: str, token: str, scale: str, value: int) -> None:
        """Keep a rating; the last one on a scale holds."""
        with self._open() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO ratings VALUES (?, ?, ?, ?, ?)",
                (annotator, token, scale, value, _now()),
            )

    def mark_heard(self, annotator: str, token: str) -> None:
        """Keep that a video was played to its end."""
        with self._open() as connection:
            connection.execute("INSERT OR IGNORE INTO heard VALUES (?, ?, ?)", (annotator, token, _now()))

    def heard(self, annotator: str) -> set[str]:
        """The tokens of what somebody played to its end."""
        with self._open() as connection:
            rows = connection.execute("SELECT token FROM heard WHERE annotator = ?", (annotator,)).fetchall()
        return {token for (token,) in rows}

    def ratings(self, annotator: str | None = None) -> list[Rating]:
        """Of one annotator, or of all."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT annotator, clip, system, scale, value, ratings.at, heard.at IS NOT NULL "
                "FROM ratings JOIN videos USING (token) LEFT JOIN heard USING (annotator, token) "
                "WHERE ?1 IS NULL OR annotator = ?1 ORDER BY annotator, clip, system, scale",
                (annotator,),
            ).fetchall()
        return [Rating(*(*own, bool(heard))) for *own, heard in rows]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction: committed, and on the disk, when the block ends well."""
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE_S)) as connection:
                connection.execute("PRAGMA synchronous = EXTRA")  # also after a power cut
                connection.execute("PRAGMA foreign_keys = ON")
                with connection:
                    yield connection
        except sqlite3.IntegrityError as error:
            raise ListenError(f"this rating can't be kept: {error}.") from error
        except sqlite3.OperationalError as error:  # locked, read-only, disk full
            raise StorageError(
                f"{self.path}: can't be used ({error}). Look at the disk, then go on."
            ) from error
        except (sqlite3.DatabaseError, TypeError, json.JSONDecodeError) as error:  # or the set-up is gone
            raise self._damaged(str(error)) from error

    def _damaged(self, reason: str) -> StorageError:
        return StorageError(
            f"{self.path}: damaged, or no database ({' '.join(reason.split())}). Put a copy of it back, or "
            "begin in another folder; `sqlite3 FILE .recover` may save ratings."
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
