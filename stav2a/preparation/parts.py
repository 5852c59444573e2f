"""What a recipe says of preparation: encoders that have their weights, the detector, and every filter."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stav2a.experiments.experiment import Experiment
from stav2a.models.stav2a import latent_shape
from stav2a.preparation.clip_stages import ClipSettings
from stav2a.recipe import describing
from stav2a.utils.checkpoints import CheckpointError, fingerprint, no_weights
from stav2a.utils.errors import text_of

ENCODERS = ("feature_encoder", "autoencoder", "text_encoder")

# What is kept of a clip where the encoder has its weights, and where it is still to be trained.
KEEPS = {
    "feature_encoder": ("e_v", ("frames", "mel")),  # its training contrasts picture and sound
    "autoencoder": ("latents", ("mel",)),
    "text_encoder": ("e_text", ()),
}


@dataclass(frozen=True)
class Parts:
    """The parts of a recipe that prepare clips.

    Args:
        settings: What a clip is made into.
        encoders: Those that have their weights, by slot.
        detector: Makes the pseudo-labels.
        filters: By key, in the order of the stages that ask for them.
        described: All of it in words, for `prepared.json`.
        kept: What is kept of each encoder, in a sentence.
    """

    settings: ClipSettings
    encoders: Mapping[str, Any]
    detector: Callable[..., Any]
    filters: Mapping[str, Callable[..., Any]]
    described: Mapping[str, Any]
    kept: tuple[str, ...]


def parts(experiment: Experiment, without: Collection[str] = (), trained: Any = None) -> Parts:
    """Build what preparation needs, and nothing else.

    Args:
        experiment: The recipe.
        without: Encoders to leave out: neither their output nor their input is kept.
        trained: A finished run's model, whose encoders are taken.

    Raises:
        CheckpointError: An encoder's weights are named by the recipe, but not there.
    """
    blocks = {slot: _block(experiment, slot, without, trained) for slot in ENCODERS}
    encoders = {
        slot: block
        for slot, block in blocks.items()
        if slot not in without and (trained is not None or _has_weights(block))
    }
    keep: list[str] = []
    for slot in ENCODERS:
        if slot not in without:
            keep += [KEEPS[slot][0]] if slot in encoders else KEEPS[slot][1]
    if experiment.classifier is not None:
        keep.append("mel")  # it is trained on the clips' own sound
    video: Any = blocks["feature_encoder"]
    settings = ClipSettings(
        frame_rate_hz=video.frame_rate_hz,
        frame_size=video.frame_size,
        duration_s=experiment.duration_s,
        latent_frames=latent_shape(blocks["autoencoder"], experiment.duration_s)[1],
        keep=tuple(dict.fromkeys(keep)),
    )
    factories = _filters(experiment)
    described = {
        "settings": {name: value for name, value in vars(settings).items()} | {"keep": list(settings.keep)},
        "encoders": {
            slot: {**experiment.described(slot), "weights": fingerprint(block)}
            for slot, block in encoders.items()
        },
        "onset_detector": experiment.described("onset_detector"),
        "filters": {key: describing.describe(factory) for key, factory in factories.items()},
    }
    kept = tuple(_told(experiment, slot, encoders, without) for slot in ENCODERS)
    filters = {key: factory() for key, factory in factories.items()}
    return Parts(settings, encoders, experiment.onset_detector(), filters, described, kept)


def filter_key(factory: Any) -> str:
    """What a filter's decisions are kept under."""
    return describing.signature(describing.describe(factory))[:16]


def _block(experiment: Experiment, slot: str, without: Collection[str], trained: Any) -> Any:
    if trained is not None:
        return trained.block(slot)
    torch.manual_seed(experiment.seed)
    if slot not in without:
        try:
            return getattr(experiment, slot)().eval()
        except CheckpointError as error:
            raise CheckpointError(f"{text_of(error)} Or go on without it: --without {slot}.") from None
    if slot == "text_encoder":
        return None
    with no_weights():  # its rates and sizes count all the same
        return getattr(experiment, slot)()


def _has_weights(block: Any) -> bool:
    """Whether it came with its weights, and froze them; or has none that could be trained."""
    return not any(parameter.requires_grad for parameter in block.parameters())


def _filters(experiment: Experiment) -> dict[str, Any]:
    """Every distinct filter of a stage that trains, by key."""
    stages = [stage for factory in experiment.stages if (stage := factory()).steps]
    if experiment.classifier is not None:
        stages.append(experiment.classifier(classes=1))
    return {filter_key(stage.data_filter): stage.data_filter for stage in stages}


def _told(experiment: Experiment, slot: str, encoders: Collection[str], without: Collection[str]) -> str:
    name, (output, inputs) = experiment.described(slot)["component"], KEEPS[slot]
    if slot in without:
        return f"{name}: left out, as asked for"
    if slot in encoders:
        return f"{name}: has its weights, {output} is kept"
    kept = " and ".join(inputs) + " are kept" if inputs else "captions are kept"
    return f"{name}: has no weights, this recipe trains it; {kept}, and no {output}"


def named_run(run: Path, *, trust: bool) -> tuple[Experiment, Any]:
    """The recipe and the model of a finished run."""
    from stav2a.experiments.run_folder import load

    found = load(run, trust=trust)
    return found.experiment, found.model
