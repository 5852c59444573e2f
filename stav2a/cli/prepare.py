"""`stav2a prepare`: videos into a filtered, labelled, encoded, cached dataset."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from stav2a.cli.options import Bind, TrustRecipe, number
from stav2a.utils.errors import SUCCESS, UsageError, printable
from stav2a.utils.shipped import doc

RECIPE = "recipes/cn_onset_gvf.gin"

EXAMPLES = f"""
  stav2a prepare --manifest vggsound.csv --videos clips --output data/vggsound --captions auto_acd.csv
  stav2a prepare --manifest clips --videos clips --output data/mine      a folder is a manifest as well
  stav2a prepare --manifest vggsound.csv --videos clips --output data/vggsound \\
      --gin recipes/cn_onset_gvf.gin --gin recipes/scale/paper.gin        features of the paper's encoders

The recipe names the encoders, the onset detector and the filters. An encoder without weights leaves no
features: its inputs, on which it will be trained, are kept instead. Killed at any moment, the same
command goes on, and the folder ends up byte for byte the same. A clip that can't be read is listed in the
report and does not stop the others; the exit code is 0. The forms of manifests, and the contents of the
folder: {doc("data.md")}.
"""


class EncoderSlot(StrEnum):
    """Slots whose encoder can be left out."""

    FEATURE_ENCODER = "feature_encoder"
    TEMPORAL_ENCODER = "temporal_encoder"
    AUTOENCODER = "autoencoder"
    TEXT_ENCODER = "text_encoder"


def part_of_clips(purpose: str) -> Any:
    """Option that takes a part of the clips, from 0 to 1."""
    parser = number(lambda value: 0 <= value < 1, "number from 0 to 1")
    return Option(parser=parser, metavar="PART", help=purpose)


def prepare(
    manifest: Annotated[Path, Option(metavar="FILE", help="which clips there are, or a folder")],
    videos: Annotated[Path, Option(metavar="DIR", help="the folder of their files")],
    output: Annotated[Path, Option(metavar="DIR", help="the folder to make, or to go on with")],
    captions: Annotated[
        Path | None, Option(metavar="FILE", help="captions by id, in place of the manifest's own")
    ] = None,
    split: Annotated[
        Literal["train", "validation", "test"], Option(help="split of clips whose manifest names none")
    ] = "train",
    validation: Annotated[
        float,
        part_of_clips("part of the training clips to hold out, where the manifest has none, such as 0.02"),
    ] = 0.0,
    test: Annotated[
        float,
        part_of_clips("part of the training clips to measure on, where the manifest has none, such as 0.1"),
    ] = 0.0,
    engine: Annotated[Literal["local", "ray"], Option(help="how the work is carried out")] = "local",
    workers: Annotated[
        int | None,
        Option(min=1, max=4096, metavar="N", help="clips at a time (default: one a core)"),
    ] = None,
    gin: Annotated[
        list[str],
        Option(metavar="RECIPE", help=f"a recipe; several are laid over (default: {RECIPE})"),
    ] = [],
    bind: Bind = [],
    run: Annotated[
        Path | None,
        Option(metavar="RUN_DIR", help="take recipe and encoders of a finished `stav2a run`"),
    ] = None,
    without: Annotated[
        list[EncoderSlot],
        Option(
            help="leave an encoder out: neither its features nor its frames or mel are kept; may be repeated"
        ),
    ] = [],
    retry_failed: Annotated[
        bool, Option("--retry-failed", help="try the clips again that failed before")
    ] = False,
    shard_clips: Annotated[int, Option(min=1, max=100_000, metavar="N", help="clips a file")] = 256,
    export: Annotated[
        tuple[str, Path] | None,
        Option(metavar="webdataset DIR", help="also write the kept clips as tar files"),
    ] = None,
    trust_recipe: TrustRecipe = False,
) -> int:
    """Turn videos into a dataset: decoded once, filtered, labelled, encoded, cached."""
    if run and (gin or bind):
        raise UsageError("--run brings its own recipe. Leave out --gin and --bind, or --run.")
    if export and export[0] != "webdataset":
        raise UsageError(f"--export {export[0]}: expected webdataset, then a folder.")
    from stav2a import recipe  # not above: help comes at once
    from stav2a.experiments import run_folder
    from stav2a.experiments.experiment import Experiment
    from stav2a.preparation import preparing
    from stav2a.preparation.parts import build_parts
    from stav2a.preparation.plan import PreparationRequest
    from stav2a.utils.parallel import usable_cpus
    from stav2a.utils.program import command

    if validation + test >= 1:
        raise UsageError(f"--validation {validation} and --test {test} leave no clip to train on.")
    if run:
        experiment, model = run_folder.load(run, trust=trust_recipe)
    else:
        loaded = recipe.load(gin or [RECIPE], bind, trust=trust_recipe, root=Experiment)
        experiment, model = loaded.build(), None
    lines = preparing.prepare(
        PreparationRequest(manifest, videos, output, captions, split, validation, test, shard_clips),
        build_parts(experiment, without, model),
        engine=engine,
        workers=workers or usable_cpus(),
        retry_failed=retry_failed,
    )
    recipes = [run / "snapshot.gin"] if run else gin or [RECIPE]
    dataset = ("run.dataset = @dataset.prepared", f"dataset.prepared.folder = {str(output)!r}")
    words = [word for each in recipes for word in ("--gin", each)]
    words += [word for each in (*bind, *dataset) for word in ("--bind", each)]
    lines.append(f"train    {command('run', *words, *(['--trust-recipe'] if trust_recipe else []))}")
    if export:
        from stav2a.preparation.dataset_folder import DatasetFolder, export_webdataset

        export_webdataset(DatasetFolder(output), export[1])
        lines.append(f"export   {export[1]}")
    print("\n".join(map(printable, lines)))
    return SUCCESS
