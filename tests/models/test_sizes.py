"""Sizes and rates that can't be, each of which is refused in one line."""

import pytest

from stav2a import recipe
from stav2a.experiments.experiment import Experiment
from stav2a.utils.errors import UsageError

FLOW = ("run.objective = @objective.flow",)
BINDINGS = {  # a wrong setting -> what makes it one in use
    "scheduler.flow_match_euler.shift = 0.0": (*FLOW, "run.scheduler = @scheduler.flow_match_euler"),
    "scheduler.flow_match_heun.shift = -1.0": (*FLOW, "run.scheduler = @scheduler.flow_match_heun"),
    "feature_encoder.cavp.frame_rate_hz = 0.0": (),
    "feature_encoder.cavp_two_towers.frame_rate_hz = -4.0": (
        "run.feature_encoder = @feature_encoder.cavp_two_towers",
    ),
    "feature_encoder.clip.frame_rate_hz = 0.0": (
        *("run.temporal_encoder = @feature_encoder.clip", "feature_encoder.clip.layers = 1"),
        *("feature_encoder.clip.width = 64", "feature_encoder.clip.frame_size = 32"),
    ),
    "unet.dit.layers = 0": ("run.unet = @unet.dit",),
    "unet.dit.heads = 0": ("run.unet = @unet.dit",),
    "unet.mmdit.heads = -2": ("run.unet = @unet.mmdit",),
    "unet.mmdit.single_layers = -1": ("run.unet = @unet.mmdit",),
    "unet.code_transformer.layers = 0": ("run.unet = @unet.code_transformer",),
    "unet.code_transformer.heads = 0": ("run.unet = @unet.code_transformer",),
    "condition_fuser.cross_attention.heads = 0": ("run.condition_fuser = @condition_fuser.cross_attention",),
    "global_pooler.perceiver.heads = 0": ("run.global_pooler = @global_pooler.perceiver",),
    "global_pooler.qformer.layers = 0": ("run.global_pooler = @global_pooler.qformer",),
    "text_encoder.tiny_mt5.heads = 0": (),
}


@pytest.mark.parametrize(("wrong", "chosen"), BINDINGS.items(), ids=list(BINDINGS))
def test_a_size_that_can_not_be_is_refused_in_one_line(wrong, chosen):
    files = ("recipes/cn_onset_gvf.gin", "recipes/scale/smoke.gin")
    experiment = recipe.load(files, [*chosen, wrong], root=Experiment).build()
    with pytest.raises(UsageError) as error:
        experiment.noise_scheduler()
        experiment.model()
    assert str(error.value).startswith(f"{wrong}: expected ") and "\n" not in str(error.value)
