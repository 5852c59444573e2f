"""A plan carried out: a child process a run, each tracked below the study's own run, then compared."""

import datetime
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from stav2a.evaluation.scores import from_json
from stav2a.experiments.ablation import study_report
from stav2a.experiments.ablation.launch import FinishedJob, Job, Launcher, run_all
from stav2a.experiments.ablation.planning import PlannedRun, StudyPlan, duration
from stav2a.experiments.ablation.study_folder import RECORD, StudyFolder, record_of
from stav2a.experiments.tracking import (
    PARENT,
    TrackedRun,
    Tracker,
    TrackingStore,
    connect,
    environment,
    git_state,
    open_store,
    resolve,
)
from stav2a.utils.errors import FAILURE, SUCCESS, UsageError
from stav2a.utils.files import check_writable, exclusive


class StudyProgress:
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

    def ended(self, ended: FinishedJob) -> None:
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
        scores = from_json(self.runs[job].folder.scores.read_text(encoding="utf-8"))
        return ", ".join(
            f"{score.name} {score.value:.3f}"
            for score in scores
            if score.name in self.metrics and score.unavailable is None
        )


LauncherAt = Callable[[StudyFolder], Launcher]


@dataclass(frozen=True)
class StudySettings:
    """How a study is carried out.

    Args:
        output: Holds the run folders, the store and, by default, the tracking database.
        uri: The tracking store; see `tracking.connect`.
        jobs: How many runs at a time.
        launcher: Makes what starts them, given the study's folder.
        command: What the user wrote, for the record.
        again: Make everything anew.

    Raises:
        UsageError: Nothing is to be tracked: the comparison is read from there.
    """

    output: Path
    uri: str | None
    jobs: int
    launcher: LauncherAt
    command: str
    again: bool = False

    def __post_init__(self) -> None:
        if resolve(self.uri, self.output) is None:
            raise UsageError(
                "--tracking-uri none: a study is compared from what its runs leave in a tracking store. "
                "Leave the option out for a file in --output."
            )
        if self.jobs < 1:
            raise UsageError(f"--jobs {self.jobs}: expected at least 1.")

    @property
    def place(self) -> str:
        """A name for the tracking store."""
        return str(resolve(self.uri, self.output))


def run_study(plan: StudyPlan, setting: StudySettings) -> int:
    """Run what is lacking, compare, write tables and page, and print the table.

    Returns:
        0, or 1 where a run failed; the others are compared all the same.
    """
    check_writable(setting.output)
    name = plan.study.name
    with exclusive(setting.output / "store" / "locks" / f"study-{name}", f"study {name} in {setting.output}"):
        folder = StudyFolder.of(setting.output, name)
        if setting.again:
            _tell(f"set aside: {set_aside(plan, setting.output)}; remove it when you don't need it")
        parent_id, failed = _run(plan, setting, folder)
        print(_report(plan, setting, folder, parent_id))
    if failed:
        _tell(f"{failed} of {len(plan.runs)} runs failed; the same command tries them again")
    return FAILURE if failed else SUCCESS


def set_aside(plan: StudyPlan, output: Path) -> Path:
    """Move away all that the plan's runs would reuse.

    Returns:
        The folder where it lies now.
    """
    aside = output / "set-aside" / f"{plan.study.name}-{_now():%Y%m%d-%H%M%S}"
    aside.mkdir(parents=True)
    entries = {plan.store.path(part.kind, part.key) for run in plan.runs for part in run.parts}
    unfinished = {path.parent / "partial" / path.name for path in entries}
    for number, path in enumerate(sorted(entries | unfinished | {run.folder.path for run in plan.runs})):
        if path.exists():
            path.rename(aside / f"{number:03}-{path.name}")
    return aside


def _run(plan: StudyPlan, setting: StudySettings, folder: StudyFolder) -> tuple[str, int]:
    """Carry out the runs that the tracking store lacks.

    Returns:
        The study's own run in the store, and how many of its runs failed.
    """
    before = {} if setting.again else folder.read()
    record = record_of(plan, setting.command)
    known = before if before.get("signature") == record["signature"] else {}
    record |= {"goes": known.get("goes", []), "parents": known.get("parents", {})}
    tracker = connect(
        setting.uri,
        setting.output,
        experiment=plan.study.name,
        run_name=plan.study.name,
        tags={"study": plan.study.name, "kind": "study", "signature": record["signature"]},
        run_id=record["parents"].get(setting.place),
    )
    with tracker:
        parent_id = str(tracker.run_id)
        record["parents"][setting.place] = parent_id
        tracker.log_params({f"study.{name}": record[name] for name in ("baseline", "seeds", "over")})
        _write(record, folder, tracker)
        began, since = _now(), time.monotonic()
        failed, started = _run_children(plan, setting, folder, parent_id)
        if started:
            go = {"began": f"{began:%Y-%m-%d %H:%M}", "seconds": round(time.monotonic() - since), **started}
            record["goes"].append({**go, "jobs": setting.jobs})
        record |= {"environment": environment(), "git": git_state(Path.cwd())}
        _write(record, folder, tracker)
        tracker.finish("FAILED" if failed else "FINISHED")
    return parent_id, failed


def _write(record: Mapping[str, Any], folder: StudyFolder, tracker: Tracker) -> None:
    folder.write(record)
    tracker.log_text(folder.record.read_text(encoding="utf-8"), RECORD)


def _run_children(
    plan: StudyPlan, setting: StudySettings, folder: StudyFolder, parent_id: str
) -> tuple[int, dict[str, int]]:
    """Carry out the runs; how many failed, and how many were started, if any."""
    done = _finished(open_store(setting.uri, setting.output).children(parent_id))
    runs = [run for run in plan.runs if (run.row.name, str(run.seed), run.signature) not in done]
    jobs = {_job(run, plan, setting, folder, parent_id): run for run in runs}
    if len(jobs) < len(plan.runs):
        _tell(f"{len(plan.runs) - len(jobs)} of {len(plan.runs)} runs are finished and tracked already")
    if not jobs:
        return 0, {}
    claims = {job: {part.key for part in run.lacks(plan.store)} for job, run in jobs.items()}

    def may_start(job: Job, running: Sequence[Job]) -> bool:
        return jobs[job].may_start(plan.store, set().union(*(claims[other] for other in running)))

    with StudyProgress(jobs, list(plan.study.metrics)) as progress:
        try:
            ended = run_all(
                list(jobs),
                setting.launcher(folder),
                width=setting.jobs,
                listener=progress,
                may_start=may_start,
            )
        except KeyboardInterrupt:
            progress.tell("stopped; what is finished is kept, and the same command goes on from there")
            raise
    return sum(each.code != 0 for each in ended), {"runs": len(ended)}


def _finished(children: Sequence[TrackedRun]) -> set[tuple[str, str, str]]:
    """Row, seed and signature of the runs that are tracked to their end."""
    return {
        (run.tags.get("row", ""), run.tags.get("seed", ""), run.tags.get("signature", ""))
        for run in children
        if run.status == "FINISHED"
    }


def _job(
    run: PlannedRun, plan: StudyPlan, setting: StudySettings, folder: StudyFolder, parent_id: str
) -> Job:
    tags = {
        "study": plan.study.name, "kind": "row", "row": run.row.name, "seed": str(run.seed), PARENT: parent_id
    }  # fmt: skip
    diff = folder.write_diff(run, plan.runs, plan.study.baseline)
    command = [
        *(sys.executable, "-m", "stav2a.run"),
        *(word for path in run.recipes for word in ("--gin", path)),
        *(word for binding in run.bindings for word in ("--bind", binding)),
        *("--output", str(setting.output), "--experiment", plan.study.name, "--run-name", run.title),
        *(word for name, value in tags.items() for word in ("--tag", f"{name}={value}")),
        *(("--attach", str(diff)) if diff else ()),
        *(("--tracking-uri", setting.uri) if setting.uri else ()),
        *(("--trust-recipe",) if plan.overlay.trust else ()),
    ]
    return Job(run.title, tuple(command), folder.log(run))


def _report(plan: StudyPlan, setting: StudySettings, folder: StudyFolder, parent_id: str) -> str:
    """Compare, from the tracking store alone; the files are kept there too."""
    store = open_store(setting.uri, setting.output)
    parent = store.get(parent_id)
    told = study_report.report(store, parent, folder)
    tracker = connect(
        setting.uri, setting.output, experiment=plan.study.name, run_name=plan.study.name, run_id=parent_id
    )
    with tracker:
        for path in (*(folder.table(ending) for ending in ("md", "csv", "tex")), folder.page):
            if path.is_file():
                tracker.log_artifact(path)
        tracker.finish("FINISHED" if parent.status == "FINISHED" else "FAILED")
    return f"{told}\n{_addresses(store, parent)}"


def _addresses(store: TrackingStore, parent: TrackedRun) -> str:
    address = store.compare_url(store.children(parent.run_id))
    start = "" if store.is_server else f"\nopened by  stav2a dashboard {parent.tags['study']}"
    return f"compare    {address}{start}"


def _now() -> datetime.datetime:
    return datetime.datetime.now()


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
