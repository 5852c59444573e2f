"""What a tracked run can be told, and the tracker that keeps none of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from stav2a.tracking.address import TrackingError

PARENT = "mlflow.parentRunId"  # the tag that makes a run the child of another
Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker:
    """Takes what a run has to say. This one keeps nothing; the others have the same methods.

    As a context manager it ends the run by itself: FINISHED, FAILED after an error, KILLED by Ctrl-C.
    """

    run_id: str | None = None

    def wait(self) -> None:
        """Wait until the store is open.

        Raises:
            TrackingError: It could not be opened. Call this before anything is trained.
        """

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Keep settings, in words. A value longer than MLflow takes is cut and says so."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Keep numbers of one step. Returns at once."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a file, as it is when the queue comes to it: leave it in place until `finish`."""

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as the artifact `name`."""

    def log_table(self, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        """Keep a table, by its columns, as the artifact `name`; one that is there already stays."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags of the run; a tag can be set again."""

    def finish(self, status: Status = "FINISHED") -> None:
        """Send what is left and end the run. Calling it again does nothing."""

    def where(self) -> str:
        """How to look at the run, in one line."""
        return "not tracked (--tracking-uri none)"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, TrackingError):
            killed = isinstance(error, KeyboardInterrupt)
            self.finish("FINISHED" if error is None else "KILLED" if killed else "FAILED")


class NullTracker(Tracker):
    """The tracker of `--tracking-uri none`: takes everything, keeps nothing."""
