"""Reading a tracking store: runs, their figures, their curves, their files."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stav2a.experiments.tracking.address import SERVERS, Address, TrackingError, resolve
from stav2a.experiments.tracking.tracker import PARENT

LOCAL_UI = "http://127.0.0.1:5000"
MOST_RUNS = 5000


@dataclass(frozen=True)
class TrackedRun:
    """A run as the store has it.

    Args:
        run_id: Its identifier.
        experiment_id: Of its experiment.
        name: Its name.
        status: FINISHED, RUNNING, FAILED or KILLED.
        tags: By name, MLflow's own left out.
        params: Settings by name.
        metrics: The value of each at its highest step.
        started_s: When it began, in seconds since 1970.
        ended_s: When it ended, or None.
    """

    run_id: str
    experiment_id: str
    name: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    started_s: float
    ended_s: float | None


class TrackingStore:
    """A tracking store to read from; see `open_store`."""

    def __init__(self, address: Address) -> None:
        self.address = address

    @property
    def is_server(self) -> bool:
        """Whether MLflow itself runs there, and has pages to look at."""
        return self.address.scheme in SERVERS

    def runs(self, tags: Mapping[str, str]) -> list[TrackedRun]:
        """The runs with all these tags, newest first."""
        wanted = " and ".join(f"tags.`{name}` = {_quoted(value)}" for name, value in tags.items())
        experiments = [each.experiment_id for each in self._client.search_experiments()]
        found = self._client.search_runs(
            experiments, wanted, max_results=MOST_RUNS, order_by=["attributes.start_time DESC"]
        )
        return [_kept(run) for run in found]

    def children(self, run_id: str) -> list[TrackedRun]:
        """The runs whose parent it is, newest first."""
        return self.runs({PARENT: run_id})

    def get(self, run_id: str) -> TrackedRun:
        """One run.

        Raises:
            TrackingError: The store does not hold it.
        """
        try:
            return _kept(self._client.get_run(run_id))
        except self._mlflow.exceptions.MlflowException as error:
            raise self.address.error(f"it holds no run {run_id}.", "Name another run.") from error

    def study(self, name: str) -> TrackedRun:
        """The newest parent run of a study, by the study's name or the run's identifier.

        Raises:
            TrackingError: There is none.
        """
        found = self.runs({"kind": "study", "study": name})
        if found:
            return found[0]
        known = sorted({run.tags["study"] for run in self.runs({"kind": "study"})})
        if len(name) == 32:  # an identifier
            return self.get(name)
        raise self.address.error(
            f"it holds no study {name!r}, but {', '.join(known) or 'none at all'}.",
            "Name another, or run it: stav2a ablation --gin FILE.",
        )

    def history(self, run: TrackedRun, metric: str) -> list[tuple[int, float]]:
        """The values of a metric over the steps; empty where the run has none."""
        points = self._client.get_metric_history(run.run_id, metric)
        return sorted({point.step: point.value for point in points}.items())

    def files(self, run: TrackedRun, folder: str = "") -> list[str]:
        """Names of what was kept with the run, in one of its folders."""
        return [each.path for each in self._client.list_artifacts(run.run_id, folder or None)]

    def file(self, run: TrackedRun, path: str) -> Path:
        """A file that was kept with the run, on this machine.

        Raises:
            TrackingError: There is none of this name, or it can't be fetched.
        """
        try:
            found = self._mlflow.artifacts.download_artifacts(
                run_id=run.run_id,
                artifact_path=path,
                tracking_uri=self.address.uri,
                dst_path=self._folder(run),
            )
        except Exception as error:  # the stores of artifacts raise what they like
            raise self.address.error(
                f"the file {path} of the run {run.name} ({run.run_id}) can't be had.",
                "Run it again with --again, or see whether its artifacts have moved.",
            ) from error
        return Path(found)

    def text(self, run: TrackedRun, path: str) -> str:
        """A text that was kept with the run."""
        return self.file(run, path).read_text(encoding="utf-8")

    def compare_url(self, runs: Sequence[TrackedRun], base: str | None = None) -> str:
        """The address of MLflow's page that compares runs, the first first.

        Args:
            runs: What to compare.
            base: Where MLflow's pages are started on this machine; a server has its own.
        """
        runs = sorted(runs, key=lambda run: run.started_s)
        base = str(self.address) if self.is_server else base or LOCAL_UI
        chosen = quote(json.dumps([run.run_id for run in runs], separators=(",", ":")))
        experiments = sorted({run.experiment_id for run in runs})
        return f"{base}/#/compare-runs?runs={chosen}&experiments={quote(json.dumps(experiments))}"

    def _folder(self, run: TrackedRun) -> str:
        folder = Path(self._downloads.name) / run.run_id
        folder.mkdir(exist_ok=True)
        return str(folder)

    @cached_property
    def _downloads(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="stav2a-")

    @cached_property
    def _mlflow(self) -> Any:
        from stav2a.experiments.tracking.tracker import import_mlflow

        return import_mlflow(self.address)

    @cached_property
    def _client(self) -> Any:
        return self._mlflow.MlflowClient(self.address.uri)


def open_store(uri: str | None, root: Path) -> TrackingStore:
    """A store to read from.

    Args:
        uri: As `--tracking-uri` gives it; see `connect`.
        root: Folder of the run folders; the default store lies in it.

    Raises:
        TrackingError: Nothing is tracked there, or it can't be read.
    """
    address = resolve(uri, root)
    if address is None:
        raise TrackingError("--tracking-uri none tracks nothing, so there is nothing to read. Name a store.")
    if address.database is not None and not address.database.exists():
        raise address.error("there is no such file yet.", "Track a run first, or name another --output.")
    address.check()
    return TrackingStore(address)


def _kept(run: Any) -> TrackedRun:
    info, data = run.info, run.data
    return TrackedRun(
        run_id=info.run_id,
        experiment_id=info.experiment_id,
        name=info.run_name,
        status=info.status,
        tags={name: value for name, value in data.tags.items() if not name.startswith("mlflow.")},
        params=dict(data.params),
        metrics=dict(data.metrics),
        started_s=info.start_time / 1000,
        ended_s=info.end_time / 1000 if info.end_time else None,
    )


def _quoted(text: str) -> str:
    quote_mark = '"' if "'" in text else "'"  # MLflow's filters know no escapes
    return f"{quote_mark}{text}{quote_mark}"
