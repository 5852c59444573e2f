"""`python -m stav2a.run`: train, sample, evaluate and track one recipe."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stav2a.cli import options
from stav2a.utils.errors import guarded

EXAMPLES = """examples:
  python -m stav2a.run --gin recipes/cn_onset_gvf.gin
  python -m stav2a.run --gin recipes/cn.gin --bind 'stage.joint.steps = 800' --bind 'run.seed = 1'
  python -m stav2a.run --gin recipes/cn.gin --gin recipes/scale/smoke.gin      one over the other: seconds
  python -m stav2a.run --gin recipes/cn.gin --check                            say what it is, run nothing
  torchrun --nproc-per-node 8 -m stav2a.run --gin recipes/cn.gin               one process a GPU

The same command again goes on where it was stopped, or answers from the store when it was finished.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = options.command(
        "run", "Train, sample, evaluate and track one variant of STA-V2A, as a recipe says.", EXAMPLES
    )
    parser.add_argument(
        "--gin",
        action="append",
        required=True,
        metavar="RECIPE",
        help="a recipe; several are laid over one another",
    )
    options.add_binding(parser, "override one parameter")
    options.add_output(parser, "run folders, store and tracking")
    options.add_tracking_uri(parser, "; none tracks nothing")
    parser.add_argument(
        "--experiment", default="stav2a", metavar="NAME", help="MLflow experiment (default: stav2a)"
    )
    parser.add_argument("--run-name", metavar="NAME", help="name of the MLflow run (default: the recipe's)")
    parser.add_argument(
        "--tag",
        action="append",
        default=[],
        type=options.pair,
        metavar="NAME=VALUE",
        help="tag of the MLflow run; may be repeated",
    )
    parser.add_argument(
        "--attach",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="keep this file with the MLflow run; may be repeated",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="validate the recipe, print it whole, and what its model costs; run nothing",
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse settings that have no effect, instead of warning"
    )
    parser.add_argument("--trust-recipe", action="store_true", help="let the recipe import any module")
    return parser


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    from stav2a import recipe
    from stav2a.experiments import execution  # not above: worker processes import this module again
    from stav2a.experiments.experiment import Experiment

    loaded = recipe.load(
        arguments.gin,
        arguments.bind,
        strict=arguments.strict,
        trust=arguments.trust_recipe,
        root=Experiment,
    )
    if arguments.check:
        print(execution.explain(loaded))
        return 0
    tracked = execution.TrackingOptions(
        uri=arguments.tracking_uri,
        experiment=arguments.experiment,
        run_name=arguments.run_name,
        tags=dict(arguments.tag),
        attached=arguments.attach,
    )
    if answer := execution.execute(loaded, arguments.output, tracked):
        print(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
