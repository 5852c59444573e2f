"""`stav2a export`: a finished run as one folder to share."""

from pathlib import Path
from typing import Annotated

from typer import Option

from stav2a.cli.options import TrustRecipe
from stav2a.utils.errors import SUCCESS, UsageError, printable

EXAMPLES = """
  stav2a export --run runs/RUN --output my-model
  stav2a generate clip.mp4 --model my-model --output sounds

DIR has a folder of safetensors for each block, the settings of sampling (sampling.json), the recipe, the
scores, and README.md, a model card with the licence of each weight. It needs nothing of the run's folder, and
gives the same sounds. To share it on the Hugging Face hub: hf upload OWNER/my-model my-model, or
push_to_hub of the pipeline.
"""


def export(
    run: Annotated[Path, Option(metavar="RUN_DIR", help="the folder of a finished `stav2a run`")],
    output: Annotated[Path, Option(metavar="DIR", help="a new folder")],
    merge: Annotated[
        bool, Option("--merge", help="add adapters to the weights that they were trained on")
    ] = False,
    trust_recipe: TrustRecipe = False,
) -> int:
    """Write the model of a finished run to a folder that others can use and share."""
    if output.exists():  # before torch is imported
        raise UsageError(
            f"{output} is there already.", advice="Choose another folder, or move it away first."
        )
    from stav2a.pipeline import CARD, VideoToAudioPipeline

    pipeline = VideoToAudioPipeline.from_pretrained(run, trust_recipe=trust_recipe)
    if merge:
        pipeline.model.merge_adapters()
    pipeline.save_pretrained(output)
    print(printable(output / CARD))
    return SUCCESS
