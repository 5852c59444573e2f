"""Tracker of a run: parameters, metrics, tags and files into an MLflow store, or nowhere.

Training never waits for the store: one thread empties a queue, metrics in batches once a second (a single
`log_metric` takes 10 ms). A store that fails after it has opened does not stop the training: each item is
tried three times, then counted as lost, with a warning. MLflow's own asynchronous logging covers metrics and
parameters alone, and tries once.
"""

import logging
import queue
import re
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from stav2a.experiments.tracking.tracking_store import TrackingError, TrackingStore
from stav2a.utils.program import module_command

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker:
    """Tracker of a run, without a store: `--tracking-uri none`. `MlflowTracker` has the same methods.

    As a context manager it ends the run: FINISHED, FAILED after an error, KILLED by Ctrl-C.
    """

    run_id: str | None = None

    @property
    def complete(self) -> bool:
        """True where the store took everything so far; after `finish` nothing is on its way any more."""
        return True

    def wait(self) -> None:
        """Wait until the store is open.

        Raises:
            TrackingError: It could not be opened. Call this before anything is trained.
        """

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log settings as text. A value longer than MLflow takes is cut, and says so."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log values of one step. Returns at once."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, read when the queue comes to it: leave it in place until `finish`."""

    def log_text(self, text: str, name: str) -> None:
        """Log a text as the artifact `name`."""

    def log_table(self, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        """Log a table, by its columns, as the artifact `name`; one that is there already stays."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags of the run; a tag can be set again."""

    def describe(self, text: str) -> None:
        """Set the run's description, in Markdown."""

    def set_experiment_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run's experiment; `NOTE` is its description."""

    def finish(self, status: Status = "FINISHED") -> None:
        """Send the rest and end the run. Calling it again does nothing."""

    def where(self) -> str:
        """Command or address, in one line, that shows the run."""
        return "not tracked (--tracking-uri none)"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, TrackingError):
            killed = isinstance(error, KeyboardInterrupt)
            self.finish("FINISHED" if error is None else "KILLED" if killed else "FAILED")


logger = logging.getLogger(__name__)
NOTE = "mlflow.note.content"  # the tag that MLflow shows as the description
MAX_KEY, MAX_PARAM, MAX_TAG, MAX_EXPERIMENT_TAG = 250, 6000, 8000, 5000  # characters, MLflow's limits
MAX_METRICS, MAX_PARAMS = 1000, 100  # items in one batch, MLflow's limits
FLUSH_S = 1.0
RETRY_AFTER_S = (1.0, 3.0)
OPEN_TIMEOUT_S = 60.0  # a new SQLite database takes up to 10 s on a slow disk
SERVER_TIMEOUT_S = 20.0
FINISH_TIMEOUT_S = 120.0


class MlflowTracker(Tracker):
    """Tracker of a run in an MLflow store; see `connect`."""

    def __init__(
        self,
        store: TrackingStore,
        experiment: str,
        run_name: str,
        tags: Mapping[str, str],
        run_id: str | None,
        span: tuple[float, float] | None = None,
    ) -> None:
        self.store = store
        self._began_ms = int(1000 * span[0]) if span else None
        self._ended_ms = int(1000 * span[1]) if span else None
        self.lost: list[str] = []
        self._mlflow = store.mlflow  # imported here, not in the thread
        self._run: Any = None
        self._failure: TrackingError | None = None
        self._opened, self._finished = threading.Event(), False
        self._metrics: deque[Any] = deque()
        self._kept: set[tuple[str, int, str]] = set()  # points of a continued run
        self._jobs: queue.SimpleQueue[tuple[str, Callable[[], object]] | None] = queue.SimpleQueue()
        begin = (experiment, run_name, tags, run_id)
        self._thread = threading.Thread(target=self._work, args=begin, name="tracking", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str:  # type: ignore[override]
        """Identifier of the run in the store, to continue it later. Waits until the store is open."""
        self.wait()
        return self._id

    @property
    def complete(self) -> bool:
        return not self.lost and not (self._finished and self._thread.is_alive())

    def wait(self) -> None:
        timeout_s = SERVER_TIMEOUT_S if self.store.is_server else OPEN_TIMEOUT_S
        if not self._opened.wait(timeout_s):
            raise self.store.error(f"it did not open within {timeout_s:.0f} s.", "Check whether it is busy.")
        if self._failure:
            raise self._failure

    def log_params(self, params: Mapping[str, Any]) -> None:
        texts = {_key(name): _cut(str(value), MAX_PARAM) for name, value in params.items()}
        self._put("parameters", lambda: self._send_params(texts))

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        if self._failure:
            raise self._failure
        metric, now_ms = self._mlflow.entities.Metric, int(time.time() * 1000)
        for name, value in metrics.items():
            self._metrics.append(metric(_key(name), float(value), now_ms, int(step)))

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        if not Path(path).is_file():
            raise TrackingError(f"the artifact {path} is not a file; write it before it is tracked.")
        self._put(str(path), lambda: self._client.log_artifact(self._id, str(path), folder))

    def log_text(self, text: str, name: str) -> None:
        self._put(name, lambda: self._client.log_text(self._id, text, name))

    def log_table(self, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        lists = {key: list(column) for key, column in columns.items()}

        folder = name.rpartition("/")[0] or None

        def send() -> None:  # once: MLflow would append to the table
            if name not in {artifact.path for artifact in self._client.list_artifacts(self._id, folder)}:
                self._client.log_table(self._id, lists, name)

        self._put(name, send)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        tag = self._mlflow.entities.RunTag
        new = [tag(_key(name), _cut(str(value), MAX_TAG)) for name, value in tags.items()]
        self._put("tags", lambda: self._client.log_batch(self._id, tags=new))

    def describe(self, text: str) -> None:
        self.set_tags({NOTE: text})

    def set_experiment_tags(self, tags: Mapping[str, str]) -> None:
        def send() -> None:
            for name, value in tags.items():
                cut = _cut(value, MAX_EXPERIMENT_TAG)
                self._client.set_experiment_tag(self._run.info.experiment_id, name, cut)

        self._put("the experiment's tags", send)

    def finish(self, status: Status = "FINISHED") -> None:
        if self._finished:
            return
        self._finished = True
        self.wait()
        self._put("the end", lambda: self._client.set_terminated(self._id, status, self._ended_ms))
        self._jobs.put(None)
        self._thread.join(FINISH_TIMEOUT_S)
        missing = "the rest, being too slow" if self._thread.is_alive() else ", ".join(sorted(set(self.lost)))
        if missing:
            logger.warning("%s lacks: %s. The run folder has all of it.", self.store, missing)

    def where(self) -> str:
        if self.store.is_server:
            self.wait()
            return self.store.run_url(self._run.info.experiment_id, self.run_id)
        return self.store.opened_by()

    def _put(self, what: str, job: Callable[[], object]) -> None:
        if self._failure:
            raise self._failure
        self._jobs.put((what, job))

    # From here on: run by the thread, but for `_id`.

    @property
    def _id(self) -> str:
        return str(self._run.info.run_id)

    def _work(self, experiment: str, run_name: str, tags: Mapping[str, str], run_id: str | None) -> None:
        try:
            self._open(experiment, run_name, tags, run_id)
        except TrackingError as error:
            self._failure = error
            return
        except Exception as error:  # whatever MLflow and its drivers raise is shown to the user
            text = str(error).strip().replace(self.store.uri, str(self.store))  # which hides a password
            first = next(iter(text.splitlines()), type(error).__name__)
            self._failure = self.store.error(f"MLflow can't use it: {first}", "Repair it, or choose another.")
            self._failure.__cause__ = error
            return
        finally:
            self._opened.set()
        while True:
            try:
                job = self._jobs.get(timeout=FLUSH_S)
            except queue.Empty:
                job = "", lambda: None  # only the metrics then
            while self._metrics:
                batch = [self._metrics.popleft() for _ in range(min(len(self._metrics), MAX_METRICS))]
                batch = [each for each in batch if _point(each) not in self._kept]
                self._attempt("metrics", partial(self._client.log_batch, self._id, metrics=batch))
            if job is None:
                return
            self._attempt(*job)

    def _open(self, experiment: str, run_name: str, tags: Mapping[str, str], run_id: str | None) -> None:
        self._client = self.store.client
        experiment_id = self._experiment_id(experiment)
        self._run = self._continued(run_id) if run_id else None
        if self._run is None:
            named = {"run_name": run_name, "tags": dict(tags)}
            self._run = self._client.create_run(experiment_id, start_time=self._began_ms, **named)
        else:
            self._client.update_run(run_id, status="RUNNING")
            for name in self._run.data.metrics:
                self._kept |= {_point(each) for each in self._client.get_metric_history(run_id, name)}
            self.set_tags(tags)

    def _experiment_id(self, name: str) -> str:
        known = self._client.get_experiment_by_name(name)
        if known is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=self.store.artifacts))
            except self._mlflow.exceptions.MlflowException:  # another process was faster
                known = self._client.get_experiment_by_name(name)
                if known is None:
                    raise
        if known.lifecycle_stage == "deleted":
            problem = f"its experiment {name!r} is deleted."
            restore = module_command("mlflow", "experiments", "restore", "-x", known.experiment_id)
            where = f"MLFLOW_TRACKING_URI={shlex.quote(str(self.store))}"
            raise self.store.error(problem, f"Restore it ({where} {restore}), or choose another name.")
        return str(known.experiment_id)

    def _continued(self, run_id: str) -> Any:
        try:
            run = self._client.get_run(run_id)
        except self._mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            run = None
        if run is not None and run.info.lifecycle_stage == "active":
            return run
        logger.warning("%s does not hold the tracked run %s any more: a new one begins.", self.store, run_id)
        return None

    def _send_params(self, params: Mapping[str, str]) -> None:
        kept = self._client.get_run(self._id).data.params  # MLflow never changes a parameter
        changed = sorted(name for name, value in params.items() if kept.get(name, value) != value)
        if changed:
            logger.warning("%s keeps the first value of %s.", self.store, ", ".join(changed))
        param = self._mlflow.entities.Param
        new = [param(name, value) for name, value in params.items() if name not in kept]
        for start in range(0, len(new), MAX_PARAMS):
            self._client.log_batch(self._id, params=new[start : start + MAX_PARAMS])

    def _attempt(self, what: str, job: Callable[[], object]) -> None:
        for pause_s in (0.0, *RETRY_AFTER_S):
            time.sleep(pause_s)
            try:
                job()
                return
            except Exception as error:  # the training continues without its tracking
                problem = error
        if not self.lost:
            logger.warning("%s did not take %s (%s). Training continues.", self.store, what, problem)
        self.lost.append(what)


def _key(name: str) -> str:
    """Name of the characters that MLflow takes: letters, digits and _-. :/ only."""
    return re.sub(r"/+", "/", re.sub(r"[^\w\-. :/]", "_", name)).strip("/")[:MAX_KEY]


def _point(metric: Any) -> tuple[str, int, str]:
    """Name, step and value of a metric; the value as text, as NaN equals NaN then."""
    return metric.key, metric.step, str(metric.value)


def _cut(text: str, limit: int) -> str:
    note = f" … (cut, {len(text)} characters)"
    return text if len(text) <= limit else text[: limit - len(note)] + note
