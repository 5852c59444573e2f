"""`stav2a export`: a finished run as one folder to share, or as a model on the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

from typer import Option

from stav2a.cli.options import TrustRecipe
from stav2a.utils.errors import SUCCESS, UsageError, printable

EXAMPLES = """
  stav2a export --run runs/RUN --output my-model
  stav2a generate clip.mp4 --model my-model --output sounds
  stav2a export --run runs/RUN --push OWNER/my-model     after `hf auth login`; private

DIR has a folder of safetensors for each block, the settings of sampling (sampling.json), the recipe, the
scores, and README.md, a model card with the licence of each weight. It needs nothing of the run's folder, and
gives the same sounds. With --push the same files go to the Hugging Face hub.
"""


def export(
    run: Annotated[Path, Option(metavar="RUN_DIR", help="the folder of a finished `stav2a run`")],
    output: Annotated[Path | None, Option(metavar="DIR", help="a new folder")] = None,
    push: Annotated[
        str | None,
        Option(metavar="OWNER/MODEL", help="a repository of the hub; a new one is private"),
    ] = None,
    public: Annotated[
        bool,
        Option("--public", help="with --push: everyone may read it; see the licence of each weight first"),
    ] = False,
    merge: Annotated[
        bool, Option("--merge", help="add adapters to the weights that they were trained on")
    ] = False,
    trust_recipe: TrustRecipe = False,
) -> int:
    """Write the model of a finished run to a folder that others can use and share, or to the hub."""
    if output is None and push is None:  # before torch is imported, as all that follows
        raise UsageError("expected --output or --push.", advice="--output takes a new folder.")
    if public and push is None:
        raise UsageError("--public goes with --push. Add the name of a repository, or leave it out.")
    if output is not None and output.exists():
        raise UsageError(
            f"{output} is there already.", advice="Choose another folder, or move it away first."
        )
    if push is not None:
        from stav2a.utils.uploads import check_repository

        check_repository(push)
    from stav2a.pipeline import CARD, VideoToAudioPipeline

    pipeline = VideoToAudioPipeline.from_pretrained(run, trust_recipe=trust_recipe)
    if merge:
        pipeline.model.merge_adapters()
    if output is not None:
        pipeline.save_pretrained(output)
        print(printable(output / CARD))
    if push is not None:
        print(printable(pipeline.push_to_hub(push, private=not public)))
    return SUCCESS
