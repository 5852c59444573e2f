"""Steps of a scheduler as tables of coefficients, computed by running the scheduler on basis vectors.

Every step of DDPM, DDIM, DPM-Solver++, UniPC, Euler and Heun is linear: the next latent and the scheduler's
history are sums of the latent, the history, the model's output and fresh noise, with weights that depend on
the step alone. One run on basis vectors gives all weights before the loop starts, without a copy of any
formula.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stav2a.sampling.reference import SamplerError, generator, takes_generator

KEPT = ("last_sample", "sample", "prev_derivative")  # tensors that schedulers of diffusers keep between steps
TOLERANCE = 1e-4  # of the check against the scheduler, whose own rounding is below 1e-5


@dataclass(frozen=True)
class SchedulerTable:
    """All steps of a scheduler, for one number of steps.

    Args:
        timesteps: Timesteps (n,).
        weights: Weights (n, R, R + 2), float32: row 0 makes the next latent, the others the history; the
            columns are the latent, the history, the model's output, and noise.
        noisy: True for steps that draw noise.
        init_noise_sigma: Standard deviation of the first latent.
    """

    timesteps: Tensor
    weights: Tensor
    noisy: Sequence[bool]
    init_noise_sigma: float

    @property
    def rows(self) -> int:
        """Number of latents in the state, R: z_t and the history."""
        return self.weights.shape[1]


def tabulate(scheduler: Any, num_inference_steps: int) -> SchedulerTable:
    """Table of a scheduler, whose own state is reset.

    Raises:
        SamplerError: Its steps are not linear, or it has a history of another kind.
    """
    scheduler.set_timesteps(num_inference_steps)
    steps = [_weights(scheduler, t) for t in scheduler.timesteps]
    weights, noisy = torch.stack([weights for weights, _ in steps]), [noisy for _, noisy in steps]
    table = SchedulerTable(scheduler.timesteps.clone(), weights, noisy, float(scheduler.init_noise_sigma))
    _check(table, scheduler, num_inference_steps)
    return replace(table, weights=weights.float())


def advance(weights: Tensor, state: Tensor, output: Tensor, noise: Tensor) -> Tensor:
    """Next state (R, B, C, T, F) from weights (R, R + 2), state, and output and noise (B, C, T, F).

    A sum of products, as a matrix product would be rounded to TF32 on a GPU that is allowed to.
    """
    values = torch.cat([state, output[None], noise[None]])
    return torch.stack([(row.view(-1, *[1] * output.ndim) * values).sum(dim=0) for row in weights])


def _weights(scheduler: Any, t: Tensor) -> tuple[Tensor, bool]:
    """Weights (R, R + 2) of one step, and whether it draws noise.

    The last column has a zero vector in place of a basis vector, so its output is the noise.
    """
    history = _history(scheduler)
    size = len(history) + 1
    basis = torch.eye(size + 2, dtype=torch.float64)[:, None]  # (R + 2, 1, R + 2): each as a batch of one
    values = [None if old is None else basis[i + 1] for i, old in enumerate(history)]
    for name in reversed([name for name in KEPT if hasattr(scheduler, name)]):
        setattr(scheduler, name, values.pop())
    if values:
        scheduler.model_outputs = values
    z_t, noise = _step(scheduler, basis[size], t, basis[0], generator(0))
    rows = [z_t, *_history(scheduler)]
    weights = torch.cat([basis[0] * 0 if row is None else row for row in rows]).double()
    if noise is not None:
        scale = weights[0, -1] / noise[0, -1]
        weights[0] -= scale * noise[0]
        weights[0, -1] = scale
    return weights, noise is not None


def _history(scheduler: Any) -> list[Tensor | None]:
    """Tensors that a scheduler keeps between steps: those of its earlier outputs, then those of `KEPT`."""
    kept = (getattr(scheduler, name) for name in KEPT if hasattr(scheduler, name))
    return [*getattr(scheduler, "model_outputs", ()), *kept]


def _step(
    scheduler: Any, output: Tensor, t: Tensor, z_t: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Latent after a step of the scheduler, and the noise that it drew."""
    from diffusers.utils.torch_utils import randn_tensor

    if not takes_generator(scheduler):
        return scheduler.step(output, t, z_t).prev_sample, None
    before = rng.get_state()
    latent = scheduler.step(output, t, z_t, generator=rng).prev_sample
    if torch.equal(rng.get_state(), before):
        return latent, None
    again = torch.Generator()
    again.set_state(before)
    return latent, randn_tensor(output.shape, generator=again, dtype=output.dtype)


def _check(table: SchedulerTable, scheduler: Any, num_inference_steps: int) -> None:
    """Compare with the scheduler on random outputs, large enough to be clipped by one that clips."""
    scheduler.set_timesteps(num_inference_steps)
    ours, theirs, rng = generator(1), generator(1), generator(2)
    z_t = 3 * torch.randn(1, 16, generator=rng, dtype=torch.float64)
    state = torch.zeros(table.rows, *z_t.shape, dtype=torch.float64)
    state[0] = z_t
    for t, weights, noisy in zip(table.timesteps, table.weights, table.noisy, strict=True):
        output = 3 * torch.randn(z_t.shape, generator=rng, dtype=torch.float64)
        z_t, _ = _step(scheduler, output, t, z_t, theirs)
        noise = torch.randn(z_t.shape, generator=ours, dtype=torch.float64) if noisy else 0 * z_t
        state = advance(weights, state, output, noise)
    if not (state[0] - z_t).abs().max() <= TOLERANCE * z_t.abs().max():
        raise SamplerError(
            f"{type(scheduler).__name__} takes steps that are no fixed sums of latents, model outputs and "
            "noise, so no table can stand for it.",
            advice="Bind run.sampler = @sampler.reference.",
        )
