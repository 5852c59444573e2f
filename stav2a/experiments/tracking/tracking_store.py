"""Reading of a tracking store: runs with their metrics, curves and files."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stav2a.experiments.tracking.address import SERVERS, Address, TrackingError, resolve
from stav2a.experiments.tracking.tracker import PARENT, import_mlflow

LOCAL_UI = "http://127.0.0.1:5000"
MOST_RUNS = 5000


@dataclass(frozen=True)
class TrackedRun:
    """A run in a tracking store.

    Args:
        run_id: Identifier of the run.
        experiment_id: Identifier of its experiment.
        name: Name of the run.
        status: FINISHED, RUNNING, FAILED or KILLED.
        tags: Tags by name, without MLflow's own.
        params: Settings by name.
        metrics: Value of each metric at its highest step.
        started_s: Time of its start, in seconds since 1970.
    """

    run_id: str
    experiment_id: str
    name: str
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    started_s: float

    @classmethod
    def of(cls, run: Any) -> "TrackedRun":
        """The run from MLflow's own object."""
        info, data = run.info, run.data
        return cls(
            run_id=info.run_id,
            experiment_id=info.experiment_id,
            name=info.run_name,
            status=info.status,
            tags={name: value for name, value in data.tags.items() if not name.startswith("mlflow.")},
            params=dict(data.params),
            metrics=dict(data.metrics),
            started_s=info.start_time / 1000,
        )


class TrackingStore:
    """A tracking store to read from; see `open_store`."""

    def __init__(self, address: Address) -> None:
        self.address = address

    @property
    def is_server(self) -> bool:
        """True where an MLflow server answers, with pages of its own."""
        return self.address.scheme in SERVERS

    def runs(self, tags: Mapping[str, str]) -> list[TrackedRun]:
        """Runs with all these tags, newest first."""
        wanted = " and ".join(f"tags.`{name}` = {_quoted(value)}" for name, value in tags.items())
        experiments = [each.experiment_id for each in self._client.search_experiments()]
        order = ["attributes.start_time DESC"]
        found = self._client.search_runs(experiments, wanted, max_results=MOST_RUNS, order_by=order)
        return [TrackedRun.of(run) for run in found]

    def children(self, run_id: str) -> list[TrackedRun]:
        """Runs with this parent, newest first."""
        return self.runs({PARENT: run_id})

    def get(self, run_id: str) -> TrackedRun:
        """One run.

        Raises:
            TrackingError: The store does not hold it.
        """
        try:
            return TrackedRun.of(self._client.get_run(run_id))
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
        if len(name) == 32:  # an identifier
            return self.get(name)
        known = ", ".join(sorted({run.tags["study"] for run in self.runs({"kind": "study"})}))
        raise self.address.error(
            f"it holds no study {name!r}, but {known or 'none at all'}.",
            "Name another, or run it: stav2a ablation --gin FILE.",
        )

    def history(self, run: TrackedRun, metric: str) -> list[tuple[int, float]]:
        """Values of a metric over the steps; empty where the run has none."""
        points = self._client.get_metric_history(run.run_id, metric)
        return sorted({point.step: point.value for point in points}.items())

    def files(self, run: TrackedRun, folder: str = "") -> list[str]:
        """Names of the files of a run, in one of its folders."""
        return [each.path for each in self._client.list_artifacts(run.run_id, folder or None)]

    def file(self, run: TrackedRun, path: str) -> Path:
        """Copy of a run's file on this machine.

        Raises:
            TrackingError: There is none of this name, or it can't be fetched.
        """
        folder = Path(self._downloads.name) / run.run_id
        folder.mkdir(exist_ok=True)
        try:
            found = self._mlflow.artifacts.download_artifacts(
                run_id=run.run_id, artifact_path=path, tracking_uri=self.address.uri, dst_path=str(folder)
            )
        except Exception as error:  # the stores of artifacts raise errors of all kinds
            raise self.address.error(
                f"the file {path} of the run {run.name} ({run.run_id}) can't be read.",
                "Run it again with --again, or see whether its artifacts have moved.",
            ) from error
        return Path(found)

    def text(self, run: TrackedRun, path: str) -> str:
        """Text of a run's file."""
        return self.file(run, path).read_text(encoding="utf-8")

    def compare_url(self, runs: Sequence[TrackedRun], base: str | None = None) -> str:
        """Address of MLflow's page that compares runs, the oldest first.

        Args:
            runs: Runs to compare.
            base: Address of MLflow's pages on this machine; a server has its own.
        """
        runs = sorted(runs, key=lambda run: run.started_s)
        base = str(self.address) if self.is_server else base or LOCAL_UI
        chosen = quote(json.dumps([run.run_id for run in runs], separators=(",", ":")))
        experiments = quote(json.dumps(sorted({run.experiment_id for run in runs})))
        return f"{base}/#/compare-runs?runs={chosen}&experiments={experiments}"

    @cached_property
    def _downloads(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="stav2a-")

    @cached_property
    def _mlflow(self) -> Any:
        return import_mlflow(self.address)

    @cached_property
    def _client(self) -> Any:
        return self._mlflow.MlflowClient(self.address.uri)


def open_store(uri: str | None, root: Path) -> TrackingStore:
    """Open a store to read from.

    Args:
        uri: Address of the store; see `resolve`.
        root: Folder of the run folders; the default store lies in it.

    Raises:
        TrackingError: Nothing is tracked there, or it can't be read.
    """
    address = resolve(uri, root)
    if address is None:
        raise TrackingError(
            "--tracking-uri none tracks nothing, so there is nothing to read.", advice="Name a store."
        )
    if address.database is not None and not address.database.exists():
        raise address.error("there is no such file yet.", "Track a run first, or name another --output.")
    address.check()
    return TrackingStore(address)


def _quoted(text: str) -> str:
    mark = '"' if "'" in text else "'"  # MLflow's filters have no escapes
    return f"{mark}{text}{mark}"
