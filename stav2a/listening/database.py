"""Ratings in SQLite: each is on disk before it is answered, and several programs may write at once."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stav2a.utils.errors import StaV2AError
from stav2a.utils.files import atomic
from stav2a.utils.sqlite_files import set_aside


class ListenError(StaV2AError):
    """A folder, a name or a rating that can't be used."""


class StorageError(ListenError):
    """The database of ratings can't be read or written."""


LOWEST, HIGHEST = 1, 100


@dataclass(frozen=True)
class Scale:
    """A scale that videos are rated on.

    Args:
        name: Name in the database and in tables for programs.
        label: Abbreviation of the paper.
        title: Name of the scale, in the paper's words.
        question: Question to the annotator, in ours: the paper does not print its own.
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


@dataclass(frozen=True)
class Video:
    """One system's version of a clip.

    Args:
        token: Random name of the file and in the browser.
        clip: Name of the clip.
        system: Name of the system.
        seconds: Duration that is played: that of the shortest version of the clip.
        source: Hash of the files that it was made from.
    """

    token: str
    clip: str
    system: str
    seconds: float
    source: str


@dataclass(frozen=True)
class Rating:
    """One annotator's rating of a video on a scale; `played` is true once the video was played to its end."""

    annotator: str
    clip: str
    system: str
    scale: str
    value: int
    at: str
    played: bool


APPLICATION = 0x5354324C  # "ST2L", in the file's header
PATIENCE_S = 10.0  # for another program's write
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
    scale TEXT NOT NULL CHECK (scale IN ({", ".join(f"'{name}'" for name in NAMES)})),
    value INTEGER NOT NULL CHECK (value BETWEEN {LOWEST} AND {HIGHEST}), at TEXT NOT NULL,
    PRIMARY KEY (annotator, token, scale)
);
"""


@dataclass(frozen=True)
class Database:
    """The database file of one listening test.

    Args:
        path: Path of the file.
    """

    path: Path

    def create(self, settings: dict[str, Any], videos: Sequence[Video]) -> None:
        """Write a new one, whole or not at all.

        What a killed process left beside a former one, which was deleted, is set aside.
        """
        set_aside(self.path, "deleted")
        with atomic(self.path) as temporary, Database(temporary)._open() as connection:
            connection.executescript(_SCHEMA)
            connection.execute("INSERT INTO setup VALUES (?)", (json.dumps(settings),))
            connection.executemany("INSERT INTO videos VALUES (?, ?, ?, ?, ?)", map(astuple, videos))

    def read(self) -> tuple[dict[str, Any], list[Video]]:
        """Check the whole file, and return the test's settings, and all videos by clip and system.

        Raises:
            StorageError: The file is damaged, or of another program.
        """
        with self._open() as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise self._damaged(found)
            if connection.execute("PRAGMA application_id").fetchone() != (APPLICATION,):
                raise StorageError(f"{self.path}: not the database of a listening test. Give another folder.")
            (settings,) = connection.execute("SELECT settings FROM setup").fetchone()
            rows = connection.execute("SELECT * FROM videos ORDER BY clip, system").fetchall()
            return dict(json.loads(settings)), [Video(*row) for row in rows]

    def rate(self, annotator: str, token: str, scale: str, value: int) -> None:
        """Save a rating; the last one on a scale holds."""
        with self._open() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO ratings VALUES (?, ?, ?, ?, ?)",
                (annotator, token, scale, value, _now()),
            )

    def mark_played(self, annotator: str, token: str) -> None:
        """Save that a video was played to its end."""
        with self._open() as connection:
            connection.execute("INSERT OR IGNORE INTO heard VALUES (?, ?, ?)", (annotator, token, _now()))

    def played(self, annotator: str) -> set[str]:
        """Tokens of the videos that an annotator has played to their end."""
        with self._open() as connection:
            rows = connection.execute("SELECT token FROM heard WHERE annotator = ?", (annotator,)).fetchall()
        return {token for (token,) in rows}

    def ratings(self, annotator: str | None = None) -> list[Rating]:
        """Ratings of one annotator, or of all."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT annotator, clip, system, scale, value, ratings.at, heard.at IS NOT NULL "
                "FROM ratings JOIN videos USING (token) LEFT JOIN heard USING (annotator, token) "
                "WHERE ?1 IS NULL OR annotator = ?1 ORDER BY annotator, clip, system, scale",
                (annotator,),
            ).fetchall()
        return [Rating(*(*rating, bool(played))) for *rating, played in rows]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Connection for one transaction: committed, and on disk, when the block ends without an error."""
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE_S)) as connection:
                connection.execute("PRAGMA synchronous = EXTRA")  # also after a power cut
                connection.execute("PRAGMA foreign_keys = ON")
                with connection:
                    yield connection
        except sqlite3.IntegrityError as error:
            raise ListenError(f"this rating can't be saved: {error}.") from error
        except sqlite3.OperationalError as error:  # locked, read-only, disk full
            raise StorageError(
                f"{self.path}: can't be used ({error}). Look at the disk, then go on."
            ) from error
        except (sqlite3.DatabaseError, TypeError, json.JSONDecodeError) as error:  # or without its settings
            raise self._damaged(str(error)) from error

    def _damaged(self, reason: str) -> StorageError:
        return StorageError(
            f"{self.path}: damaged, or no database ({' '.join(reason.split())}). Put a copy of it back, or "
            "begin in another folder; `sqlite3 FILE .recover` may save ratings."
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
