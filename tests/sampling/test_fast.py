"""The fast sampler's exact levers give the reference's latents, and leave the model as it is."""

import copy
from functools import partial
from typing import Any

import pytest
import torch

from stav2a.components.backbones import (
    DiTBackbone,
    UNetBackbone,
    UNetControlNet,
    UNetControlNetDecoupled,
    UNetControlNetFDN,
    UNetControlNetMasked,
    UNetControlNetPlain,
    UNetControlNetReleased,
    UNetControlNetXS,
)
from stav2a.components.condition_fusers import TextToVideoAttention, VideoFirst, VideoOnly
from stav2a.components.global_poolers import FrameTokens
from stav2a.components.local_heads import NearestHead, OnsetTrackHead
from stav2a.components.unets import DiT, MMDiT
from stav2a.sampling import (
    Compiled,
    CudaGraph,
    Eager,
    FastSampler,
    NoShortcut,
    ReferenceSampler,
    SamplerError,
    ddim,
    ddpm,
    dpm_solver,
    flow_match_euler,
    flow_match_heun,
    unipc,
)
from stav2a.sampling.fast import fast_sampler
from stav2a.utils.errors import UsageError
from tests import tiny
from tests.sampling.given import CAPTIONS, error, features, made, sample

BACKBONES: dict[str, dict[str, Any]] = {
    "unet": {"backbone": UNetBackbone},
    "controlnet": {"backbone": UNetControlNet},
    "masked": {"backbone": UNetControlNetMasked},
    "fdn": {"backbone": UNetControlNetFDN},
    "released": {"backbone": UNetControlNetReleased},
    "plain": {
        "backbone": partial(UNetControlNetPlain, channels=(2,)),
        "local_head": partial(NearestHead, upsampling=1.0),
    },
    "xs": {"backbone": UNetControlNetXS, "unet": partial(tiny.unet, layers_per_block=2)},
    "dit": {"backbone": DiTBackbone, "unet": partial(DiT, width=16, layers=2, heads=2)},
    "mmdit": {
        "backbone": DiTBackbone,
        "unet": partial(MMDiT, width=16, joint_layers=2, single_layers=1, heads=2),
    },
    "decoupled": {
        "backbone": UNetControlNetDecoupled,
        "condition_fuser": VideoFirst,
        "local_head": partial(OnsetTrackHead, dim_per_window=8),
    },
    "frames": {"backbone": UNetBackbone, "global_pooler": FrameTokens},
    "video only": {
        "backbone": UNetBackbone,
        "global_pooler": FrameTokens,
        "condition_fuser": VideoOnly,
    },
    "text to video": {"global_pooler": FrameTokens, "condition_fuser": TextToVideoAttention},
}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_every_backbone_gives_the_references_latents(name, guidance_scale):
    model = made(**BACKBONES[name])
    expected = sample(ReferenceSampler(), model, guidance_scale=guidance_scale)
    assert error(sample(FastSampler(), model, guidance_scale=guidance_scale), expected) <= 1e-5


def test_keys_and_values_of_a_transformer_are_computed_once():
    model, sampler, calls = made(**BACKBONES["dit"]), FastSampler(), []
    for layer in model.backbone.unet.layers:
        layer.cross.to_k.register_forward_hook(lambda *_: calls.append(1))
    sample(sampler, model, num_inference_steps=7)
    assert len(calls) == 2 * len(model.backbone.unet.layers)  # once to find what reads the tokens


@pytest.mark.parametrize("scheduler", [ddpm, ddim, dpm_solver, unipc])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_every_scheduler_gives_the_references_latents(scheduler, prediction_type):
    model, scheduler = made(), partial(scheduler, timestep_spacing="trailing")
    settings: Any = {"num_inference_steps": 20, "guidance_scale": 2.0, "seeds": (1, 5, 9)}
    found, expected = (
        sampler(model, features(), CAPTIONS, scheduler=scheduler(prediction_type), **settings)
        for sampler in (FastSampler(), ReferenceSampler())
    )
    assert error(found, expected) <= 1e-5


@pytest.mark.parametrize("scheduler", [flow_match_euler, flow_match_heun, dpm_solver, unipc])
def test_a_flow_gives_the_references_latents(scheduler):
    model, settings = made(), {"num_inference_steps": 9, "guidance_scale": 2.0, "seeds": (1, 5, 9)}
    found, expected = (
        sampler(model, features(), CAPTIONS, scheduler=scheduler("flow_prediction"), **settings)
        for sampler in (FastSampler(), ReferenceSampler())
    )
    assert error(found, expected) <= 1e-5


def test_an_engine_for_gpus_refuses_a_model_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SamplerError, match="runs on cuda alone, but the model is on cpu"):
        sample(FastSampler(engine=CudaGraph), made())


def test_a_recording_without_a_run_before_it_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UsageError, match=r"engine.cuda_graph.warmups = 0: expected 1 or more"):
        CudaGraph(warmups=0)


def test_a_schedulers_table_is_made_once_for_its_settings(monkeypatch):
    model, sampler, made_for = made(), FastSampler(), []
    tabulate = fast_sampler.tabulate
    monkeypatch.setattr(
        fast_sampler, "tabulate", lambda *given: (made_for.append(given[1]), tabulate(*given))[1]
    )
    for scheduler, steps in ((ddim, 3), (ddim, 3), (ddim, 4), (unipc, 3), (ddim, 3)):
        expected = sample(ReferenceSampler(), model, scheduler=scheduler, num_inference_steps=steps)
        found = sample(sampler, model, scheduler=scheduler, num_inference_steps=steps)
        assert error(found, expected) <= 1e-5
    assert made_for == [3, 4, 3]


@pytest.mark.parametrize("text_bucket", [1, 7, 64])
def test_padding_the_tokens_changes_nothing_even_without_a_mask(text_bucket):
    model = made()  # whose stock ControlNet takes no mask
    expected = sample(ReferenceSampler(), model)
    assert error(sample(FastSampler(text_bucket=text_bucket), model), expected) <= 1e-5


def test_channels_last_gives_the_references_latents():
    model = made()
    found = sample(FastSampler(memory_format="channels_last"), model)
    assert error(found, sample(ReferenceSampler(), model)) <= 1e-5


@pytest.mark.parametrize(
    ("engine", "warned"), [(Eager, True), (partial(Compiled, backend="eager"), False), (CudaGraph, True)]
)
def test_channels_last_warns_on_a_gpu_where_nothing_is_compiled(monkeypatch, caplog, engine, warned):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    sampler = FastSampler(memory_format="channels_last", engine=engine)
    sampler._check_format(torch.device("cpu"))
    assert caplog.messages == []
    sampler._check_format(torch.device("cuda"))
    assert len(caplog.messages) == warned
    assert all("Bind sampler.fast.engine = @engine.compiled" in each for each in caplog.messages)


def test_attention_is_computed_by_the_first_backend_that_can():
    order, seen, model = torch._C._get_sdp_priority_order, [], made()
    model.backbone.unet.conv_in.register_forward_hook(lambda *_: seen.append(order()[:4]))
    before = order()
    found = sample(FastSampler(attention=("cudnn", "efficient")), model)
    cudnn, efficient, flash, math = 3, 2, 1, 0  # of torch.nn.attention.SDPBackend
    assert seen[-5:] == [[cudnn, efficient, flash, math]] * 5
    assert order() == before
    assert torch.equal(found, sample(FastSampler(), model))  # a CPU has one


def test_a_backend_of_attention_that_torch_does_not_have_is_refused():
    with pytest.raises(UsageError) as told:
        FastSampler(attention=("cuddn",))
    assert str(told.value) == (
        "sampler.fast.attention has 'cuddn'. Expected some of flash, efficient, math, cudnn."
    )


@pytest.mark.parametrize(("precision", "most"), [("bfloat16", 0.1), ("float16", 0.01)])
def test_half_precision_comes_near(precision, most):
    model = made()
    found = sample(FastSampler(precision=precision), model)
    assert found.dtype == torch.float32 and 0 < error(found, sample(ReferenceSampler(), model)) <= most


def test_one_sampler_serves_other_captions_steps_guidance_batches_and_models():
    sampler, reference = FastSampler(), ReferenceSampler()
    model, other = made(), made(backbone=UNetControlNetMasked)
    calls: list[tuple[Any, ...]] = [
        (model, CAPTIONS, ddim, {}),
        (
            model,
            ["", "a bell that rings for long", "x"],
            ddim,
            {"e_v": features().flip(1), "guidance_scale": 1.5},
        ),
        (model, CAPTIONS, ddpm, {"num_inference_steps": 7}),
        (model, CAPTIONS, unipc, {}),
        (model, CAPTIONS[:1], unipc, {"seeds": (4,)}),
        (model, CAPTIONS, ddim, {"guidance_scale": 1.0}),
        (other, CAPTIONS, ddim, {"guidance_scale": 1.0}),
        (model, CAPTIONS, ddim, {}),
    ]
    for of, captions, scheduler, changes in calls:
        found, expected = (
            sample(each, of, captions, scheduler=scheduler, **changes) for each in (sampler, reference)
        )
        assert error(found, expected) <= 1e-5


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_that_changed_are_noticed(precision):
    model, sampler = made(), FastSampler(precision=precision)
    before = sample(sampler, model)
    tiny.shake(model.backbone, 0.05, seed=1)
    found = sample(sampler, model)
    assert error(before, found) > 0.1
    assert torch.equal(found, sample(FastSampler(precision=precision), model))


def test_the_model_stays_as_it_is():
    model = made()
    modules = {name: type(module) for name, module in model.named_modules()}
    weights = copy.deepcopy(model.state_dict())
    z_t, t = torch.randn(3, *model.latent_shape), torch.tensor([500, 500, 500])
    conditions = model.condition(features(), *model.text_encoder(CAPTIONS))
    before = model.predict(z_t, t, conditions)
    for form in ({}, {"precision": "bfloat16"}, {"memory_format": "channels_last"}):
        sample(FastSampler(**form), model)
    assert {name: type(module) for name, module in model.named_modules()} == modules
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in model.parameters())
    assert all(p.requires_grad for p in model.backbone.parameters())
    assert torch.equal(model.predict(z_t, t, conditions), before)


def test_a_cross_attention_with_norms_of_its_own_is_refused():
    from diffusers.models.attention_processor import Attention

    model = made(backbone=UNetBackbone)
    attention = next(m for m in model.modules() if isinstance(m, Attention) and m.is_cross_attention)
    attention.norm_q = torch.nn.Identity()
    with pytest.raises(SamplerError) as told:
        sample(FastSampler(), model)
    assert str(told.value) == (
        "The backbone's cross attention has norms or residuals of its own, which sampler.fast does not know. "
        "Bind run.sampler = @sampler.reference."
    )


def test_an_engine_in_a_shortcuts_place_is_refused():
    with pytest.raises(ValueError, match="engine was given shortcut.none"):
        FastSampler(engine=NoShortcut)
