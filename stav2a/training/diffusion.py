"""The diffusion loss, for text to audio and for the joint stage alike (eq. 6)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stav2a.sampling import ddpm
from stav2a.training.work import Work, generator

# (z_t, t, rows, rng) -> prediction; rng is None in validation, where nothing is dropped
Predict = Callable[[Tensor, Tensor, Tensor, torch.Generator | None], Tensor]
VALIDATION_CLIPS, VALIDATION_TIMES = 32, 4


class DiffusionLoss:
    """E ||target - prediction||^2 over noise and uniform timesteps (eq. 6); the target is eps or v.

    Args:
        work: Model, clips and what the model predicts.
        predict: The denoiser with its conditions for some rows.
        rows: Rows to train on.
        batch_size: Clips a step.
        validation_rows: Rows of the validation loss, whose noise and timesteps are fixed.
    """

    def __init__(
        self, work: Work, predict: Predict, rows: Tensor, batch_size: int, validation_rows: Tensor
    ) -> None:
        self.predict, self.rows, self.batch_size = predict, rows, batch_size
        self.mean, self.std = work.corpus.latents()
        self.scheduler: Any = ddpm(work.prediction_type)
        self.fixed = validation_rows[:VALIDATION_CLIPS].repeat(VALIDATION_TIMES)
        self.seed = work.seed

    def __call__(self, rng: torch.Generator) -> Tensor:
        rows = self.rows[torch.randint(len(self.rows), (self.batch_size,), generator=rng)]
        times = self.scheduler.config.num_train_timesteps
        return self._loss(rows, torch.randint(times, (len(rows),), generator=rng), rng, rng)

    def validate(self) -> float:
        """The loss on fixed clips, noise and evenly spread timesteps."""
        times = self.scheduler.config.num_train_timesteps
        t = torch.linspace(0, times - 1, len(self.fixed)).long()
        return self._loss(self.fixed, t, generator(self.seed, "validation", 0), None).item()

    def _loss(self, rows: Tensor, t: Tensor, rng: torch.Generator, drop: torch.Generator | None) -> Tensor:
        mean, std = self.mean[rows], self.std[rows]
        z = mean + std * torch.randn(mean.shape, generator=rng)
        noise = torch.randn(mean.shape, generator=rng)
        z_t = self.scheduler.add_noise(z, noise, t)
        target = noise
        if self.scheduler.config.prediction_type == "v_prediction":
            target = self.scheduler.get_velocity(z, noise, t)
        return functional.mse_loss(self.predict(z_t, t, rows, drop), target)


def dropped(count: int, probability: float, rng: torch.Generator | None) -> Tensor:
    """Which captions to replace by the null text in this step (sec. II-C2): (count,), none in validation."""
    if rng is None:
        return torch.zeros(count, dtype=torch.bool)
    return torch.rand(count, generator=rng) < probability
