"""A scheduler's steps as tables of coefficients, got by running the scheduler itself on basis vectors.

Every step of DDPM, DDIM, DPM-Solver++ and UniPC is linear: the next latent, and what the scheduler remembers
for later steps, are sums of the latent, the model's output, fresh noise and what it remembered, with weights
that depend on the step alone. So one run on vectors of a basis gives all weights before the loop begins, and
no formula of diffusers is written down here a second time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stav2a.sampling.reference import generator, takes_noise
from stav2a.utils.errors import USAGE, StaV2AError

TOLERANCE = 1e-4  # of the check against the scheduler; its own rounding is below 1e-5


class SamplerError(StaV2AError):
    """A sampler that does not go with the scheduler or the backbone it was given."""

    exit_code = USAGE


@dataclass(frozen=True)
class SchedulerTable:
    """A scheduler's whole run, for one number of steps.

    Args:
        timesteps: Which noise levels are visited, (n,).
        weights: (n, R, R + 2), float32: row 0 makes the next latent, the others what is remembered; the
            columns are the latent, what was remembered, the model's output, and noise.
        noisy: Whether a step draws noise.
        init_noise_sigma: Deviation of the first latent.
    """

    timesteps: Tensor
    weights: Tensor
    noisy: Sequence[bool]
    init_noise_sigma: float

    @property
    def rows(self) -> int:
        """How many latents are carried from step to step, R: z and what is remembered."""
        return self.weights.shape[1]


def tabulate(scheduler: Any, num_inference_steps: int) -> SchedulerTable:
    """The scheduler's steps as a table; its state is set anew.

    Raises:
        SamplerError: Its steps are not linear, or it remembers more than is looked at here.
    """
    scheduler.set_timesteps(num_inference_steps)
    probed = [_probe(scheduler, t) for t in scheduler.timesteps]
    weights = torch.stack([weights for weights, _ in probed])
    noisy = [drew for _, drew in probed]
    table = SchedulerTable(scheduler.timesteps.clone(), weights, noisy, float(scheduler.init_noise_sigma))
    _check(table, scheduler)
    return SchedulerTable(table.timesteps, weights.float(), noisy, table.init_noise_sigma)


def advance(weights: Tensor, carried: Tensor, output: Tensor, noise: Tensor) -> Tensor:
    """One step: weights (R, R + 2), carried (R, B, C, T, F), output and noise (B, C, T, F) -> carried."""
    return torch.tensordot(weights, torch.cat([carried, output[None], noise[None]]), dims=1)


def _probe(scheduler: Any, t: Tensor) -> tuple[Tensor, bool]:
    """One step's weights (R, R + 2), and whether it drew noise.

    The last of the columns is no basis vector but zero throughout, so what comes out there is the noise.
    """
    remembered = _remembered(scheduler)
    size = len(remembered) + 1
    basis = torch.eye(size + 2, dtype=torch.float64)[:, None]  # (R + 2, 1, R + 2): each as a batch of one
    _remind(scheduler, [None if old is None else basis[i + 1] for i, old in enumerate(remembered)])
    made, noise = _step(scheduler, basis[size], t, basis[0], generator(0))
    rows = [made, *_remembered(scheduler)]
    weights = torch.cat([basis[0] * 0 if row is None else row for row in rows]).double()
    if noise is not None:
        share = weights[0, -1] / noise[0, -1]
        weights[0] -= share * noise[0]
        weights[0, -1] = share
    return weights, noise is not None


def _step(
    scheduler: Any, output: Tensor, t: Tensor, z_t: Tensor, own: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """The scheduler's step, and the noise that it drew."""
    from diffusers.utils.torch_utils import randn_tensor

    before = own.get_state()
    if not takes_noise(scheduler):
        return scheduler.step(output, t, z_t).prev_sample, None
    made = scheduler.step(output, t, z_t, generator=own).prev_sample
    if torch.equal(own.get_state(), before):
        return made, None
    again = torch.Generator()
    again.set_state(before)
    return made, randn_tensor(output.shape, generator=again, dtype=output.dtype)


def _remembered(scheduler: Any) -> list[Tensor | None]:
    """What diffusers' multistep schedulers keep from step to step; nothing for the others."""
    return [*getattr(scheduler, "model_outputs", ()), *_last_sample(scheduler)]


def _last_sample(scheduler: Any) -> list[Tensor | None]:
    return [scheduler.last_sample] if hasattr(scheduler, "last_sample") else []


def _remind(scheduler: Any, values: list[Tensor | None]) -> None:
    """Put other values in the place of those that `_remembered` gives."""
    if _last_sample(scheduler):
        *values, scheduler.last_sample = values
    if values:
        scheduler.model_outputs = values


def _check(table: SchedulerTable, scheduler: Any) -> None:
    """Follow the scheduler through a run of random outputs, large enough to be clipped where it clips."""
    scheduler.set_timesteps(len(table.timesteps))
    ours, theirs, rng = generator(1), generator(1), generator(2)
    z_t = 3 * torch.randn(1, 16, generator=rng, dtype=torch.float64)
    carried = torch.zeros(table.rows, *z_t.shape, dtype=torch.float64)
    carried[0] = z_t
    for t, weights, noisy in zip(table.timesteps, table.weights, table.noisy, strict=True):
        output = 3 * torch.randn(z_t.shape, generator=rng, dtype=torch.float64)
        z_t, _ = _step(scheduler, output, t, z_t, theirs)
        noise = torch.randn(z_t.shape, generator=ours, dtype=torch.float64) if noisy else 0 * z_t
        carried = advance(weights, carried, output, noise)
    if not (carried[0] - z_t).abs().max() <= TOLERANCE * z_t.abs().max():
        raise SamplerError(
            f"{type(scheduler).__name__} takes steps that are no fixed sums of latents, model outputs and "
            "noise, so no table can stand for it. Bind run.sampler = @sampler.reference."
        )
