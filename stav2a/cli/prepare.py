"""`stav2a prepare`, which is `python -m stav2a prepare`: videos into a filtered, labelled, cached dataset."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stav2a.cli import options
from stav2a.utils.errors import SUCCESS, UsageError, guarded

RECIPE = "recipes/cn_onset_gvf.gin"
ENCODERS = ("feature_encoder", "autoencoder", "text_encoder")
EPILOG = """examples:
  stav2a prepare --manifest vggsound.csv --videos clips --output data/vggsound --captions auto_acd.csv
  stav2a prepare --manifest clips --videos clips --output data/mine      a folder is a manifest as well
  stav2a prepare --manifest vggsound.csv --videos clips --output data/vggsound \\
      --gin recipes/cn_onset_gvf.gin --gin recipes/scale/paper.gin        features of the paper's encoders

The recipe says the encoders, the onset detector and the filters. An encoder without weights leaves no
features: what it will be trained on is kept instead. Killed at any moment, the same command goes on, and the
folder ends up byte for byte the same. A clip that can't be read is told in the report and does not stop the
others; the exit code is 0. The forms of manifests, and what the folder holds: docs/data.md.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = options.command(
        "prepare", "Turn videos into a dataset: decoded once, filtered, labelled, encoded, cached.", EPILOG
    )
    add = parser.add_argument
    add("--manifest", type=Path, required=True, metavar="FILE", help="which clips there are, or a folder")
    add("--videos", type=Path, required=True, metavar="DIR", help="the folder of their files")
    add("--output", type=Path, required=True, metavar="DIR", help="the folder to make, or to go on with")
    add("--captions", type=Path, metavar="FILE", help="captions by id, in place of the manifest's own")
    add("--split", choices=("train", "validation", "test"), default="train", help=_SPLIT)
    add("--validation", type=_part, default=0.0, metavar="PART", help=_VALIDATION)
    add("--engine", choices=("local", "ray"), default="local", help="who does the work (default: local)")
    add("--workers", type=options.whole(1, 4096), metavar="N", help="clips at a time (default: one a core)")
    add(
        "--gin",
        action="append",
        metavar="RECIPE",
        help=f"a recipe; several are laid over (default: {RECIPE})",
    )
    options.add_binding(parser, "override one parameter")
    add("--run", type=Path, metavar="RUN_DIR", help="take recipe and encoders of a finished `stav2a run`")
    add("--without", action="append", default=[], choices=ENCODERS, help=_WITHOUT)
    add("--retry-failed", action="store_true", help="try the clips again that failed before")
    add(
        "--shard-clips",
        type=options.whole(1, 100_000),
        default=256,
        metavar="N",
        help="clips a file (default: 256)",
    )
    add("--export", nargs=2, metavar=("webdataset", "DIR"), help="also write the kept clips as tar files")
    add("--trust-recipe", action="store_true", help="let the recipe import any module")
    return parser


_SPLIT = "of clips whose manifest names none (default: train)"
_VALIDATION = "part of the training clips to hold out, where the manifest holds out none, such as 0.02"
_WITHOUT = "leave an encoder out: neither its features nor its frames or mel are kept; may be repeated"


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Prepare a dataset; 1 if that failed, 2 if the command can't be carried out."""
    arguments = build_parser().parse_args(argv)
    if arguments.run and (arguments.gin or arguments.bind):
        raise UsageError("--run brings its own recipe. Leave out --gin and --bind, or --run.")
    if arguments.export and arguments.export[0] != "webdataset":
        raise UsageError(f"--export {arguments.export[0]}: expected webdataset, then a folder.")
    from stav2a.preparation import preparing  # not above: help comes at once
    from stav2a.preparation.parts import parts

    experiment, model = _recipe(arguments)
    request = preparing.PreparationRequest(
        arguments.manifest,
        arguments.videos,
        arguments.output,
        arguments.captions,
        arguments.split,
        arguments.validation,
        arguments.shard_clips,
    )
    lines = preparing.prepare(
        request,
        parts(experiment, arguments.without, model),
        engine=arguments.engine,
        workers=arguments.workers or os.cpu_count() or 1,
        retry_failed=arguments.retry_failed,
    )
    if arguments.export:
        from stav2a.preparation.webdataset import export

        lines.append(f"export   {export(arguments.output, Path(arguments.export[1]))}")
    print("\n".join(lines))
    return SUCCESS


def _recipe(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The experiment, and the model of a finished run, if one is named."""
    if arguments.run:
        from stav2a.preparation.parts import named_run

        return named_run(arguments.run, trust=arguments.trust_recipe)
    from stav2a import recipe
    from stav2a.experiments.experiment import Experiment

    loaded = recipe.load(
        arguments.gin or [RECIPE], arguments.bind, trust=arguments.trust_recipe, root=Experiment
    )
    return loaded.build(), None


def _part(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return value
