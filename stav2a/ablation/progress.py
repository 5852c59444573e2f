"""What people see while a study runs: a line an event, and a bar with the time left."""

import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from tqdm import tqdm

from stav2a import evaluation
from stav2a.ablation.estimate import duration
from stav2a.ablation.planning import PlannedRun
from stav2a.ablation.pool import Ended, Job


class Progress:
    """Tells of jobs on stderr; the bar is left out where that is no terminal.

    Args:
        runs: What each job runs.
        metrics: The scores that are told.
    """

    def __init__(self, runs: Mapping[Job, PlannedRun], metrics: Sequence[str]) -> None:
        self.runs, self.metrics = runs, metrics
        self.bar = tqdm(total=len(runs), unit="run", file=sys.stderr, disable=None if runs else True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def started(self, job: Job) -> None:
        """A run has been started."""
        self.tell(f"started   {job.title}")

    def ended(self, ended: Ended) -> None:
        """A run has ended: its scores, or the end of its log."""
        job, took = ended.job, duration(ended.seconds)
        if ended.code == 0:
            self.tell(f"finished  {job.title}  ({took})  {self._scores(job)}")
        else:
            how = f"signal {-ended.code}" if ended.code < 0 else f"exit code {ended.code}"
            self.tell(f"failed    {job.title}  ({took}, {how}); its log is {job.log} and ends with")
            self.tell("\n".join(f"    {line}" for line in job.last_lines()))
        self.bar.update()

    def tell(self, line: str) -> None:
        """A line above the bar."""
        tqdm.write(line, file=sys.stderr)

    def _scores(self, job: Job) -> str:
        scores = evaluation.from_json(self.runs[job].folder.scores.read_text(encoding="utf-8"))
        return ", ".join(
            f"{score.name} {score.value:.3f}"
            for score in scores
            if score.name in self.metrics and score.unavailable is None
        )
