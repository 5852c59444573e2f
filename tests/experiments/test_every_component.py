"""Every component in its slot, and every pair of neighbours: they work, or are refused in one line."""

import itertools

import pytest

from stav2a import recipe, registry
from stav2a.experiments.dry_run import dry_run
from stav2a.experiments.experiment import Experiment
from stav2a.registry import Entry
from stav2a.utils.errors import StaV2AError

registry.load()
SMOKE = ("recipes/cn_onset_gvf.gin", "recipes/scale/smoke.gin")
# A pretrained model at its own size, in place of the recipe's; the sizes change nothing of what fits.
TINY = (
    "feature_encoder.clip.width = 64", "feature_encoder.clip.layers = 1",
    "feature_encoder.clip.frame_size = 28",
    "feature_encoder.videomae.dim = 64", "feature_encoder.videomae.layers = 1",
    "feature_encoder.videomae.frame_size = 32",
    "feature_encoder.vjepa2.dim = 64", "feature_encoder.vjepa2.layers = 1",
    "feature_encoder.vjepa2.frame_size = 32",
    "vocoder.hifigan.upsample_initial_channel = 32",
)  # fmt: skip
PLACES = {
    "engine": "sampler.fast.engine = {}", "shortcut": "sampler.fast.shortcut = {}",
    "optimizer": "trainer.accelerate.optimizer = {}", "optical_flow": "metric.av_align.flow = {}",
    "data_filter": "stage.joint.data_filter = {}", "judge": "metric.fd.judge = {}",
    "metric": "run.metrics = [{}]",
    "stage": "run.stages = [{}]",
}  # fmt: skip
TRIED = "local_head", "data_filter", "onset_detector", "metric", "judge", "scheduler", "sampler", "stage"
NOT_HERE = {  # what a recipe must name first, and what takes minutes to compile
    "dataset.manifest", "dataset.prepared", "engine.compiled",
}  # fmt: skip
REFUSED = {  # why: a part of the message
    "local_head.linear": "stage.onset needs a local head with an onset pretext task",
    "local_head.nearest": "local_head.nearest.upsampling = 6.25 makes",
    "local_head.none": "A ControlNet needs local features",
    "feature_encoder.clip": "stage.contrastive.segment_frames = 4 does not divide the 5 video frames",
    "feature_encoder.vjepa2": "stage.contrastive.segment_frames = 4 does not divide the 10 video frames",
    "backbone.unet_controlnet_plain": "halvings make",
    "backbone.unet_controlnet_xs": "was given a U-Net of 1 layers",
    "data_filter.all_of": "data_filter.all_of.filters has no value",
    "engine.cuda_graph": "needs a CUDA device",
    "optimizer.adamw_8bit": "needs bitsandbytes",
    "shortcut.control_every": "needs a ControlNet that runs before its U-Net",
    "shortcut.deep_cache": "needs a ControlNet that runs before its U-Net",
}


def outcome(*entries: Entry) -> str | None:
    """The refusal of a recipe with these components, in one line; None where it passes."""
    slots = {entry.slot for entry in entries}
    bindings = [
        line
        for line in TINY
        if line.partition(" ")[0].rpartition(".")[0] in {entry.selector for entry in entries}
    ]
    bindings += [PLACES.get(e.slot, f"run.{e.slot} = {{}}").format(f"@{e.selector}") for e in entries]
    if not slots & {"metric", "judge", "optical_flow", "classifier"}:
        bindings += ["run.classifier = None"] + ["run.metrics = []"] * ("metric" not in slots)
    if "stage" not in slots and not slots & {"feature_encoder", "local_head"}:
        bindings += ["run.stages = [@stage.joint]"]
    try:
        dry_run(recipe.load(SMOKE, bindings, root=Experiment).build())
    except StaV2AError as error:
        text = f"{error.message} {error.advice}"
        assert "\n" not in text.strip(), text
        return text
    return None


def refusals(*slots: str) -> dict[str, str]:
    found = {}
    for entries in itertools.product(*map(registry.available, slots)):
        names = [entry.selector for entry in entries]
        if not NOT_HERE & set(names) and (told := outcome(*entries)):
            found[" + ".join(names)] = told
    return found


def explained(found: dict[str, str]) -> bool:
    """Whether every refusal is one of those that are known, of a component that is there."""
    known = [
        any(REFUSED.get(name, "\0") in told for name in (*names.split(" + "), *REFUSED))
        for names, told in found.items()
    ]
    return all(known)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("slot", TRIED)
def test_every_component_works_or_is_refused(slot):
    found = refusals(slot)
    print("\n".join(f"{names}: {told}" for names, told in found.items()))
    assert explained(found), found
