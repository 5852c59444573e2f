"""The sampler that follows the gradient of an audio-visual similarity."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from stav2a.components.feature_encoders import TwoTowerCAVP
from stav2a.models.stav2a import STAV2A
from stav2a.sampling import (
    ReferenceSampler,
    SamplerError,
    SimilarityGuidedSampler,
    ddim,
    ddpm,
    dpm_solver,
    flow_match_euler,
    flow_match_heun,
)
from stav2a.sampling.schedulers import clean_latent
from stav2a.training.denoising import Epsilon, Flow, VPrediction
from stav2a.utils.errors import UsageError
from tests import tiny
from tests.sampling.given import features, made, sample

ENCODER = partial(TwoTowerCAVP, width=4, blocks=(1, 1, 1, 1), dim=16, frame_rate_hz=12.5, frame_size=16)


def model() -> STAV2A:
    return made(feature_encoder=ENCODER)


def similarity(of: Any, z: Tensor) -> Tensor:
    with torch.no_grad():
        e_a = of.feature_encoder.audio_tower(of.autoencoder.decode(z), 8)
    return SimilarityGuidedSampler().similarity(e_a, features())


@pytest.mark.parametrize("scheduler", [ddim, ddpm, dpm_solver])
def test_sound_is_more_like_the_video_in_every_clip(scheduler):
    made = model()
    plain = sample(ReferenceSampler(), made, scheduler=scheduler)
    moved = sample(SimilarityGuidedSampler(optimization_steps=3), made, scheduler=scheduler)
    assert (similarity(made, moved) > similarity(made, plain) + 0.01).all()


def test_the_same_seed_gives_the_same_bits_and_a_clip_does_not_depend_on_its_batch():
    made, sampler = model(), SimilarityGuidedSampler()
    z = sample(sampler, made)
    assert torch.equal(z, sample(sampler, made))
    alone = sample(sampler, made, ["a low drum"], e_v=features(3)[:1], seeds=[1])
    assert torch.allclose(alone, z[:1], atol=1e-3)
    assert all(p.grad is None for p in made.parameters())


def test_without_a_move_it_is_the_reference():
    made = model()
    expected = sample(ReferenceSampler(), made)
    assert torch.equal(sample(SimilarityGuidedSampler(start=1.0), made), expected)
    assert torch.equal(sample(SimilarityGuidedSampler(learning_rate=0.0), made), expected)
    assert not torch.equal(sample(SimilarityGuidedSampler(start=0.8), made), expected)


@pytest.mark.parametrize(
    ("objective", "scheduler"), [(Epsilon, ddim), (VPrediction, ddpm), (Flow, flow_match_euler)]
)
def test_the_clean_latent_is_what_the_noise_was_added_to(objective, scheduler):
    rng = torch.Generator().manual_seed(0)
    z, eps = torch.randn(2, 1, 4, 8, 8, generator=rng).unbind()
    made, t = objective(), torch.tensor([300])
    given = scheduler(made.prediction_type)
    z_t, prediction = made.add_noise(z, eps, t), made.target(z, eps, t)
    assert torch.allclose(clean_latent(given, prediction, t[0], z_t), z, atol=1e-5)


def test_what_can_not_be_is_refused():
    with pytest.raises(SamplerError, match=r"embeds sound; feature_encoder.cavp does not") as error:
        sample(SimilarityGuidedSampler(), tiny.model())
    assert "@feature_encoder.cavp_two_towers" in error.value.advice
    with pytest.raises(SamplerError, match="a step of the scheduler has 2: the moves in between") as error:
        sample(SimilarityGuidedSampler(), model(), scheduler=lambda _: flow_match_heun("flow_prediction"))
    assert "@scheduler.flow_match_euler" in error.value.advice
    with pytest.raises(UsageError, match=r"similarity_guided.start = 2: expected 0 to 1"):
        SimilarityGuidedSampler(start=2)
