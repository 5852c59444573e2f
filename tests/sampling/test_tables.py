"""Tables of coefficients against the schedulers that they were got from."""

import pytest
import torch

from stav2a.sampling import (
    SamplerError,
    ddim,
    ddpm,
    dpm_solver,
    flow_match_euler,
    flow_match_heun,
    initial_noise,
    unipc,
)
from stav2a.sampling.fast.scheduler_table import advance, tabulate
from stav2a.sampling.reference import step_generators, takes_generator

SCHEDULERS = [ddpm, ddim, dpm_solver, unipc]
SEEDS = (3, 4)


def followed(scheduler, steps: int) -> torch.Tensor:
    """What the scheduler itself makes of outputs that depend on the latent, in float32."""
    scheduler.set_timesteps(steps)
    extra = {"generator": step_generators(SEEDS)} if takes_generator(scheduler) else {}
    z_t = initial_noise((4, 8, 8), SEEDS) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        z_t = scheduler.step(torch.tanh(z_t) + 0.1, t, z_t, **extra).prev_sample
    return z_t


def tabulated(scheduler, steps: int) -> torch.Tensor:
    table = tabulate(scheduler, steps)
    generators = step_generators(SEEDS)
    z_t = initial_noise((4, 8, 8), SEEDS) * table.init_noise_sigma
    carried = torch.zeros(table.rows, *z_t.shape)
    carried[0] = z_t
    for weights, noisy in zip(table.weights, table.noisy, strict=True):
        noise = torch.zeros_like(z_t)
        if noisy:
            noise = torch.stack([torch.randn(4, 8, 8, generator=each) for each in generators])
        carried = advance(weights, carried, torch.tanh(carried[0]) + 0.1, noise)
    return carried[0]


@pytest.mark.parametrize("make", SCHEDULERS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_the_table_takes_the_schedulers_steps(make, prediction_type, spacing, steps):
    scheduler = make(prediction_type, timestep_spacing=spacing)
    expected = followed(scheduler, steps)
    found = tabulated(make(prediction_type, timestep_spacing=spacing), steps)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("make", [flow_match_euler, flow_match_heun, dpm_solver, unipc])
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_the_table_takes_the_steps_along_a_flow(make, steps):
    expected = followed(make("flow_prediction"), steps)
    found = tabulated(make("flow_prediction"), steps)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_table_knows_what_is_carried_and_when_noise_is_drawn():
    tables = {make.__name__: tabulate(make("epsilon"), 4) for make in SCHEDULERS}
    assert {name: table.rows for name, table in tables.items()} == {
        "ddpm": 1, "ddim": 1, "dpm_solver": 3, "unipc": 4,
    }  # fmt: skip
    assert [sum(table.noisy) for table in tables.values()] == [4, 0, 0, 0]
    last_without = tabulate(ddpm("epsilon", timestep_spacing="linspace"), 4)  # ends at timestep 0
    assert last_without.noisy == [True, True, True, False] and last_without.weights[-1, 0, -1] == 0


def test_the_scheduler_can_be_used_afterwards():
    scheduler = unipc("epsilon")
    expected = followed(scheduler, 5)
    tabulate(scheduler, 7)
    assert torch.equal(followed(scheduler, 5), expected)


def test_a_scheduler_that_clips_is_refused():
    from diffusers import DDIMScheduler

    with pytest.raises(SamplerError) as told:
        tabulate(DDIMScheduler(clip_sample=True), 5)
    assert str(told.value) == (
        "DDIMScheduler takes steps that are no fixed sums of latents, model outputs and noise, so no table "
        "can stand for it. Bind run.sampler = @sampler.reference."
    )


def test_a_scheduler_that_remembers_something_else_is_refused():
    from diffusers import PNDMScheduler

    with pytest.raises(SamplerError, match="PNDMScheduler takes steps that are no fixed sums"):
        tabulate(PNDMScheduler(skip_prk_steps=True), 5)
