"""The parts of a recipe that preparation uses: encoders with their weights, the detector, all filters."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from stav2a.data.filters import KeepAll, filter_key
from stav2a.data.front_ends import AudioLDMMel
from stav2a.experiments.experiment import Experiment
from stav2a.models.stav2a import STAV2A, check_fit, latent_shape
from stav2a.preparation.clip_stages import ClipSettings
from stav2a.recipe import describing
from stav2a.utils.checkpoints import CheckpointError, fingerprint, no_weights
from stav2a.utils.contents import Contents

# Tensors that are kept of a clip where the encoder has its weights, and where it is still to be trained.
KEEPS = {
    "feature_encoder": ("e_v", ("frames", "spectrogram")),  # its training contrasts picture and sound
    "autoencoder": ("latents", ("mel",)),
    "text_encoder": ("e_text", ()),
}


@dataclass(frozen=True)
class RecipeParts:
    """The built parts."""

    settings: ClipSettings
    encoders: Mapping[str, Any]  # those that have their weights, by slot
    detector: Callable[..., Any]  # the source of the pseudo-labels
    filters: Mapping[str, Callable[..., Any]]  # by key, in the order of the stages that ask for them
    front_end: Any
    described: Mapping[str, Any]  # all of it, for `prepared.json`
    kept: tuple[str, ...]  # a sentence per encoder


def build_parts(
    experiment: Experiment, without: Collection[str] = (), trained: STAV2A | None = None
) -> RecipeParts:
    """Build what preparation needs, and nothing else.

    Args:
        experiment: The recipe.
        without: Slots of encoders to leave out: neither their output nor their input is kept.
        trained: Model of a finished run, whose encoders are taken.

    Raises:
        CheckpointError: The recipe names an encoder's weights that are not there.
    """
    blocks = {slot: _block(experiment, slot, without, trained) for slot in KEEPS}
    front_end = experiment.front_end()
    check_fit("autoencoder", blocks["autoencoder"], experiment.autoencoder, front_end)
    own = isinstance(front_end, AudioLDMMel)  # its mel is the spectrogram too
    encoders = {
        slot: block
        for slot, block in blocks.items()
        # loaded weights are frozen: what can be trained has none
        if slot not in without
        and (trained is not None or not any(each.requires_grad for each in block.parameters()))
    }
    keep: list[str] = []
    kept: list[str] = []
    for slot, (output, inputs) in KEEPS.items():
        name = experiment.described(slot)["component"]
        if slot in without:
            kept.append(f"{name}: left out, as asked for")
        elif slot in encoders:
            keep.append(output)
            kept.append(f"{name}: has its weights, {output} is kept")
        else:
            inputs = tuple("mel" if own and name == "spectrogram" else name for name in inputs)
            keep += inputs
            names = " and ".join(inputs or ("captions",))
            kept.append(f"{name}: has no weights, this recipe trains it; kept: {names}; not {output}")
    if experiment.classifier is not None:
        keep.append("mel" if own else "spectrogram")  # it is trained on the clips' own sound
    contents = Contents()
    asked = experiment.data_filters(contents) or {
        filter_key(KeepAll, contents): KeepAll
    }  # nothing is trained
    factories = {key[:16]: factory for key, factory in asked.items()}
    settings = ClipSettings(
        frame_rate_hz=blocks["feature_encoder"].frame_rate_hz,
        frame_size=blocks["feature_encoder"].frame_size,
        duration_s=experiment.duration_s,
        latent_frames=latent_shape(blocks["autoencoder"], front_end, experiment.duration_s)[1],
        keep=tuple(dict.fromkeys(keep)),
        audio_peak=experiment.audio_peak,
    )
    written = {**asdict(settings), "keep": list(settings.keep)}  # without a peak, as older folders have none
    described = {
        "settings": {name: value for name, value in written.items() if value is not None},
        "encoders": {
            slot: {**experiment.described(slot), "weights": fingerprint(block)}
            for slot, block in encoders.items()
        },
        "onset_detector": experiment.described("onset_detector"),
        "filters": {key: describing.describe(factory) for key, factory in factories.items()},
        **({} if own else {"front_end": experiment.described("front_end")}),  # older folders name none
    }
    filters = {key: factory() for key, factory in factories.items()}
    detector = experiment.onset_detector()
    return RecipeParts(settings, encoders, detector, filters, front_end, described, tuple(kept))


def _block(experiment: Experiment, slot: str, without: Collection[str], trained: STAV2A | None) -> Any:
    if trained is not None:
        return trained.block(slot)
    torch.manual_seed(experiment.seed)
    if slot not in without:
        try:
            return getattr(experiment, slot)().eval()
        except CheckpointError as error:
            advice = f"{error.advice} Or go on without it: --without {slot}.".strip()
            raise CheckpointError(error.message, error.place, advice) from None
    if slot == "text_encoder":
        return None
    with no_weights():  # its rates and sizes count all the same
        return getattr(experiment, slot)()
