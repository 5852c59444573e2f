"""The command `run`, also `python -m stav2a.run`: train, sample, evaluate and track one recipe."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Option

from stav2a.cli.options import Bind, Output, Pair, TrackingUri, TrustRecipe, pair
from stav2a.utils.errors import SUCCESS, UsageError
from stav2a.utils.parallel import MOST_JOBS

EXAMPLES = """
  python -m stav2a.run --gin recipes/cn_onset_gvf.gin
  python -m stav2a.run --gin recipes/cn.gin --bind 'stage.joint.steps = 800' --bind 'run.seed = 1'
  python -m stav2a.run --gin recipes/cn.gin --gin recipes/scale/smoke.gin      one over the other: seconds
  python -m stav2a.run --gin recipes/cn.gin --check                            say what it is, run nothing
  torchrun --nproc-per-node 8 -m stav2a.run --gin recipes/cn.gin               one process a GPU

The same command again goes on where it was stopped, or answers from the store when it was finished.
"""


def run(
    gin: Annotated[list[str], Option(metavar="RECIPE", help="a recipe; several are laid over each other")],
    bind: Bind = [],
    output: Output = Path("runs"),
    jobs: Annotated[
        int | None,
        Option(
            min=1,
            max=64,
            metavar="N",
            help="processes that train independent stages, and sample, side by side, which share the "
            f"processors (default: one each, up to {MOST_JOBS}; 1 with a GPU)",
        ),
    ] = None,
    tracking_uri: TrackingUri = None,
    experiment: Annotated[str, Option(metavar="NAME", help="MLflow experiment")] = "stav2a",
    run_name: Annotated[
        str | None, Option(metavar="NAME", help="name of the MLflow run (default: the recipe's)")
    ] = None,
    tag: Annotated[
        list[Pair],
        Option(parser=pair, metavar="NAME=VALUE", help="tag of the MLflow run; may be repeated"),
    ] = [],
    attach: Annotated[
        list[Path], Option(metavar="FILE", help="keep this file with the MLflow run; may be repeated")
    ] = [],
    untracked: Annotated[
        list[str],
        Option(metavar="X.Y", help="parameter that the MLflow run does not show; may be repeated"),
    ] = [],
    check: Annotated[
        bool,
        Option("--check", help="validate the recipe, print it whole and what its model costs; run nothing"),
    ] = False,
    strict: Annotated[
        bool, Option("--strict", help="refuse settings that have no effect, instead of warning")
    ] = False,
    trust_recipe: TrustRecipe = False,
) -> int:
    """Train, sample, evaluate and track one variant of STA-V2A, as a recipe says."""
    from stav2a import recipe  # not above: help comes at once
    from stav2a.experiments import execution
    from stav2a.experiments.experiment import Experiment
    from stav2a.utils import distributed
    from stav2a.utils.parallel import default_jobs, threads_of, use_threads

    loaded = recipe.load(gin, bind, strict=strict, trust=trust_recipe, root=Experiment)
    if check:
        print(execution.explain(loaded))
        return SUCCESS
    tracking = execution.TrackingOptions(
        uri=tracking_uri,
        experiment=experiment,
        run_name=run_name,
        tags=dict(tag),
        attached=attach,
        untracked=untracked,
    )
    alone = not distributed.on_cpu() or distributed.count() > 1
    if jobs is None:
        jobs = 1 if alone else default_jobs()
    elif jobs > 1 and alone:
        raise UsageError(
            f"--jobs {jobs}: on GPUs, and under torchrun, one process trains all stages.",
            advice="Leave it out.",
        )
    if jobs > 1:
        use_threads(threads_of(jobs))
    if answer := execution.execute(loaded, output, tracking, jobs):
        print(answer)
    return SUCCESS


if __name__ == "__main__":
    from stav2a.cli.main import main

    sys.exit(main(["run", *sys.argv[1:]]))
