"""Tracking stores: addresses as users write them, checked within seconds, and the runs that they hold.

MLflow itself retries an unreachable store for minutes and makes a database of any misspelt path; here the
mistake is found before anything is trained, without importing mlflow.
"""

import difflib
import hashlib
import importlib
import json
import logging
import os
import re
import socket
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

from stav2a.utils.errors import USAGE, StaV2AError
from stav2a.utils.files import exclusive, sweep, temporary_beside
from stav2a.utils.program import command, module_command
from stav2a.utils.shipped import doc
from stav2a.utils.sqlite_files import set_aside

PARENT = "mlflow.parentRunId"  # the tag that makes a run the child of another
SERVERS = {"http": 80, "https": 443}
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
SCHEMES = ("sqlite", *SERVERS, *DATABASES, "databricks")
EXPECTED = "none, sqlite:///FILE.db, http(s)://HOST:PORT, or postgresql://, mysql://, mssql://, databricks"
CONNECT_TIMEOUT_S = 3.0
PATIENCE_S = 20.0  # with another program's lock on the database, as long as MLflow's own
AWAY = "Move it away, and all is tracked anew by the same command; or choose another file."
LOCAL_UI = "http://127.0.0.1:5000"
WITHIN = ""  # in place of an address's beginning: a link within MLflow's own pages
VIEW = "workflowType=machine_learning"  # MLflow would show its view of language models
ENVIRONMENT, DEFAULT = "MLFLOW_TRACKING_URI", "the default store"  # sources of an address
DEFAULT_OUTPUT = Path("runs")  # of the commands
SHARED_VIEW, BY_NAME, VIEWED = "mlflow.sharedViewState.", "attributes.run_name", ("row", "seed")
CHART = {"type": "BAR", "runsCountToCompare": 100, "deleted": False, "isGenerated": False}
MOST_CHARTS = 9  # MLflow keeps 5000 characters of a tag
MOST_RUNS = 5000
COLUMNS = "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c"
TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'sqlite_sequence'"
SECRET = re.compile("pass|pwd|secret|token|key|auth|cred|odbc_connect", re.IGNORECASE)  # names in a query
VERSION = "SELECT version_num FROM alembic_version"

logger = logging.getLogger(__name__)


class TrackingError(StaV2AError):
    """A tracking store that can't be used."""

    separator = "\n  "


class AddressError(TrackingError):
    """A text that is no address of a store: a mistake of usage."""

    exit_code = USAGE


class TrackedRun:
    """A run in a tracking store.

    Attributes:
        status: FINISHED, RUNNING, FAILED or KILLED.
        started_s: Time of its start, in seconds since 1970.
        seconds: Its duration; None while it runs.
        tags: Tags by name, without MLflow's own.
        metrics: Value of each metric at its highest step.
    """

    def __init__(self, run: Any) -> None:  # as MLflow has it
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self.name: str = run.info.run_name
        self.status: str = run.info.status
        self.started_s: float = run.info.start_time / 1000
        end_time = run.info.end_time
        self.seconds: float | None = None if end_time is None else end_time / 1000 - self.started_s
        tags = run.data.tags.items()
        self.tags: dict[str, str] = {name: value for name, value in tags if not name.startswith("mlflow.")}
        self.params: dict[str, str] = dict(run.data.params)
        self.metrics: dict[str, float] = dict(run.data.metrics)


@dataclass(frozen=True)
class TrackingStore:
    """A tracking store; see `resolve` and `open_store`.

    Attributes:
        uri: Address as MLflow takes it.
        origin: Source of the address: "--tracking-uri", "MLFLOW_TRACKING_URI" or "the default store".
        artifacts: Folder of a new experiment's artifacts, as a URI. None leaves it to the server.
        database: The SQLite file; None for other stores.
    """

    uri: str
    origin: str
    artifacts: str | None = None
    database: Path | None = None

    def __str__(self) -> str:
        return f"sqlite:///{self.database}" if self.database else _shown(self.uri)

    @property
    def key(self) -> str:
        """Identifying text of this store, without what may be secret, to be kept in files."""
        named = [pair for pair in parse_qsl(urlsplit(self.uri).query) if not SECRET.search(pair[0])]
        if self.database or not named:
            return str(self)
        return f"{self}?{hashlib.sha256(urlencode(sorted(named)).encode()).hexdigest()[:8]}"

    @property
    def scheme(self) -> str:
        return self.uri.partition(":")[0].partition("+")[0].lower()

    @property
    def is_server(self) -> bool:
        """True for an MLflow server, which has pages of its own."""
        return self.scheme in SERVERS

    def error(self, problem: str, advice: str) -> TrackingError:
        """Error that names the store and the source of its address."""
        message = f"{self.origin} is {self}: {problem}"
        return TrackingError(message, advice=f"{advice} --tracking-uri none tracks nothing.")

    def check(self) -> None:
        """Refuse a store that can't be written or does not answer.

        Raises:
            TrackingError: With what was tried, and what to do.
        """
        if self.database is not None:
            _check_file(self, self.database)
        elif self.is_server or self.scheme in DATABASES:
            _check_host(self)

    @cached_property
    def mlflow(self) -> Any:
        """The module mlflow: quiet, with no telemetry and no minutes of retries.

        To be imported in the main thread: two that import large packages at once can meet half-made modules.
        """
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ["DO_NOT_TRACK"] = "true"
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        import mlflow

        for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.store.db_migrations"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        if self.scheme in ("sqlite", *DATABASES):
            importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
        return mlflow

    @cached_property
    def client(self) -> Any:
        """MLflow's client, after one try to connect: MLflow hides the cause of a failure behind retries."""
        if self.database is not None:
            self._make(self.database)
        if self.scheme in ("sqlite", *DATABASES):
            import sqlalchemy

            engine = sqlalchemy.create_engine(self.uri)
            engine.connect().close()
            engine.dispose()
        return self.mlflow.MlflowClient(self.uri)

    def _make(self, database: Path) -> None:
        """Make the database where it is missing, or was left half-made, without content, by a kill."""
        self.mlflow  # noqa: B018  # quiet from here on
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with exclusive(database.with_name(f"{database.name}.lock"), f"database {database}"):
            if _may_find(database, "SELECT 1 FROM runs LIMIT 1"):
                return
            sweep(database.parent.glob(".tmp-*"))
            temporary = temporary_beside(database)
            try:
                SqlAlchemyStore(f"sqlite:///{temporary}", self.artifacts).engine.dispose()
                if database.exists():
                    if _complete(database, temporary):
                        return
                    if _holds_more(database, temporary):
                        upgrade = module_command("mlflow", "db", "upgrade", str(self))
                        advice = f"Upgrade it, after a copy ({upgrade}), or choose another."
                        raise self.error("it was written by another MLflow version.", advice)
                    aside = set_aside(database, "half-made")
                    logger.warning(
                        "%s was half-made, and empty: it was moved to %s, and is made anew.", database, aside
                    )
                elif aside := set_aside(database, "deleted"):
                    logger.warning(
                        "%s is made anew. What a killed process wrote to the former one was moved to %s-*.",
                        database,
                        aside,
                    )
                os.replace(temporary, database)
            except sqlite3.Error as error:
                raise self.error(f"it can't be read ({error}).", "Repair it, or choose another.") from error
            finally:
                temporary.unlink(missing_ok=True)

    def may_hold(self, run_id: str | None) -> bool:
        """False where a run is certainly missing: no database file, or not in it. Servers are not asked."""
        active = "SELECT 1 FROM runs WHERE run_uuid = ? AND lifecycle_stage = 'active'"
        return self.database is None or _may_find(self.database, active, run_id)

    def runs(self, tags: Mapping[str, str]) -> list[TrackedRun]:
        """Runs with all these tags, newest first."""
        marks = {name: '"' if "'" in value else "'" for name, value in tags.items()}  # there are no escapes
        wanted = [f"tags.`{name}` = {marks[name]}{value}{marks[name]}" for name, value in tags.items()]
        experiments = [each.experiment_id for each in self.client.search_experiments()]
        options = {"max_results": MOST_RUNS, "order_by": ["attributes.start_time DESC"]}
        found = self.client.search_runs(experiments, " and ".join(wanted), **options)
        return [TrackedRun(run) for run in found]

    def children(self, run_id: str) -> list[TrackedRun]:
        """Runs with this parent, newest first."""
        return self.runs({PARENT: run_id})

    def get(self, run_id: str) -> TrackedRun:
        """One run.

        Raises:
            TrackingError: The store does not hold it.
        """
        try:
            return TrackedRun(self.client.get_run(run_id))
        except self.mlflow.exceptions.MlflowException as error:
            raise self.error(f"it holds no run {run_id}.", "Name another run.") from error

    def study(self, name: str) -> TrackedRun:
        """The newest parent run of a study, by the study's name or the run's identifier.

        Raises:
            TrackingError: There is none.
        """
        found = self.runs({"kind": "study", "study": name})
        if found:
            return found[0]
        if len(name) == 32:  # an identifier
            return self.get(name)
        known = ", ".join(sorted({run.tags["study"] for run in self.runs({"kind": "study"})}))
        problem = f"it holds no study {name!r}, but {known or 'none at all'}."
        raise self.error(problem, "Name another, or run it with stav2a ablation.")

    def history(self, run: TrackedRun, metric: str) -> list[tuple[int, float]]:
        """Values of a metric over the steps; empty where the run has none."""
        points = self.client.get_metric_history(run.run_id, metric)
        return sorted({point.step: point.value for point in points}.items())

    def files(self, run: TrackedRun, folder: str = "") -> list[str]:
        """Names of the files of a run, in one of its folders."""
        return [each.path for each in self.client.list_artifacts(run.run_id, folder or None)]

    def file(self, run: TrackedRun, path: str) -> Path:
        """Copy of a run's file on this machine.

        Raises:
            TrackingError: There is none of this name, or it can't be fetched.
        """
        folder = Path(self._downloads.name) / run.run_id
        folder.mkdir(exist_ok=True)
        try:
            found = self.mlflow.artifacts.download_artifacts(
                run_id=run.run_id, artifact_path=path, tracking_uri=self.uri, dst_path=str(folder)
            )
        except Exception as error:  # the stores of artifacts raise errors of all kinds
            problem = f"the file {path} of the run {run.name} ({run.run_id}) can't be read."
            advice = "Run it again with --again, or see whether its artifacts have moved."
            raise self.error(problem, advice) from error
        return Path(found)

    def text(self, run: TrackedRun, path: str) -> str:
        """Text of a run's file."""
        return self.file(run, path).read_text(encoding="utf-8")

    def opened_by(self, *words: str) -> str:
        """Command that opens MLflow's pages of this store; further words are arguments of `dashboard`."""
        named: tuple[str | Path, ...] = ("--tracking-uri", str(self))
        if self.origin == ENVIRONMENT:
            named = ()
        elif self.origin == DEFAULT and self.database is not None:
            folder = self.database.parent
            named = () if folder == DEFAULT_OUTPUT.resolve() else ("--output", folder)
        return command("dashboard", *words, *named)

    def run_url(self, experiment_id: str, run_id: str, base: str | None = None) -> str:
        """Address of a run's page; `base` is used without a server."""
        return f"{self._base(base)}/#/experiments/{experiment_id}/runs/{run_id}?{VIEW}"

    def all_url(self, base: str | None = None) -> str:
        """Address of the list of experiments; `base` is used without a server."""
        return f"{self._base(base)}/#/experiments?{VIEW}"

    def compare_url(self, runs: Sequence[TrackedRun], base: str | None = None) -> str:
        """Address of MLflow's page that compares runs, the oldest first; `base` is used without a server."""
        runs = sorted(runs, key=lambda run: run.started_s)
        chosen = quote(json.dumps([run.run_id for run in runs], separators=(",", ":")))
        experiments = quote(json.dumps(sorted({run.experiment_id for run in runs})))
        return f"{self._base(base)}/#/compare-runs?runs={chosen}&experiments={experiments}&{VIEW}"

    def children_url(
        self, parent: TrackedRun, base: str | None = None, *, charts: bool = True, viewed: bool | None = None
    ) -> str:
        """Address of a run's children: their charts, or their list, in the view of `children_views`.

        `viewed` says whether that view is kept; by default it is looked up.

        MLflow folds children under their parent, without charts, unless they are sorted by something else
        than their time.
        """
        page = f"{self._base(base)}/#/experiments/{parent.experiment_id}/runs?{VIEW}"
        mode = "&compareRunsMode=CHART" if charts else ""
        view = _view_of(parent, charts=charts)
        if viewed is None:
            viewed = SHARED_VIEW + view in self.client.get_experiment(parent.experiment_id).tags
        if viewed:
            return f"{page}&viewStateShareKey={view}{mode}"
        wanted = quote(_children_of(parent))
        return f"{page}&searchFilter={wanted}&orderByKey={BY_NAME}&orderByAsc=true{mode}"

    def children_views(self, parent: TrackedRun, metrics: Sequence[str]) -> dict[str, str]:
        """Tags of an experiment with two views of a run's children.

        Their list is by name, with row, seed and some metrics; their charts begin with bars of the first of
        them, means of each row over its seeds. MLflow writes such tags itself, for its button "Share".
        """
        columns = [*(f"tags.`{name}`" for name in VIEWED), *(f"metrics.`{name}`" for name in metrics)]
        view = {
            "selectedColumns": columns,
            "columnOrder": columns,
            "searchFilter": _children_of(parent),
            "orderByKey": BY_NAME,
            "orderByAsc": True,
        }
        bars = [
            {**CHART, "uuid": name, "metricKey": name, "metricSectionId": "scores"}
            for name in metrics[:MOST_CHARTS]
        ]
        charts = {
            **view,
            "groupBy": {
                "aggregateFunction": "average",
                "groupByKeys": [{"mode": "tag", "groupByData": "row"}],
            },
            "compareRunSections": [
                {"uuid": "scores", "name": "Scores", "display": True, "isReordered": True}
            ],
            "compareRunCharts": bars,
        }
        return {
            SHARED_VIEW + _view_of(parent, charts=shown): json.dumps(state)
            for shown, state in ((False, view), (True, charts))
        }

    def _base(self, base: str | None) -> str:
        if base == WITHIN:
            return ""
        return str(self) if self.is_server else base or LOCAL_UI

    @cached_property
    def _downloads(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="stav2a-")


def _view_of(parent: TrackedRun, *, charts: bool) -> str:
    """Key of the view of a run's children, as charts or as a list."""
    return f"study-{parent.run_id[:8]}{'-charts' if charts else ''}"


def _children_of(parent: TrackedRun) -> str:
    """MLflow's filter of a run's children."""
    return f"tags.`{PARENT}` = '{parent.run_id}'"


def resolve(uri: str | None, root: Path) -> TrackingStore | None:
    """The tracking store, or None for "none".

    Args:
        uri: Value of `--tracking-uri`. None reads MLFLOW_TRACKING_URI, and without that takes
            `<root>/mlflow.db`.
        root: Folder of the run folders.

    Raises:
        AddressError: MLflow has no such stores.
        TrackingError: MLflow can't keep a database there.
    """
    origin = "--tracking-uri"
    if uri is None:
        uri, origin = os.environ.get(ENVIRONMENT) or None, ENVIRONMENT
    if uri is None:
        return _sqlite(root.resolve() / "mlflow.db", DEFAULT)
    uri = uri.strip()
    if uri.lower() == "none":
        return None
    given = TrackingStore(uri, origin)
    _check_spelling(given)
    if given.scheme == "sqlite":
        path, mark, query = uri.removeprefix("sqlite:///").partition("?")
        return _sqlite(Path(path).expanduser().resolve(), origin, mark + query)
    beside = (root.resolve() / "mlartifacts").as_uri() if given.scheme in DATABASES else None
    return TrackingStore(uri.rstrip("/"), origin, beside)


def _sqlite(database: Path, origin: str, query: str = "") -> TrackingStore:
    artifacts = (database.parent / "mlartifacts").as_uri()
    store = TrackingStore(f"sqlite:///{database}{query}", origin, artifacts, database)
    if re.search("[?%]", str(database)):  # MLflow would cut or decode the path
        raise store.error("MLflow can't keep a database in a path with ? or %.", "Choose another folder.")
    return store


def open_store(uri: str | None, root: Path) -> TrackingStore:
    """Open a store to read from.

    Args:
        uri: Address of the store; see `resolve`.
        root: Folder of the run folders; the default store lies in it.

    Raises:
        TrackingError: Nothing is tracked there, or it can't be read.
    """
    store = resolve(uri, root)
    if store is None:
        message = "--tracking-uri none tracks nothing, so there is nothing to read."
        raise TrackingError(message, advice="Name a store.")
    if store.database is not None and not store.database.exists():
        raise store.error("there is no such file yet.", "Track a run first, or name another --output.")
    store.check()
    return store


def _shown(uri: str) -> str:
    """Address without user, password and query: never a password on the screen, in a log or in a file.

    A password may hold @, / and ? that should have been written as %40, %2F and %3F.

    Example:
        >>> _shown("postgresql://me:p@s/s@host/runs?password=secret"), _shown("http://host:5000/a")
        ('postgresql://***@host/runs', 'http://host:5000/a')
    """
    start = re.match(r"([\w+.-]*:)?/*", uri)[0]  # type: ignore[index]  # it matches anything
    address, _, query = uri.removeprefix(start).partition("?")
    if "@" in query:  # what is before it may be a password
        return f"{start}***"
    if "@" in address and re.match("[^/]*[:@]", address):
        return f"{start}***@{address.rpartition('@')[2]}"
    return start + address


def _may_find(database: Path, query: str, *values: str | None) -> bool:
    """False where a query certainly finds no run: no file, no database, no table of runs, or no row."""
    if not database.exists():
        return False
    try:
        with closing(sqlite3.connect(database)) as connection:
            made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone()
            return bool(made and connection.execute(query, values).fetchone())
    except sqlite3.OperationalError:  # it can't be read now
        return True
    except sqlite3.DatabaseError:  # it is none, or damaged
        return False


def _complete(database: Path, new: Path) -> bool:
    """True where a database has the version and all columns of a new one."""
    with closing(sqlite3.connect(database)) as ours, closing(sqlite3.connect(new)) as theirs:
        missing = set(theirs.execute(COLUMNS)) - set(ours.execute(COLUMNS))
        return not missing and set(theirs.execute(VERSION)) == set(ours.execute(VERSION))


def _holds_more(database: Path, new: Path) -> bool:
    """True where a database has a row that MLflow did not write itself, as into a new one."""
    default = {"experiment_id": 0, "name": "Default"}.items()
    with closing(sqlite3.connect(database)) as ours, closing(sqlite3.connect(new)) as theirs:
        ours.row_factory = theirs.row_factory = sqlite3.Row
        known = {name for (name,) in theirs.execute(TABLES)}
        for table in {name for (name,) in ours.execute(TABLES)} - {"alembic_version"}:
            rows = f'SELECT * FROM "{table}"'
            usual = [dict(row) for row in theirs.execute(rows)] if table in known else []
            for row in map(dict, ours.execute(rows)):
                if row not in usual and not (table == "experiments" and default <= row.items()):
                    return True
    return False


def _check_spelling(given: TrackingStore) -> None:
    uri, scheme = given.uri, given.scheme
    if scheme == "sqlite":
        valid = bool(re.match(r"sqlite:///(?!:memory:)[^?]", uri))
    elif scheme == "databricks":
        valid = uri == scheme or "://" in uri
    else:
        valid = scheme in SCHEMES and "://" in uri and bool(urlsplit(uri).hostname)
    if not valid:
        message = f'{given.origin} was given "{given}"; expected {EXPECTED}.'
        raise AddressError(message, advice=_advice(str(given), scheme))


def _advice(uri: str, scheme: str) -> str:
    if scheme == "sqlite":
        return "Name the file after three slashes, four for an absolute path: sqlite:////data/mlflow.db."
    if scheme in SCHEMES:
        return f"Write it with two slashes and a host: {scheme}://HOST."
    close = difflib.get_close_matches(scheme, SCHEMES, n=1)
    if ":" in uri and close:
        return f"Did you mean {close[0]}:?"
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", uri):
        return f"Did you mean http://{uri}?"
    if uri.endswith((".db", ".sqlite")) and "://" not in uri:
        return f"Did you mean sqlite:///{uri}?"
    if scheme == "file" or (uri and "://" not in uri):
        folder = uri.removeprefix("file:").removeprefix("//").rstrip("/")
        return f"MLflow no longer keeps runs in plain folders. Write sqlite:///{folder}/mlflow.db."
    return f"See {doc('tracking.md')}."


def _check_file(store: TrackingStore, database: Path) -> None:
    folder = database.parent
    if store.origin == DEFAULT:
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
            unfinished = Path(f"{database}-journal").exists()  # by which SQLite mends the file first
            if head and head != b"SQLite format 3\0" and not unfinished:
                raise store.error("the file is not an SQLite database.", AWAY)
            # mode=ro could not undo what a killed process left half-written
            address = f"{database.as_uri()}?mode=rw"
            with closing(sqlite3.connect(address, timeout=PATIENCE_S, uri=True)) as connection:
                tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            if tables and not {("alembic_version",), ("experiments",)} & set(tables):  # both are MLflow's
                raise store.error("the database belongs to another program.", "Choose another file.")
    except (OSError, sqlite3.OperationalError) as error:
        if getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
            raise store.error("another program is writing to it.", "Run the command again.") from error
        problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise store.error(f"it can't be written ({problem}).", "Choose a place that can.") from error
    except sqlite3.DatabaseError as error:
        raise store.error(f"the file is damaged ({error}).", AWAY) from error


def _check_host(store: TrackingStore) -> None:
    parts = urlsplit(store.uri)
    host = parts.hostname or ""
    try:
        port = parts.port or (SERVERS | DATABASES)[store.scheme]
    except ValueError as error:
        advice = "Correct it; in a password write @ / ? # as %40 %2F %3F %23."
        raise store.error("its port is not a number up to 65535.", advice) from error
    if store.scheme in SERVERS and store.scheme in getproxies() and not proxy_bypass(host):
        return  # only the proxy can say; `wait` asks it, within its own time
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        problem = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        message = f"nothing answers at {host}:{port} ({problem})."
        raise store.error(message, "Start the server, or correct the address.") from error
