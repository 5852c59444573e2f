from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.components.global_poolers import NoPooler
from stav2a.models.stav2a import STAV2A, encode_captions
from stav2a.sampling import (
    FastSampler,
    ReferenceSampler,
    ddim,
    ddpm,
    dpm_solver,
    guided,
    initial_noise,
    to_audio,
    unipc,
)
from tests import tiny
from tests.sampling import given

SCHEDULERS = {"ddpm": ddpm, "ddim": ddim, "dpm_solver": dpm_solver, "unipc": unipc}
CAPTIONS = ["a low drum", "a high bell", "a drum"]
every_scheduler = pytest.mark.parametrize("name", SCHEDULERS)


@pytest.fixture(scope="module")
def model() -> STAV2A:
    made = tiny.model()
    tiny.shake(made.backbone, 0.05)
    return made


@pytest.fixture(scope="module")
def e_v() -> Tensor:
    return functional.normalize(torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.fixture(scope="module", params=[ReferenceSampler, FastSampler])
def sample(request: Any) -> Any:
    """Both samplers do all that is asked of one here."""
    sampler = request.param()

    def sample(
        model: STAV2A, e_v: Tensor, captions=CAPTIONS, *, seeds=(1, 5, 9), name="ddim", **changes
    ) -> Tensor:
        settings: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 3.0, **changes}
        scheduler = SCHEDULERS[name]("v_prediction")
        return sampler(model, e_v, captions, scheduler=scheduler, seeds=seeds, **settings)

    return sample


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


@torch.no_grad()
def test_guidance_is_equation_7(model, e_v):
    z_t, t = initial_noise(model.latent_shape, [1, 2, 3]), torch.tensor([400])
    texts = (encode_captions(model, [""] * 3), encode_captions(model, CAPTIONS))
    null, conditional = (model(z_t, t.expand(3), e_v, *text) for text in texts)
    assert not close(null, conditional, 1e-2)
    both = model.condition(e_v, *texts[0]) + model.condition(e_v, *texts[1])
    for w in (0.0, 1.0, 3.0):
        assert close(guided(model, z_t, t, both, w), (1 - w) * null + w * conditional)


def test_guidance_of_one_is_the_conditional_prediction_and_of_zero_the_null(sample, model, e_v):
    conditional = sample(model, e_v, guidance_scale=1.0)
    assert close(sample(model, e_v, guidance_scale=1.0 + 1e-7), conditional)  # through both branches
    null = sample(model, e_v, [""] * 3, guidance_scale=1.0)
    assert close(sample(model, e_v, guidance_scale=0.0), null)
    assert not close(conditional, null, 1e-2)
    assert not close(sample(model, e_v), conditional, 1e-2)


def test_the_null_text_is_the_empty_caption(sample, model, e_v):
    assert close(
        sample(model, e_v, [""] * 3, guidance_scale=7.0), sample(model, e_v, [""] * 3, guidance_scale=1.0)
    )


def test_guidance_keeps_the_video_in_both_branches(sample, model, e_v):
    """Text alone is guided (eq. 7): without a caption the video still has an effect."""
    for w in (0.0, 3.0):
        forwards = sample(model, e_v, [""] * 3, guidance_scale=w)
        backwards = sample(model, e_v.flip(1), [""] * 3, guidance_scale=w)
        assert not close(forwards, backwards, 1e-3)


@every_scheduler
def test_a_clip_depends_neither_on_its_batch_nor_on_its_place(sample, model, e_v, name):
    together = sample(model, e_v, name=name)
    turned = sample(model, e_v[[2, 0]], [CAPTIONS[2], CAPTIONS[0]], seeds=(9, 1), name=name)
    assert close(turned, together[[2, 0]])
    assert close(sample(model, e_v[1:2], CAPTIONS[1:2], seeds=(5,), name=name), together[1:2])


@every_scheduler
def test_the_same_seeds_give_the_same_bits_and_others_another_result(sample, model, e_v, name):
    torch.manual_seed(1)
    first = sample(model, e_v, name=name)
    torch.manual_seed(2)  # nothing is drawn from the global generator
    assert torch.equal(sample(model, e_v, name=name), first)
    other = sample(model, e_v, seeds=(1, 6, 9), name=name)
    assert close(other[0], first[0]) and not close(other[1], first[1], 1e-2)


@pytest.mark.parametrize("sampler", [ReferenceSampler(), FastSampler()])
def test_the_null_text_may_come_shorter_than_the_captions(sampler, e_v):
    """Pretrained text encoders pad to the longest caption that they are given, not to a fixed length."""
    model = given.made()
    settings: Any = {"scheduler": ddim("epsilon"), "num_inference_steps": 2, "seeds": (1, 5, 9)}
    whole = sampler(model, e_v, CAPTIONS, guidance_scale=1 + 1e-7, **settings)  # through both branches
    assert close(whole, sampler(model, e_v, CAPTIONS, guidance_scale=1.0, **settings))


def test_initial_noise_is_a_clips_own_and_normal():
    noise = initial_noise((4, 50, 20), [7, 8])
    assert torch.equal(noise[1], initial_noise((4, 50, 20), [8])[0])
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05
    assert not torch.equal(noise[0], noise[1])


class Knowing(nn.Module):
    """A denoiser that knows the clean latent, and so predicts the noise without an error."""

    z: Tensor
    prediction_type: str

    def __init__(self, unet: nn.Module, local_dim: int) -> None:
        super().__init__()
        self.unet = unet
        self.levels = ddpm("epsilon").alphas_cumprod

    def start_from_t2a(self) -> None: ...

    def forward(self, z_t: Tensor, t: Tensor, c: Tensor, mask: Tensor, e_lv: Tensor) -> Tensor:
        signal = self.levels[t].sqrt().view(-1, 1, 1, 1)
        noise = (1 - self.levels[t]).sqrt().view(-1, 1, 1, 1)
        eps = (z_t - signal * self.z[: len(z_t)]) / noise
        return eps if self.prediction_type == "epsilon" else signal * eps - noise * self.z[: len(z_t)]


@every_scheduler
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [3, 20])
def test_a_perfect_denoiser_is_followed_to_the_clean_latent(e_v, name, prediction_type, steps):
    model = tiny.model(backbone=Knowing, global_pooler=NoPooler)
    model.backbone.z = torch.randn(3, *model.latent_shape, generator=torch.Generator().manual_seed(4))
    model.backbone.prediction_type = prediction_type
    z = ReferenceSampler()(
        model,
        e_v,
        CAPTIONS,
        scheduler=SCHEDULERS[name](prediction_type),
        num_inference_steps=steps,
        guidance_scale=1.0,
        seeds=(1, 2, 3),
    )
    # DDIM ends on the first of the training levels, where 0.03 of noise is left
    torch.testing.assert_close(z, model.backbone.z, rtol=0, atol=0.2 if name == "ddim" else 2e-3)
    assert (z - model.backbone.z).std() < 0.04


def test_progress_sees_every_step(sample, model, e_v):
    seen: list[int] = []
    sample(model, e_v, num_inference_steps=5, progress=partial(_noting, seen))
    assert len(seen) == 5 and seen == sorted(seen, reverse=True)


def _noting(seen, timesteps):
    for t in timesteps:
        seen.append(int(t))
        yield t


def test_latents_become_spectrograms_and_sound(model):
    mel, audio = to_audio(model, torch.randn(2, *model.latent_shape))
    assert (mel.shape, audio.shape) == ((2, 1, 64, 64), (2, 10_240))
    assert audio.isfinite().all()
