"""Execution of a study's plan: every run in a process of its own, tracked as a child, then the comparison."""

import datetime
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from stav2a.evaluation.scores import from_json
from stav2a.experiments.ablation.launch import Job, Start, run_all
from stav2a.experiments.ablation.planning import PlannedRun, StudyPlan, duration
from stav2a.experiments.ablation.study_report import StudyFolder, describe, new_record, report, row_figures
from stav2a.experiments.tracking import (
    NOTE,
    PARENT,
    Tracker,
    connect,
    environment,
    git_state,
    open_store,
    resolve,
)
from stav2a.utils.errors import FAILURE, SUCCESS, UsageError
from stav2a.utils.files import check_writable, write_json
from stav2a.utils.progress import progress


@dataclass(frozen=True)
class StudyRunner:
    """Execution of a study's plan.

    Args:
        uri: Address of the tracking store; see `tracking.connect`.
        jobs: Number of runs at a time.
        command: The user's command, for the record.
        again: Make everything anew.
        processes: Data-parallel processes of a run, by torchrun where there are several.

    Raises:
        UsageError: Nothing is to be tracked: the comparison is read from the tracking store.
    """

    plan: StudyPlan
    uri: str | None
    jobs: int
    command: str
    again: bool = False
    processes: int = 1

    def __post_init__(self) -> None:
        if resolve(self.uri, self.plan.output) is None:
            message = "--tracking-uri none: a study is compared from what its runs leave in a tracking store."
            raise UsageError(message, advice="Leave the option out for a file in --output.")
        if self.jobs < 1:
            raise UsageError(f"--jobs {self.jobs}: expected at least 1.")

    def run(self, start: Start) -> int:
        """Run what is missing, compare, write tables and page, and print the table.

        Returns:
            0, or 1 where a run failed; the others are compared all the same.
        """
        output, name = self.plan.output, self.plan.study.name
        check_writable(output)
        with self.plan.store.lock(f"study-{name}", f"study {name} in {output}"):
            folder = StudyFolder(output, name)
            folder.logs.mkdir(parents=True, exist_ok=True)
            if self.again:
                _print_line(f"set aside: {set_aside(self.plan)}; remove it when you don't need it")
            parent_id, failed = self._run_missing(folder, start)
            print(self._report(folder, parent_id))
        if failed:
            _print_line(f"{failed} of {len(self.plan.runs)} runs failed; the same command tries them again")
        return FAILURE if failed else SUCCESS

    def _connect(self, run_id: str | None, **tags: str) -> Tracker:
        """Begin or continue the study's own run in the tracking store."""
        name = self.plan.study.name
        return connect(self.uri, self.plan.output, experiment=name, run_name=name, tags=tags, run_id=run_id)

    def _run_missing(self, folder: StudyFolder, start: Start) -> tuple[str, int]:
        """Run what the tracking store lacks; return the study's own run, and the failures."""
        before = {} if self.again else folder.read()
        finished = sum(run.finished for run in self.plan.runs)
        record = new_record(self.plan, self.command, before, finished)
        if before.get("signature") == record["signature"]:
            record |= {"attempts": before["attempts"], "tracking": before.get("tracking", {})}
        store = resolve(self.uri, self.plan.output)
        address = store.key if store else "none"
        tags = {"study": self.plan.study.name, "kind": "study", "signature": record["signature"]}
        with self._connect(record["tracking"].get(address), **tags) as tracker:
            parent_id = record["tracking"][address] = str(tracker.run_id)
            tracker.log_params({f"study.{key}": record[key] for key in ("baseline", "seeds", "overlay")})
            write_json(folder.record, record)
            tracker.log_artifact(folder.record)
            began, began_s = datetime.datetime.now(), time.monotonic()
            codes = self._run_children(folder, parent_id, start)
            if codes:
                seconds = round(time.monotonic() - began_s)
                attempt = {"seconds": seconds, "runs": len(codes), "jobs": self.jobs}
                record["attempts"] = [*record["attempts"], {"began": f"{began:%Y-%m-%d %H:%M}", **attempt}]
            record |= {"environment": environment(), "git": git_state(Path.cwd())}
            write_json(folder.record, record)
            tracker.log_artifact(folder.record)
            failed = sum(code != 0 for code in codes)
            tracker.finish("FAILED" if failed else "FINISHED")
        return parent_id, failed

    def _run_children(self, folder: StudyFolder, parent_id: str, start: Start) -> Sequence[int]:
        """Run what is not yet finished, whole, and tracked; the exit codes."""
        plan, names = self.plan, ("row", "seed", "signature")
        children = open_store(self.uri, plan.output).children(parent_id)
        done = {tuple(run.tags.get(name) for name in names) for run in children if run.status == "FINISHED"}
        named = {(run.row.name, str(run.seed), run.signature): run for run in plan.runs}
        todo = [run for name, run in named.items() if name not in done or not run.finished]
        # What is left of a finished run takes a second; others wait for the one that makes most.
        todo.sort(key=lambda run: (not run.finished, -len(run.missing(plan.store))))
        lacking = plan.lacking()
        runs = {self._job(run, folder, parent_id, lacking): run for run in todo}
        if count := len(plan.runs) - len(runs):
            _print_line(f"{count} of {len(plan.runs)} runs are finished and tracked already")
        if not runs:
            return []

        def may_start(job: Job, running: Sequence[Job]) -> bool:
            return runs[job].may_start(plan.store, [runs[other] for other in running])

        def ended(job: Job, code: int, seconds: float) -> None:
            took = duration(seconds)
            if code == 0:
                _print_line(f"finished  {job.title}  ({took})  {self._scores(runs[job])}")
            else:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                _print_line(f"failed    {job.title}  ({took}, {how}); its log is {job.log} and ends with")
                _print_line("\n".join(f"    {line}" for line in job.last_lines()))
            bar.update()

        with progress(len(runs), self.plan.study.name, "run") as bar:
            try:
                codes = run_all(
                    list(runs),
                    start,
                    width=self.jobs,
                    on_start=lambda job: _print_line(f"started   {job.title}"),
                    on_end=ended,
                    may_start=may_start,
                )
            except KeyboardInterrupt:
                _print_line("stopped; what is finished is kept, and the same command continues from there")
                raise
        return list(codes.values())

    def _scores(self, run: PlannedRun) -> str:
        scores = from_json(run.folder.scores.read_text(encoding="utf-8"))
        shown = [s for s in scores if s.name in self.plan.study.metrics and s.unavailable is None]
        return ", ".join(f"{score.name} {score.value:.3f}" for score in shown)

    def _job(self, run: PlannedRun, folder: StudyFolder, parent_id: str, lacking: Sequence[str]) -> Job:
        study = self.plan.study
        tags = {
            "study": study.name, "kind": "row", "row": run.row.name, "seed": str(run.seed), PARENT: parent_id
        }  # fmt: skip
        diff = folder.write_diff(run, self.plan)
        together = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes), "-m"]
        command = [
            *(sys.executable, "-m", *(together if self.processes > 1 else ()), "stav2a.run"),
            *(word for path in run.recipes for word in ("--gin", path)),
            *(word for binding in run.bindings for word in ("--bind", binding)),
            *("--output", str(self.plan.output), "--jobs", "1"),
            *("--experiment", study.name, "--run-name", run.title),
            *(word for name, value in tags.items() for word in ("--tag", f"{name}={value}")),
            *(("--attach", str(diff)) if diff else ()),
            *(word for name in lacking for word in ("--untracked", name)),
            *(("--tracking-uri", self.uri) if self.uri else ()),
            *(("--trust-recipe",) if study.trust else ()),
        ]
        return Job(run.title, tuple(command), folder.log(run))

    def _report(self, folder: StudyFolder, parent_id: str) -> str:
        """Compare, from the tracking store alone; the files are logged there too."""
        store = open_store(self.uri, self.plan.output)
        parent = store.get(parent_id)
        written = report(store, parent, folder)
        with self._connect(parent_id) as tracker:
            description = describe(store, parent, written.compared)
            metrics = [metric.score.name for metric in written.compared.metrics]
            tracker.log_metrics(row_figures(written.compared))
            tracker.describe(description)
            tracker.set_experiment_tags({NOTE: description, **store.children_views(parent, metrics)})
            for path in written.files:
                tracker.log_artifact(path)
            tracker.finish("FINISHED" if parent.status == "FINISHED" else "FAILED")
        lines = [written.text, f"compare    {store.compare_url(store.children(parent_id))}"]
        lines.append(f"runs       {store.children_url(parent, charts=False)}")
        lines.append(f"charts     {store.children_url(parent)}")
        if not store.is_server:
            lines.append(f"opened by  {store.opened_by(self.plan.study.name)}")
        return "\n".join(lines)


def set_aside(plan: StudyPlan) -> Path:
    """Move away everything that the plan's runs would reuse, into the folder that is returned."""
    aside = plan.output / "set-aside" / f"{plan.study.name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    aside.mkdir(parents=True)
    entries = {(each.kind, each.key, each.name) for run in plan.runs for each in run.entries}
    folders = {folder for entry in entries for folder in plan.store.folders(*entry)}
    for number, path in enumerate(sorted(folders | {run.folder.path for run in plan.runs})):
        if path.exists():
            path.rename(aside / f"{number:03}-{path.name}")
    return aside


def _print_line(line: str) -> None:
    """Print on stderr, above the progress bar if there is one."""
    tqdm.write(line, file=sys.stderr)
