"""A model of codes in the place of the denoiser, its stage and its sampler."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from stav2a.components.autoregressive import AutoregressiveBackbone, CodeTransformer
from stav2a.components.backbones import DiTBackbone, UNetBackbone
from stav2a.components.local_heads import LinearHead
from stav2a.data.filters import KeepAll
from stav2a.models.stav2a import STAV2A
from stav2a.registry import RegistryError
from stav2a.sampling import (
    AutoregressiveSampler,
    FastSampler,
    ReferenceSampler,
    SimilarityGuidedSampler,
    TwoWeights,
)
from stav2a.slots import ALL_FOR_CODES
from stav2a.training.stages import CodesStage, JointStage, T2APretrain
from stav2a.utils.errors import StaV2AError, UsageError
from tests import tiny
from tests.sampling.given import features, sample

CODES, BINS, FRAMES = 16, 3, 5
transformer = partial(CodeTransformer, codes=CODES, width=16, layers=2, heads=2)
stage = partial(CodesStage, data_filter=KeepAll, steps=60, batch_size=8, learning_rate=1e-2, ema_decay=0.5)


def made() -> STAV2A:
    """A model of codes at the tiny size, its codebook of random vectors."""
    model = tiny.model(
        unet=transformer, backbone=AutoregressiveBackbone, local_head=partial(LinearHead, dim=8)
    )
    tiny.shake(model.backbone, 0.3)
    model.backbone.unet.codebook.normal_(generator=torch.Generator().manual_seed(0))
    return model


@pytest.fixture
def unet() -> Any:
    torch.manual_seed(0)
    unet = transformer(latent_channels=2, cond_dim=4, latent_bins=BINS).eval()
    unet.codebook.normal_()
    return unet


def codes() -> Tensor:
    return torch.randint(CODES, (2, FRAMES, BINS), generator=torch.Generator().manual_seed(1))


def test_codes_are_those_of_the_nearest_vectors(unet):
    z = unet.decode(codes())
    assert z.shape == (2, 2, FRAMES, BINS)
    assert torch.equal(unet.encode(z + 1e-4), codes())


def test_delayed_codes_come_back_and_empty_places_are_marked(unet):
    steps = unet.delay(codes())
    assert steps.shape == (2, FRAMES + BINS - 1, BINS)
    assert (steps == CODES).sum() == 2 * BINS * (BINS - 1)
    assert torch.equal(steps[:, 3, 1], codes()[:, 2, 1])
    assert torch.equal(unet.undelay(steps), codes())


@torch.no_grad()
def test_a_step_depends_on_earlier_ones_alone(unet):
    steps, c, mask = (
        unet.delay(codes())[:, :-1],
        torch.randn(2, 3, 4),
        torch.tensor([[True, False, True]] * 2),
    )
    frames = torch.randn(2, FRAMES, 16)
    whole = unet.logits(steps, c, mask, frames)
    assert whole.shape == (2, FRAMES + BINS - 1, BINS, CODES)
    for known in (0, 3):
        assert torch.allclose(
            unet.logits(steps[:, :known], c, mask, frames), whole[:, : known + 1], atol=1e-5
        )
    other = steps.clone()
    other[:, 3] = 0
    moved = (unet.logits(other, c, mask, frames) - whole).abs().amax(dim=(0, 2, 3))
    assert (moved[:4] < 1e-5).all() and (moved[4:] > 1e-4).all()
    unread = c.clone()
    unread[:, 1] = 9.0  # masked
    assert torch.allclose(unet.logits(steps, unread, mask, frames), whole, atol=1e-5)


def test_the_codebook_is_the_centres_of_clusters(unet):
    rng = torch.Generator().manual_seed(2)
    centres = 10 * torch.randn(CODES // 2, 2, generator=rng)
    chosen = centres[torch.randint(len(centres), (40, 4, BINS), generator=rng)]  # (B, T, F, C)
    z = (chosen + 0.01 * torch.randn(chosen.shape, generator=rng)).permute(0, 3, 1, 2)
    unet.fit_codebook(z, torch.Generator().manual_seed(3))
    first = unet.codebook.clone()
    assert (unet.decode(unet.encode(z)) - z).abs().max() < 0.1
    unet.fit_codebook(z, torch.Generator().manual_seed(3))
    assert torch.equal(unet.codebook, first)


@pytest.mark.slow
def test_the_stage_learns_which_codes_follow(tmp_path):
    model = made()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    history = stage().run(tiny.work(model, tmp_path))
    first, *_, last = (value for _, value in history["validation_loss"])
    assert last < 0.9 * first
    changed = {
        name.split(".")[0]
        for name, weight in model.state_dict().items()
        if not torch.equal(weight, before[name])
    }
    assert changed == {"local_head", "global_pooler", "backbone"}


def test_the_same_seed_gives_the_same_sound_in_any_batch():
    model, sampler = made(), AutoregressiveSampler()
    z = sample(sampler, model)
    assert z.shape == (3, *model.latent_shape)
    assert torch.equal(z, sample(sampler, model))
    alone = sample(sampler, model, ["a low drum"], e_v=features(3)[:1], seeds=[1])
    assert torch.equal(alone, z[:1])
    assert not torch.equal(z, sample(sampler, model, seeds=[2, 5, 9]))
    assert not torch.equal(z, sample(sampler, model, guider=TwoWeights(video_scale=6.0)))


def test_temperature_and_top_k_narrow_the_choice():
    model = made()
    greedy = sample(AutoregressiveSampler(temperature=0.0), model)
    assert torch.equal(greedy, sample(AutoregressiveSampler(temperature=0.0), model, seeds=[7, 8, 9]))
    assert torch.equal(greedy, sample(AutoregressiveSampler(top_k=1), model))
    assert not torch.equal(greedy, sample(AutoregressiveSampler(), model))


@pytest.mark.parametrize("sampler", [ReferenceSampler, FastSampler, SimilarityGuidedSampler])
def test_samplers_that_denoise_refuse_it(sampler):
    with pytest.raises(UsageError, match=r"needs a denoiser, and unet.code_transformer predicts codes"):
        sample(sampler(), made())


def test_denoisers_and_models_of_codes_are_not_taken_for_each_other(tmp_path):
    codes = partial(CodeTransformer, codes=8, width=16, layers=1, heads=2)
    refused = {
        "stage.joint needs a denoiser, and unet.code_transformer": lambda: JointStage(
            data_filter=KeepAll, steps=1
        ).run(tiny.work(made(), tmp_path)),
        "stage.t2a_pretrain needs a denoiser, and unet.code_transformer": lambda: T2APretrain(
            data_filter=KeepAll, steps=1
        ).run(tiny.work(made(), tmp_path)),
        "stage.codes needs a model of codes, and backbone.unet_controlnet is none": lambda: stage().run(
            tiny.work(tiny.model(), tmp_path)
        ),
        "sampler.autoregressive needs a model of codes, and backbone.unet is none": lambda: sample(
            AutoregressiveSampler(), tiny.model(backbone=UNetBackbone)
        ),
        "UNet2DConditionModel is a denoiser": lambda: tiny.model(backbone=AutoregressiveBackbone),
        "needs the blocks of diffusers' U-Net, and CodeTransformer has none": lambda: tiny.model(unet=codes),
        "takes a frame_embedding, and CodeTransformer does not": lambda: tiny.model(
            unet=codes, backbone=DiTBackbone
        ),
    }
    for told, call in refused.items():
        with pytest.raises(StaV2AError, match=told) as error:
            call()
        assert error.value.advice == ALL_FOR_CODES
    with pytest.raises(RegistryError, match="heads = 5"):
        transformer(2, 4, BINS, heads=5)
