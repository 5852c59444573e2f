"""Tracking of runs in an MLflow store, or nowhere.

`connect` finds a wrong address at once; the store opens in the background, and `wait` raises the error if it
could not. mlflow is imported where a store is used, since that takes a second or two.
"""

from collections.abc import Mapping
from pathlib import Path

from stav2a.experiments.tracking.environment import environment, git_state
from stav2a.experiments.tracking.tracker import NOTE, MlflowTracker, Tracker
from stav2a.experiments.tracking.tracking_store import (
    DEFAULT_OUTPUT,
    PARENT,
    WITHIN,
    AddressError,
    TrackedRun,
    TrackingError,
    TrackingStore,
    open_store,
    resolve,
)


def connect(
    uri: str | None,
    root: Path,
    *,
    experiment: str,
    run_name: str,
    tags: Mapping[str, str] | None = None,
    run_id: str | None = None,
    span: tuple[float, float] | None = None,
) -> Tracker:
    """Begin a tracked run, or continue one.

    Args:
        uri: Address of the store, as `--tracking-uri` has it; see `resolve`. "none" tracks nothing.
        root: Folder of the run folders; the default store lies in it.
        experiment: MLflow experiment; made if it does not exist.
        run_name: Name of the run in the experiment.
        tags: Tags of the run. `{"mlflow.parentRunId": id}` makes it a child of another run.
        run_id: Run to continue. When the store does not hold it a new run begins, with a warning.
        span: Begin and end, in seconds since 1970, of a run that is over; by default it is now.

    Raises:
        AddressError: The address is misspelt.
        TrackingError: Nothing answers there, or it can't be written.

    Example:
        >>> with connect("none", Path("runs"), experiment="table3", run_name="cn") as tracker:
        ...     tracker.log_metrics({"loss": 0.5}, step=10)
    """
    store = resolve(uri, Path(root))
    if store is None:
        return Tracker()
    store.check()
    return MlflowTracker(store, experiment, run_name, tags or {}, run_id, span)


__all__ = [
    "AddressError", "DEFAULT_OUTPUT", "NOTE", "TrackedRun", "PARENT", "Tracker", "TrackingError",
    "TrackingStore", "WITHIN", "connect", "environment", "git_state", "open_store", "resolve",
]  # fmt: skip
