"""Shortcuts leave out what they say, no more, and are exact where they leave out nothing."""

from functools import partial

import pytest
import torch

from stav2a.components.backbones import UNetBackbone, UNetControlNetDecoupled, UNetControlNetXS
from stav2a.components.condition_fusers import VideoFirst
from stav2a.sampling import (
    ControlEvery,
    DeepCache,
    FastSampler,
    GuidanceInterval,
    ReferenceSampler,
    SamplerError,
)
from tests import tiny
from tests.sampling.given import error, made, sample

NOTHING_LEFT_OUT = {
    "guidance_interval": partial(GuidanceInterval, low=0.0, high=1.0),
    "control_every": partial(ControlEvery, steps=1),
    "deep_cache": partial(DeepCache, steps=1),
}
SOMETHING_LEFT_OUT = {
    "guidance_interval": GuidanceInterval,
    "control_every": ControlEvery,
    "deep_cache": DeepCache,
}


@pytest.mark.parametrize("name", NOTHING_LEFT_OUT)
def test_a_shortcut_that_leaves_out_nothing_is_exact(name):
    model = made()
    found = sample(FastSampler(shortcut=NOTHING_LEFT_OUT[name]), model)
    assert error(found, sample(ReferenceSampler(), model)) <= 1e-5


@pytest.mark.parametrize("name", SOMETHING_LEFT_OUT)
def test_a_shortcut_changes_the_result_a_little_and_repeats_it(name):
    model, sampler = made(), FastSampler(shortcut=SOMETHING_LEFT_OUT[name])
    found = sample(sampler, model, num_inference_steps=20)
    assert 1e-4 < error(found, sample(ReferenceSampler(), model, num_inference_steps=20)) < 0.5
    assert torch.equal(sample(sampler, model, num_inference_steps=20), found)


def test_a_closed_guidance_interval_is_the_conditional_prediction():
    model = made()
    never = partial(GuidanceInterval, low=0.9999, high=1.0)  # above every timestep that is visited
    found = sample(FastSampler(shortcut=never), model)
    assert error(found, sample(ReferenceSampler(), model, guidance_scale=1.0)) <= 1e-5


@pytest.mark.parametrize(
    "blocks",
    [
        {},
        {
            "backbone": UNetControlNetDecoupled,
            "condition_fuser": VideoFirst,
            "unet": partial(tiny.unet, attention_levels=(True, True)),
        },
    ],
    ids=["controlnet", "decoupled"],
)
def test_deep_cache_gives_the_whole_models_prediction_while_nothing_changes(blocks):
    """With values cached at the same latent and time, the shallow pass gives the whole one's prediction."""
    from stav2a.models.stav2a import encode_captions
    from stav2a.sampling.fast.static_backbone import ComputeFormat, StaticBackbone

    model = made(**blocks)
    both = model.condition(torch.randn(1, 8, 16), *encode_captions(model, ["a drum"]))
    static = StaticBackbone(model.backbone, model.latent_shape, both, ComputeFormat())
    predict_fns = DeepCache().predict_fns(static.backbone)
    static.update(both, torch.tensor([400]))
    static.select(0)
    inputs = static.inputs(torch.randn(1, *model.latent_shape), branches=1)
    with torch.no_grad():
        full, cached = (predict_fns[name].predict(static.backbone, *inputs) for name in ("full", "cached"))
    assert error(cached, full) <= 1e-6


def test_every_kth_step_is_a_full_one():
    assert ControlEvery(steps=3).plan(range(5)) == ["full", "cached", "cached", "full", "cached"]


@pytest.mark.parametrize("name", ["control_every", "deep_cache"])
@pytest.mark.parametrize("backbone", [UNetBackbone, UNetControlNetXS])
def test_a_backbone_without_a_control_pass_of_its_own_is_refused(name, backbone):
    model = made(backbone=backbone, unet=partial(tiny.unet, layers_per_block=2))
    with pytest.raises(SamplerError) as told:
        sample(FastSampler(shortcut=SOMETHING_LEFT_OUT[name]), model)
    assert str(told.value) == (
        f"shortcut.{name} needs a ControlNet that runs before its U-Net, and {backbone.__name__} has none. "
        "Bind sampler.fast.shortcut = @shortcut.none."
    )


def test_settings_that_can_not_be_are_refused():
    with pytest.raises(ValueError, match=r"shortcut.deep_cache.steps = 0: expected 1 or more\."):
        DeepCache(steps=0)
    with pytest.raises(ValueError, match=r"low = 0.5, high = 0.2: expected 0 <= low < high <= 1\."):
        GuidanceInterval(low=0.5, high=0.2)
