"""Objectives: targets, noise levels and weights, and what a flow with a perfect denoiser ends at."""

from collections.abc import Callable

import pytest
import torch
from diffusers.training_utils import compute_snr
from torch import Tensor

from stav2a.sampling import ddpm, dpm_solver, flow_match_euler, flow_match_heun, unipc
from stav2a.training.denoising import Epsilon, Flow, VPrediction
from stav2a.training.objective import TrainingSpec
from stav2a.utils.errors import UsageError
from tests import tiny
from tests.training.stage_settings import STAGES

DIFFUSION = {"epsilon": Epsilon, "v_prediction": VPrediction}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(seed: int) -> Tensor:
    return torch.randn(6, 4, 8, 8, generator=rng(seed))


@pytest.mark.parametrize("name", DIFFUSION)
def test_the_paper_draws_all_noise_levels_alike_and_weights_none(name):
    objective = DIFFUSION[name]()
    assert objective.prediction_type == name and objective.weights(torch.arange(6)) is None
    assert torch.equal(objective.draw_times(99, rng()), torch.randint(1000, (99,), generator=rng()))
    assert objective.spread_times(3).tolist() == [0, 499, 999]


@pytest.mark.parametrize("name", DIFFUSION)
def test_the_target_is_what_a_scheduler_takes_back_to_the_latent(name):
    objective, z, eps, t = DIFFUSION[name](), latents(0), latents(1), torch.tensor([1, 10, 99, 500, 800, 999])
    z_t, target = objective.add_noise(z, eps, t), objective.target(z, eps, t)
    scheduler = ddpm(name)
    found = [
        scheduler.step(target[i], t[i], z_t[i], generator=rng()).pred_original_sample for i in range(len(z))
    ]
    torch.testing.assert_close(torch.stack(found), z, rtol=0, atol=2e-3)


def test_min_snr_weights_are_those_of_diffusers_training_scripts():
    t = torch.tensor([0, 100, 500, 900])
    snr = compute_snr(ddpm("epsilon"), t)
    bounded = snr.clamp(max=5.0)
    torch.testing.assert_close(Epsilon(min_snr_gamma=5.0).weights(t), bounded / snr)
    torch.testing.assert_close(VPrediction(min_snr_gamma=5.0).weights(t), bounded / (snr + 1))
    with pytest.raises(UsageError, match="min_snr_gamma = -1"):
        Epsilon(min_snr_gamma=-1)


@pytest.mark.parametrize("objective", [Epsilon, Flow])
def test_logit_normal_times_prefer_the_middle(objective):
    t = objective(time_sampling="logit_normal").draw_times(4000, rng()).float()
    assert 0 <= t.min() and t.max() <= 1000
    middle = ((t > 250) & (t < 750)).float().mean()
    assert middle == pytest.approx(0.728, abs=0.03)  # P(|N(0, 1)| < logit(3/4))


def test_a_flow_is_a_straight_line_from_the_latent_to_the_noise():
    objective, z, eps = Flow(), latents(0), latents(1)
    t = torch.tensor([0.0, 250.0, 500.0, 750.0, 999.0, 1000.0])
    z_t = objective.add_noise(z, eps, t)
    assert torch.equal(z_t[0], z[0]) and torch.equal(z_t[-1], eps[-1])
    back = z_t - (t / 1000).view(-1, 1, 1, 1) * objective.target(z, eps, t)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-6)
    assert objective.spread_times(4).tolist() == [125.0, 375.0, 625.0, 875.0]


def followed(scheduler, velocity: Callable[[Tensor, Tensor], Tensor], steps: int) -> Tensor:
    x = torch.randn(20_000, 1, generator=rng(3), dtype=torch.float64)
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(velocity(x, t / 1000), t, x).prev_sample
    return x


MEAN, DEVIATION = 2.0, 0.5


def gaussian(x: Tensor, s: Tensor) -> Tensor:
    """E[eps - z | z_t] where z is normal: exact."""
    variance = ((1 - s) * DEVIATION) ** 2 + s**2
    centred = x - (1 - s) * MEAN
    return s / variance * centred - MEAN - (1 - s) * DEVIATION**2 / variance * centred


def test_eulers_steps_along_an_exact_flow_reach_the_distribution():
    errors = []
    for steps in (8, 16, 32, 64):
        x = followed(flow_match_euler("flow_prediction"), gaussian, steps)
        errors.append(abs(float(x.std()) - DEVIATION))
        assert float(x.mean()) == pytest.approx(MEAN, abs=0.03)
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.02
    assert errors[0] / errors[2] == pytest.approx(4, rel=0.35)  # of first order


def test_heuns_steps_are_of_second_order():
    errors = []
    for steps in (4, 8, 16):
        x = followed(flow_match_heun("flow_prediction"), gaussian, steps)
        errors.append(abs(float(x.std()) - DEVIATION))
    far = abs(float(followed(flow_match_euler("flow_prediction"), gaussian, 31).std()) - DEVIATION)
    assert errors[0] / errors[1] > 3 and errors[2] < far / 3  # for as many evaluations


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_heun_visits_eulers_noise_levels(shift):
    euler, heun = (make("flow_prediction", shift=shift) for make in (flow_match_euler, flow_match_heun))
    euler.set_timesteps(5)
    heun.set_timesteps(5)
    assert len(heun.timesteps) == 9
    torch.testing.assert_close(heun.timesteps.unique(), euler.timesteps.unique())


@pytest.mark.parametrize("make", [dpm_solver, unipc])
def test_a_multistep_scheduler_is_nearer_after_as_many_steps(make):
    far, near = (
        abs(float(followed(each("flow_prediction"), gaussian, 16).std()) - DEVIATION)
        for each in (flow_match_euler, make)
    )
    assert near < far / 3


def test_one_step_is_exact_for_a_single_latent():
    found = followed(flow_match_euler("flow_prediction"), lambda x, s: (x - MEAN) / s, 1)
    torch.testing.assert_close(found, torch.full_like(found, MEAN), rtol=0, atol=1e-6)


def test_schedulers_and_objectives_that_do_not_fit_are_refused():
    for make in (flow_match_euler, flow_match_heun):
        with pytest.raises(UsageError, match="takes a flow, but the objective is epsilon"):
            make("epsilon")
    with pytest.raises(UsageError, match="scheduler.ddpm takes epsilon or v_prediction"):
        ddpm("flow_prediction")


@pytest.mark.parametrize("objective", [Flow(), VPrediction(min_snr_gamma=5.0)])
@pytest.mark.parametrize("stage", ["t2a_pretrain", "joint"])
def test_a_stage_trains_on_any_objective(objective, stage, tmp_path):
    """Its loss is the objective's: the weighted squared error of what it fetches."""
    model = tiny.model()
    losses: list[float] = []

    class Checked:
        def fit(self, plan: TrainingSpec, work):
            z_t, t, target, weights, *conditions = plan.fetch(*plan.draw(rng()))
            found = plan.loss(z_t, t, target, weights, *conditions)
            none = torch.ones(len(t)) if weights is None else weights
            zero = plan.loss(z_t, t, target, torch.zeros(len(t)), *conditions)
            twice = plan.loss(z_t, t, target, 2 * none, *conditions)
            torch.testing.assert_close(twice, 2 * found, rtol=1e-5, atol=0)
            assert zero == 0 and t.shape == (8,)
            losses.append(found.item())
            return {}

    work = tiny.work(model, tmp_path, trainer=Checked(), objective=objective)
    STAGES[stage]().run(work)
    assert losses[0] > 0
