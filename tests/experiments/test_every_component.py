"""Every component in its slot: it works, or is refused in one line before anything is trained."""

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
    "vocoder.bigvgan.upsample_initial_channel = 64", "autoencoder.mmaudio.hidden_channels = 8",
    "autoencoder.oobleck.hidden_size = 8",
)  # fmt: skip
PLACES = {
    "engine": "sampler.fast.engine = {}", "shortcut": "sampler.fast.shortcut = {}",
    "optimizer": "trainer.accelerate.optimizer = {}", "optical_flow": "metric.av_align.flow = {}",
    "data_filter": "stage.joint.data_filter = {}", "judge": "metric.fd.judge = {}",
    "stage": "run.stages = [{}]", "adapter": "stage.joint.adapter = {}",
}  # fmt: skip
TRIED = [slot for slot in registry.SLOTS if slot not in ("dataset", "metric")]
NOT_HERE = {"engine.compiled"}  # takes minutes
REFUSED = {  # why: a part of the message
    "local_head.linear": "stage.onset needs a local head with an onset pretext task",
    "local_head.nearest": "stage.onset needs a local head with an onset pretext task",
    "local_head.none": "A ControlNet needs local features",
    "feature_encoder.clip": "stage.contrastive.segment_frames = 4 does not divide the 5 video frames",
    "feature_encoder.vjepa2": "stage.contrastive.segment_frames = 4 does not divide the 10 video frames",
    "unet.code_transformer": "needs the blocks of diffusers' U-Net, and CodeTransformer has none",
    "backbone.autoregressive": "needs a model of codes, and UNet2DConditionModel is a denoiser",
    "sampler.autoregressive": "needs a model of codes, and backbone.unet_controlnet is none",
    "sampler.similarity_guided": "needs a feature encoder that embeds sound; feature_encoder.cavp does not",
    "stage.codes": "stage.codes needs a model of codes, and backbone.unet_controlnet is none",
    "unet.dit": "backbone.unet_controlnet needs the blocks of diffusers' U-Net, and DiT has none",
    "unet.mmdit": "backbone.unet_controlnet needs the blocks of diffusers' U-Net, and MMDiT has none",
    "backbone.dit": "needs a transformer that takes a frame_embedding, and UNet2DConditionModel does not",
    "backbone.unet_controlnet_decoupled": "and no video tokens stand at the beginning of those",
    "backbone.unet_controlnet_plain": "halvings make",
    "backbone.unet_controlnet_xs": "was given a U-Net of 1 layers",
    "front_end.mmaudio_mel": "makes 220 frames, which the autoencoder's downsampling of 8",
    "front_end.waveform": "vocoder.griffin_lim needs mel spectrograms; Waveform gives none",
    "autoencoder.mmaudio": "is made for 128 bins, and front_end.audioldm_mel gives 64 bins",
    "autoencoder.oobleck": "is made for sound at 44100 Hz, and front_end.audioldm_mel gives sound at 16000",
    "vocoder.bigvgan": "is made for sound at 44100 Hz, and front_end.audioldm_mel gives sound at 16000",
    "vocoder.none": "is made for a hop of 1 samples, and front_end.audioldm_mel gives a hop of 160",
    "data_filter.all_of": "data_filter.all_of.filters has no value",
    "data_filter.speech_sound": "data_filter.speech_sound: weights of YAMNet not found",
    "objective.flow": "scheduler.ddpm takes epsilon or v_prediction, but the objective is a flow",
    "scheduler.flow_match_euler": "takes a flow, but the objective is v_prediction",
    "scheduler.flow_match_heun": "takes a flow, but the objective is v_prediction",
    "engine.cuda_graph": "needs a CUDA device",
    "optimizer.adamw_8bit": "needs bitsandbytes",
    "shortcut.control_every": "needs a ControlNet that runs before its U-Net",
    "shortcut.deep_cache": "needs a ControlNet that runs before its U-Net",
}


def refusal(entry: Entry) -> str | None:
    """The error of a dry run with this component; None where it passes."""
    bindings = [line for line in TINY if line.startswith(f"{entry.selector}.")]
    bindings += [PLACES.get(entry.slot, f"run.{entry.slot} = {{}}").format(f"@{entry.selector}")]
    if entry.slot not in ("judge", "optical_flow", "classifier"):
        bindings += ["run.classifier = None", "run.metrics = []"]
    if entry.slot not in ("stage", "feature_encoder", "local_head"):
        bindings += ["run.stages = [@stage.joint]"]
    try:
        dry_run(recipe.load(SMOKE, bindings, root=Experiment).build())
    except StaV2AError as error:
        return f"{error.message} {error.advice}".strip()
    return None


@pytest.mark.slow
@pytest.mark.parametrize("slot", TRIED)
def test_every_component_works_or_is_refused_in_one_line(slot):
    found = {
        each.selector: refusal(each) for each in registry.available(slot) if each.selector not in NOT_HERE
    }
    refused = {selector: told for selector, told in found.items() if told}
    assert all("\n" not in told for told in refused.values())
    assert {
        selector for selector, told in refused.items() if REFUSED.get(selector, "\0") not in told
    } == set()


@pytest.mark.slow
def test_all_metrics_work_together():
    metrics = ", ".join(f"@{each.selector}" for each in registry.available("metric"))
    bindings = (f"run.metrics = [{metrics}]", "run.stages = [@stage.joint]")
    dry_run(recipe.load(SMOKE, bindings, root=Experiment).build())
