"""The diffusion loss, for text to audio and for the joint stage alike (eq. 6)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stav2a.sampling import ddpm
from stav2a.training.corpus import TrainingContext, generator
from stav2a.training.objective import Batch

# (rows, which of their captions are the null text) -> conditions that need no gradient, one row a clip
Condition = Callable[[Tensor, Tensor], Batch]

# (z_t, t, rows, *conditions) -> prediction
Predict = Callable[..., Tensor]
VALIDATION_CLIPS, VALIDATION_TIMES = 32, 4


class DiffusionLoss:
    """E ||target - prediction||^2 over noise and uniform timesteps (eq. 6); the target is eps or v.

    Args:
        work: Model, clips and what the model predicts.
        condition: What the denoiser is given beside the latent, computed for a whole batch.
        predict: The denoiser, for some rows of a batch.
        rows: Rows to train on.
        batch_size: Clips a step.
        validation_rows: Rows of the validation loss, whose noise and timesteps are fixed.
        text_dropout: Probability of the null text, for classifier-free guidance.
    """

    def __init__(
        self,
        work: TrainingContext,
        condition: Condition,
        predict: Predict,
        *,
        rows: Tensor,
        batch_size: int,
        validation_rows: Tensor,
        text_dropout: float,
    ) -> None:
        self.condition, self.predict = condition, predict
        self.rows, self.batch_size, self.text_dropout = rows, batch_size, text_dropout
        self.mean, self.std = work.corpus.latents()
        self.scheduler: Any = ddpm(work.prediction_type)
        self.fixed = validation_rows[:VALIDATION_CLIPS].repeat(VALIDATION_TIMES)
        self.seed, self.device = work.seed, work.device

    def draw(self, rng: torch.Generator) -> Batch:
        """Clips, timesteps, noise and conditions of one step."""
        rows = self.rows[torch.randint(len(self.rows), (self.batch_size,), generator=rng)]
        t = torch.randint(self.scheduler.config.num_train_timesteps, (len(rows),), generator=rng)
        return self._batch(rows, t, rng, self.text_dropout)

    def held_out(self) -> Batch:
        """Fixed clips and noise, at evenly spread timesteps, each with its caption."""
        last = self.scheduler.config.num_train_timesteps - 1
        t = torch.linspace(0, last, len(self.fixed)).long()
        return self._batch(self.fixed, t, generator(self.seed, "validation", 0), 0.0)

    def _batch(self, rows: Tensor, t: Tensor, rng: torch.Generator, dropout: float) -> Batch:
        shape = (len(rows), *self.mean.shape[1:])
        within, noise = (torch.randn(shape, generator=rng) for _ in range(2))
        return rows, t, within, noise, *self.condition(rows, dropped(len(rows), dropout, rng))

    def loss(self, rows: Tensor, t: Tensor, within: Tensor, noise: Tensor, *conditions: Tensor) -> Tensor:
        """The mean squared error over some rows of a batch."""
        z = self.mean[rows] + self.std[rows] * within
        z_t = self.scheduler.add_noise(z, noise, t).to(self.device)
        target = noise
        if self.scheduler.config.prediction_type == "v_prediction":
            target = self.scheduler.get_velocity(z, noise, t)
        prediction = self.predict(z_t, t.to(self.device), rows, *conditions)
        return functional.mse_loss(prediction.float(), target.to(self.device))


def dropped(count: int, probability: float, rng: torch.Generator) -> Tensor:
    """Which captions to replace by the null text in this step (sec. II-C2): (count,)."""
    return torch.rand(count, generator=rng) < probability
