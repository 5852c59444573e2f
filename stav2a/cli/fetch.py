"""`stav2a fetch`: published weights, downloaded and put where recipes and judges look for them."""

import os
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from stav2a.utils.errors import SUCCESS, USAGE, UsageError, printable
from stav2a.utils.shipped import doc

EXAMPLES = f"""
  stav2a fetch                                  what there is: name, licence, size, source, purpose
  stav2a fetch released --accept-licence        the authors' model, with all that it needs
  stav2a fetch clap --accept-licence            weights of a judge, into $STAV2A_WEIGHTS, else ./weights

Weights of models are converted into ./checkpoints, where recipes/scale/ looks for them. A download that was
interrupted goes on; each file is checked by its sha256. More: {doc("weights.md")}.
"""


def fetch(
    name: Annotated[
        str | None, Argument(metavar="NAME", help="one of the list that is printed without it")
    ] = None,
    output: Annotated[
        Path | None, Option(metavar="DIR", help="another folder than ./checkpoints or $STAV2A_WEIGHTS")
    ] = None,
    accept_licence: Annotated[
        bool, Option("--accept-licence", help="I have read the licence that is named, and agree to it")
    ] = False,
) -> int:
    """Download published weights, convert them, and put them where recipes and judges look for them."""
    from stav2a.models.conversion.catalogue import CATALOGUE, CHECKPOINTS
    from stav2a.registry import did_you_mean
    from stav2a.utils.downloads import size_text

    if name is None:
        for known, weights in CATALOGUE.items():
            print(f"{known}\n  for      {weights.purpose}\n  licence  {weights.licence}")
            print(f"  size     {size_text(weights.size)}\n  source   {weights.page}")
        return SUCCESS
    if name not in CATALOGUE:
        raise UsageError(f"no published weights named {name!r}.", advice=did_you_mean(name, CATALOGUE))
    from stav2a.metrics.judges.judge import ENVIRONMENT
    from stav2a.models.conversion import fetching

    wanted = CATALOGUE[name]
    judges = Path(os.environ.get(ENVIRONMENT) or "weights")
    folder = output or (judges if wanted.judge else Path(CHECKPOINTS))
    missing = [each for each in (*wanted.needs, name) if not fetching.there(CATALOGUE[each], folder)]
    if not missing:
        print(f"{name} is there already: {', '.join(printable(folder / each) for each in wanted.targets)}")
        return SUCCESS
    for each in missing:
        weights = CATALOGUE[each]
        print(f"licence   {each} ({size_text(weights.size)}): {weights.licence}. Read {weights.page}")
    if not accept_licence:
        print("Nothing was downloaded. Once you have read it and agree: add --accept-licence.")
        return USAGE
    from stav2a.utils.files import check_writable

    check_writable(folder)
    for each in missing:
        weights = CATALOGUE[each]
        finish = _write_sampling if weights.with_sampling else lambda made: None
        for line in fetching.fetch(each, weights, folder, finish=finish):
            print(printable(line))
        print(f"wrote     {', '.join(printable(folder / target) for target in weights.targets)}", flush=True)
    if wanted.judge and output is None and ENVIRONMENT not in os.environ:
        print(f"Judges find them by: export {ENVIRONMENT}={printable(folder.resolve())}")
    if wanted.with_sampling:
        named = name if output is None else printable(folder / wanted.folder)
        print(f"To use it: stav2a generate clip.mp4 --model {named} --output sounds")
    return SUCCESS


def _write_sampling(model: Path) -> None:
    """Write the settings of sampling of the recipe that the model is published for."""
    from stav2a import recipe
    from stav2a.experiments.experiment import Experiment
    from stav2a.pipeline import write_sampling

    recipes = [Path("recipes/released.gin"), Path("recipes/scale/released.gin")]
    write_sampling(model, recipe.load(recipes, root=Experiment).build())
