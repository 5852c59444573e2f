"""`stav2a export`: a finished run as one folder to share."""

from pathlib import Path
from typing import Annotated

from typer import Option

from stav2a.cli.options import TrustRecipe
from stav2a.utils.errors import SUCCESS, UsageError, printable

CARD = "README.md"

EXAMPLES = """
  stav2a export --run runs/RUN --output my-model
  stav2a generate clip.mp4 --model my-model --output sounds

DIR has a folder of safetensors for each block, the settings of sampling (sampling.json), the recipe, the
scores, and README.md, a model card with the licence of each weight. It needs nothing of the run's folder, and
gives the same sounds. To share it on the Hugging Face hub: hf upload OWNER/my-model my-model
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
    from stav2a.evaluation.scores import from_json
    from stav2a.experiments import run_folder
    from stav2a.models.stav2a import own_tensors
    from stav2a.pipeline import VideoToAudioPipeline
    from stav2a.reports.model_card import BlockOrigin, model_card
    from stav2a.utils.files import new_folder

    folder = run_folder.RunFolder(run)
    experiment, model = run_folder.load(run, trust=trust_recipe)
    if merge:
        model.merge_adapters()
    scores = from_json(folder.scores.read_text(encoding="utf-8")) if folder.scores.is_file() else []
    snapshot = folder.snapshot.read_text(encoding="utf-8")
    blocks = [
        BlockOrigin.of(
            slot,
            model.described[slot],
            sum(p.numel() for p in own_tensors(slot, model.block(slot).named_parameters())),
        )
        for slot in model.slots
    ]
    card = model_card(
        output.resolve().name,
        folder.facts()["recipe"],
        snapshot=snapshot,
        blocks=blocks,
        scores=scores,
        data=experiment.described("dataset")["component"],
    )
    with new_folder(output) as new:
        VideoToAudioPipeline.of(experiment, model).write(new)
        (new / folder.snapshot.name).write_text(snapshot, encoding="utf-8")
        if scores:
            (new / folder.scores.name).write_bytes(folder.scores.read_bytes())
        (new / CARD).write_text(card, encoding="utf-8")
    print(printable(output / CARD))
    return SUCCESS
