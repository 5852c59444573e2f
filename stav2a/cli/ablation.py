"""The command line of `stav2a ablation`: run a study and compare its rows, or write its report again."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stav2a.cli import options
from stav2a.utils.errors import UsageError, guarded

if TYPE_CHECKING:
    from stav2a.experiments.ablation.launch import Launcher
    from stav2a.experiments.ablation.study_folder import StudyFolder


MOST_JOBS = 4  # by default; a run takes about 2 GB
EXAMPLES = """examples:
  stav2a ablation --gin ablations/table3.gin                       the paper's Table III, three seeds
  stav2a ablation --gin ablations/table3.gin --plan                what there is to do; runs nothing
  stav2a ablation --gin ablations/table3.gin --seeds 0 --jobs 2    one seed, two runs at a time
  stav2a ablation --gin ablations/tokens.gin --gin recipes/scale/smoke.gin      tiny: does all work?
  stav2a ablation --report table3                                  tables and page again, from tracking alone

A study file names rows; each is a recipe, or a recipe with bindings (ablations/README.md). Every row is run
with every seed, in a process of its own; stages that rows share are trained once. Killed at any moment, the
same command goes on where it was. A run that fails is told, with its log, and the others go on.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = options.command(
        "ablation", "Run every row of a study over its seeds, and compare the rows with intervals.", EXAMPLES
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--gin",
        action="append",
        metavar="FILE",
        help="the study; further ones are recipes, such as a scale, laid over every row",
    )
    what.add_argument(
        "--report",
        metavar="STUDY",
        help="write tables and page of a study that has been run: its name, or its MLflow run's identifier",
    )
    options.add_binding(parser, "override one parameter in every row")
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="N", help="instead of the study's own, such as 0 1 2"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help=f"runs at a time, which share the processors (default: one each, up to {MOST_JOBS}); "
        "on a cluster all that may start",
    )
    parser.add_argument("--plan", action="store_true", help="print what there is to do, and end")
    parser.add_argument(
        "--again",
        action="store_true",
        help="make everything anew: what would be reused is moved to OUTPUT/set-aside",
    )
    options.add_output(parser, "run folders, store, tracking and reports")
    options.add_tracking_uri(parser)
    parser.add_argument(
        "--cluster",
        choices=["slurm", "submitit"],
        help="hand the runs to Slurm; or to submitit's processes on this machine, to try it out",
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        type=options.pair,
        metavar="NAME=VALUE",
        help="a setting of the cluster's jobs, such as partition=gpu, gpus_per_node=1 or timeout_min=240",
    )
    parser.add_argument("--trust-recipe", action="store_true", help="let study and recipes import any module")
    return parser


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = build_parser().parse_args(given)
    if arguments.report:
        return _report(arguments)
    if arguments.slurm and not arguments.cluster:
        raise UsageError("--slurm sets nothing without --cluster slurm.")
    from stav2a.experiments.ablation import planning, study  # not above: help comes at once
    from stav2a.experiments.ablation.planning import told

    loaded = study.load(arguments.gin[0], trust=arguments.trust_recipe)
    overlay = planning.Overlay(tuple(arguments.gin[1:]), tuple(arguments.bind), arguments.trust_recipe)
    seeds = tuple(arguments.seeds) if arguments.seeds else None
    plan = planning.plan(loaded.with_seeds(seeds), arguments.output, overlay)
    jobs = _jobs(arguments, len(plan.runs))
    print(told(plan, jobs), file=sys.stdout if arguments.plan else sys.stderr, flush=True)
    if arguments.plan:
        return 0
    from stav2a.experiments.ablation import runner

    command = shlex.join(["stav2a", "ablation", *given])
    setting = runner.StudySettings(
        output=arguments.output,
        uri=arguments.tracking_uri,
        jobs=jobs,
        launcher=lambda folder: _launcher(arguments, jobs, folder),
        command=command,
        again=arguments.again,
    )
    return runner.run_study(plan, setting)


def _report(arguments: argparse.Namespace) -> int:
    from stav2a.experiments.ablation import study_report
    from stav2a.experiments.ablation.study_folder import StudyFolder
    from stav2a.experiments.tracking import open_store
    from stav2a.utils.files import check_writable

    store = open_store(arguments.tracking_uri, arguments.output)
    parent = store.study(arguments.report)
    check_writable(arguments.output)
    print(study_report.report(store, parent, StudyFolder.of(arguments.output, parent.tags["study"])))
    return 0


def _jobs(arguments: argparse.Namespace, runs: int) -> int:
    if arguments.jobs is not None:
        return arguments.jobs
    return runs if arguments.cluster == "slurm" else min(_processors(), MOST_JOBS)


def _launcher(arguments: argparse.Namespace, jobs: int, folder: "StudyFolder") -> "Launcher":
    from stav2a.experiments.ablation.launch import LocalLauncher, SubmititLauncher

    if arguments.cluster:
        return SubmititLauncher(arguments.cluster, folder.path / "logs" / "submitit", dict(arguments.slurm))
    threads = str(max(1, _processors() // jobs))
    return LocalLauncher({"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads})


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
