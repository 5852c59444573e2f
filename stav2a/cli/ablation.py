"""`stav2a ablation`: run a study and compare its rows, or write its report again."""

import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from stav2a.cli.options import Bind, Output, Pair, TrackingUri, TrustRecipe, pair
from stav2a.utils.errors import MAX_SEED, SUCCESS, UsageError
from stav2a.utils.parallel import MOST_JOBS

EXAMPLES = """
  stav2a ablation --gin ablations/table3.gin                       the paper's Table III, three seeds
  stav2a ablation --gin ablations/table3.gin --plan                what there is to do; runs nothing
  stav2a ablation --gin ablations/table3.gin --seeds 0 --jobs 2    one seed, two runs at a time
  stav2a ablation --gin ablations/tokens.gin --gin recipes/scale/smoke.gin      tiny: does all work?
  stav2a ablation --report table3                                  tables and page again, from tracking alone

A study file names rows; each is a recipe, or a recipe with bindings (ablations/README.md). Or it names
factors and their levels; its rows are combinations of them. Every row is run with every seed, in a process
of its own; stages that rows share are trained once. Killed at any moment, the same command continues where
it was. A run that fails is reported with its log, and the others continue.
"""


def ablation(
    gin: Annotated[
        list[str],
        Option(
            metavar="FILE", help="the study; further ones are recipes, such as a scale, laid over every row"
        ),
    ] = [],
    report: Annotated[
        str | None,
        Option(
            metavar="STUDY",
            help="write tables and page of a study that has run: its name, or its MLflow run's identifier",
        ),
    ] = None,
    bind: Bind = [],
    seeds: Annotated[
        list[int],
        Option(min=0, max=MAX_SEED, metavar="N ...", help="in place of the study's own, such as 0 1 2"),
    ] = [],
    jobs: Annotated[
        int | None,
        Option(
            min=1,
            max=10_000,
            metavar="N",
            help=f"runs at a time, which share the processors (default: one each, up to {MOST_JOBS}); on a "
            "cluster all that may start",
        ),
    ] = None,
    gpus_a_run: Annotated[
        int | None,
        Option(
            min=1,
            max=64,
            metavar="N",
            help="GPUs of each run, by torchrun if several; as many runs at a time as there are GPUs for "
            "(default: 1, where there are any)",
        ),
    ] = None,
    plan: Annotated[bool, Option("--plan", help="print what there is to do, and end")] = False,
    again: Annotated[
        bool,
        Option("--again", help="make everything anew: what would be reused is moved to OUTPUT/set-aside"),
    ] = False,
    output: Output = Path("runs"),
    tracking_uri: TrackingUri = None,
    cluster: Annotated[
        Literal["slurm", "submitit"] | None,
        Option(help="hand the runs to Slurm, or to submitit's processes on this machine, to try it"),
    ] = None,
    slurm: Annotated[
        list[Pair],
        Option(
            parser=pair,
            metavar="NAME=VALUE",
            help="a setting of the cluster's jobs, such as partition=gpu, gpus_per_node=1 or timeout_min=240",
        ),
    ] = [],
    trust_recipe: TrustRecipe = False,
) -> int:
    """Run every row of a study over its seeds, and compare the rows with intervals."""
    if bool(gin) == (report is not None):
        raise UsageError("give either --gin FILE, to run a study, or --report STUDY.")
    if report is not None:
        return _report(report, output, tracking_uri)
    if slurm and not cluster:
        raise UsageError("--slurm sets nothing without --cluster slurm.")
    if gpus_a_run and cluster:
        advice = f"Write --slurm gpus_per_node={gpus_a_run}."
        raise UsageError("--gpus-a-run is for the GPUs of this machine.", advice=advice)
    from stav2a.experiments.ablation import planning, study  # not above: help comes at once
    from stav2a.experiments.ablation.launch import GPUPool, LocalProcess, submitit_start, visible_gpus
    from stav2a.experiments.ablation.runner import StudyRunner
    from stav2a.utils.parallel import default_jobs, threads_of

    loaded = study.load(gin[0], gin[1:], bind, seeds=seeds, trust=trust_recipe)
    planned = planning.plan(loaded, output)
    gpus = [] if cluster else visible_gpus()
    pool = GPUPool(gpus, gpus_a_run or 1, {}) if gpus or gpus_a_run else None
    if jobs is None:
        jobs = len(planned.runs) if cluster == "slurm" else pool.width if pool else default_jobs()
    if pool and jobs > pool.width:
        told = f"--jobs {jobs} of {pool.count} GPUs each: there are {len(pool.free)} GPUs."
        raise UsageError(told, advice=f"Write --jobs {pool.width}, or leave it out.")
    command = shlex.join(["stav2a", *sys.argv[1:]])
    processes = pool.count if pool else 1
    runner = None
    if not plan:
        runner = StudyRunner(planned, tracking_uri, jobs, command, again=again, processes=processes)
    if cluster != "slurm":  # whose machines may be others; each run there begins with the same
        planned = planning.try_rows(planned)
    print(planning.summary(planned, jobs), file=sys.stdout if plan else sys.stderr, flush=True)
    if runner is None:
        return SUCCESS
    runner = replace(runner, plan=planned)
    if cluster:
        logs = output / "ablations" / loaded.name / "logs" / "submitit"
        return runner.run(submitit_start(cluster, logs, dict(slurm)))
    threads = str(threads_of(jobs))
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if pool:
        pool.environment.update(environment)
        return runner.run(pool.start)
    return runner.run(partial(LocalProcess, environment=environment))


def _report(study: str, output: Path, tracking_uri: str | None) -> int:
    from stav2a.experiments.ablation.study_report import StudyFolder, report
    from stav2a.experiments.tracking import open_store
    from stav2a.utils.files import check_writable

    store = open_store(tracking_uri, output)
    parent = store.study(study)
    check_writable(output)
    folder = StudyFolder(output, parent.tags["study"])
    folder.path.mkdir(parents=True, exist_ok=True)
    print(report(store, parent, folder).text)
    return SUCCESS
