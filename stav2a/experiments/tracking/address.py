"""Addresses of tracking stores: from what the user wrote to one that MLflow takes, checked within seconds.

MLflow itself retries an unreachable store for minutes and makes a database of any misspelt path; here the
mistake is found before anything is trained, without importing mlflow.
"""

import difflib
import os
import re
import socket
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from stav2a.utils.errors import USAGE, StaV2AError

SERVERS = {"http": 80, "https": 443}
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
SCHEMES = ("sqlite", *SERVERS, *DATABASES, "databricks")
CONNECT_TIMEOUT_S = 3.0
EXPECTED = "none, sqlite:///FILE.db, http(s)://HOST:PORT, or postgresql://, mysql://, mssql://, databricks"


class TrackingError(StaV2AError):
    """A tracking store that can't be used."""

    separator = "\n  "


class AddressError(TrackingError):
    """A text that is no address of a store: a mistake of usage."""

    exit_code = USAGE


@dataclass(frozen=True)
class Address:
    """Address of a tracking store.

    Attributes:
        uri: Address as MLflow takes it.
        origin: Source of the address: "--tracking-uri", "MLFLOW_TRACKING_URI" or "the default store".
        artifacts: Folder of a new experiment's artifacts, as a URI. None leaves it to the server.
    """

    uri: str
    origin: str
    artifacts: str | None = None

    def __str__(self) -> str:
        return re.sub(r"://[^@/]*@", "://***@", self.uri)  # never a password on the screen or in a log

    @property
    def scheme(self) -> str:
        return self.uri.partition(":")[0].partition("+")[0].lower()

    @property
    def database(self) -> Path | None:
        """The SQLite file; None for other stores."""
        path = self.uri.removeprefix("sqlite:///").partition("?")[0]
        return Path(path) if self.scheme == "sqlite" else None

    def check(self) -> None:
        """Refuse a store that can't be written or does not answer.

        Raises:
            TrackingError: With what was tried, and what to do.
        """
        if self.database is not None:
            _check_file(self, self.database)
        elif self.scheme in SERVERS or self.scheme in DATABASES:
            _check_host(self)

    def error(self, problem: str, advice: str) -> TrackingError:
        message = f"{self.origin} is {self}: {problem}"
        return TrackingError(message, advice=f"{advice} --tracking-uri none tracks nothing.")


def resolve(uri: str | None, root: Path) -> Address | None:
    """Address of the tracking store, or None for "none".

    Args:
        uri: Value of `--tracking-uri`. None reads MLFLOW_TRACKING_URI, and without that takes
            `<root>/mlflow.db`.
        root: Folder of the run folders.

    Raises:
        AddressError: MLflow has no such stores.
    """
    origin = "--tracking-uri"
    if uri is None:
        uri, origin = os.environ.get("MLFLOW_TRACKING_URI") or None, "MLFLOW_TRACKING_URI"
    if uri is None:
        return _sqlite(root.resolve() / "mlflow.db", "", "the default store")
    uri = uri.strip()
    if uri.lower() == "none":
        return None
    given = Address(uri, origin)
    if uri != "databricks":
        _check_spelling(given)
    if given.scheme == "sqlite":
        path, mark, query = uri.removeprefix("sqlite:///").partition("?")
        return _sqlite(Path(path).expanduser().resolve(), mark + query, origin)
    artifacts = (root.resolve() / "mlartifacts").as_uri() if given.scheme in DATABASES else None
    return Address(uri.rstrip("/"), origin, artifacts)


def _sqlite(database: Path, query: str, origin: str) -> Address:
    return Address(f"sqlite:///{database}{query}", origin, (database.parent / "mlartifacts").as_uri())


def _check_spelling(given: Address) -> None:
    uri, scheme = given.uri, given.scheme
    if scheme == "sqlite":
        valid = bool(re.match(r"sqlite:///(?!:memory:)[^?]", uri))
    else:
        named = "://" in uri and (urlsplit(uri).hostname or scheme == "databricks")
        valid = scheme in SCHEMES and bool(named)
    if not valid:
        message = f'{given.origin} was given "{given}"; expected {EXPECTED}.'
        raise AddressError(message, advice=_advice(uri, scheme))


def _advice(uri: str, scheme: str) -> str:
    has_slashes = "://" in uri
    if scheme == "sqlite":
        return "Name the file after three slashes, four for an absolute path: sqlite:////data/mlflow.db."
    if scheme in SCHEMES:
        return f"Write it with two slashes and a host: {scheme}://HOST."
    close = difflib.get_close_matches(scheme, SCHEMES, n=1)
    if ":" in uri and close:
        return f"Did you mean {close[0]}:?"
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", uri):
        return f"Did you mean http://{uri}?"
    if uri.endswith((".db", ".sqlite")) and not has_slashes:
        return f"Did you mean sqlite:///{uri}?"
    if scheme == "file" or (uri and not has_slashes):
        folder = uri.removeprefix("file:").removeprefix("//").rstrip("/")
        return f"MLflow no longer keeps runs in plain folders. Write sqlite:///{folder}/mlflow.db."
    return "See docs/tracking.md."


def _check_file(store: Address, database: Path) -> None:
    folder = database.parent
    if re.search("[?%]", str(database)):
        raise store.error("MLflow can't keep a database in a path with ? or %.", "Choose another folder.")
    if store.origin == "the default store":
        folder.mkdir(parents=True, exist_ok=True)
    if not folder.is_dir():
        raise store.error(f"the folder {folder} does not exist.", "Make it, or correct the address.")
    if database.is_dir():
        raise store.error("that is a folder; expected a file.", f"Write sqlite:///{database}/mlflow.db.")
    try:
        with tempfile.TemporaryFile(dir=folder):  # SQLite writes its journal beside the file
            pass
        if database.exists():
            with database.open("r+b") as file:
                head = file.read(16)
            if head and head != b"SQLite format 3\0":
                raise store.error("the file is not an SQLite database.", "Choose another file.")
            if head and not _is_mlflow(database):
                raise store.error("the database belongs to another program.", "Choose another file.")
    except (OSError, sqlite3.Error) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise store.error(f"it can't be written ({problem}).", "Choose a place that can.") from error


def _is_mlflow(database: Path) -> bool:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return not found or ("alembic_version",) in found


def _check_host(store: Address) -> None:
    parts = urlsplit(store.uri)
    host = parts.hostname or ""
    try:
        port = parts.port or (SERVERS | DATABASES)[store.scheme]
    except ValueError as error:
        raise store.error(f"{error}.", "Correct the port.") from error
    if store.scheme in SERVERS and store.scheme in getproxies() and not proxy_bypass(host):
        return  # only the proxy can say; `wait` asks it, within its own time
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        problem = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        message = f"nothing answers at {host}:{port} ({problem})."
        raise store.error(message, "Start the server, or correct the address.") from error
