"""Objectives: targets of the denoiser, and their noise levels."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from stav2a.registry import register
from stav2a.sampling.schedulers import ddpm
from stav2a.utils.errors import UsageError

TimeSampling = Literal["uniform", "logit_normal"]
FLOW_TIMES = 1000  # timestep of pure noise, as in diffusers' flow matching schedulers


class DiffusionObjective(ABC):
    """Base of the objectives on the noise levels of Stable Diffusion, whose timesteps are whole numbers.

    Args:
        time_sampling: `uniform`, or `logit_normal`: more of the middle noise levels (Esser et al. 2024).
        min_snr_gamma: Bound of the signal-to-noise ratio in the weights of the loss (Hang et al. 2023); None
            weights all alike, as eq. 6.
    """

    prediction_type: ClassVar[str]

    def __init__(
        self, *, time_sampling: TimeSampling = "uniform", min_snr_gamma: float | None = None
    ) -> None:
        if min_snr_gamma is not None and not min_snr_gamma > 0:
            raise UsageError(
                f"objective.{self.prediction_type}.min_snr_gamma = {min_snr_gamma}: expected above 0.",
                advice="The authors take 5; None weights all errors alike.",
            )
        self.time_sampling, self.min_snr_gamma = time_sampling, min_snr_gamma

    @cached_property
    def scheduler(self) -> Any:
        """Noise levels, by diffusers."""
        return ddpm(self.prediction_type)

    @property
    def _times(self) -> int:
        return int(self.scheduler.config.num_train_timesteps)

    def draw_times(self, count: int, rng: torch.Generator) -> Tensor:
        """Timesteps (count,) of a training step."""
        if self.time_sampling == "uniform":
            return torch.randint(self._times, (count,), generator=rng)
        return (self._times * torch.randn(count, generator=rng).sigmoid()).long().clamp(max=self._times - 1)

    def spread_times(self, count: int) -> Tensor:
        """Timesteps (count,) of a validation: evenly spaced."""
        return torch.linspace(0, self._times - 1, count).long()

    def add_noise(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Noisy latents z_t (B, C, T, F)."""
        return self.scheduler.add_noise(z, eps, t)

    def weights(self, t: Tensor) -> Tensor | None:
        """Weights (B,) of the squared errors; None for equal ones."""
        if self.min_snr_gamma is None:
            return None
        signal = self.scheduler.alphas_cumprod[t]
        snr = signal / (1 - signal)
        return snr.clamp(max=self.min_snr_gamma) / self._scale(snr)

    @abstractmethod
    def _scale(self, snr: Tensor) -> Tensor:
        """Ratio of the squared error of the prediction to that of z."""


@register("objective", "epsilon")
class Epsilon(DiffusionObjective):
    """The noise eps that was added: the paper's (eq. 6).

    Args:
        time_sampling: `uniform`, or `logit_normal`: more of the middle noise levels (Esser et al. 2024).
        min_snr_gamma: Bound of the signal-to-noise ratio in the weights of the loss (Hang et al. 2023); None
            weights all alike, as eq. 6.

    Shapes:
        z, eps, z_t and the target (B, C, T, F); t (B,), whole numbers below 1000

    Raises:
        UsageError: The bound is not above 0.
    """

    prediction_type = "epsilon"

    def target(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Target of the prediction for z_t: (B, C, T, F)."""
        return eps

    def _scale(self, snr: Tensor) -> Tensor:
        return snr


@register("objective", "v_prediction")
class VPrediction(DiffusionObjective):
    """The velocity v of Salimans and Ho (2022): eps and z by their levels, as Stable Diffusion 2 and Tango.

    Args:
        time_sampling: `uniform`, or `logit_normal`: more of the middle noise levels (Esser et al. 2024).
        min_snr_gamma: Bound of the signal-to-noise ratio in the weights of the loss (Hang et al. 2023); None
            weights all alike.

    Shapes:
        z, eps, z_t and the target (B, C, T, F); t (B,), whole numbers below 1000

    Raises:
        UsageError: The bound is not above 0.
    """

    prediction_type = "v_prediction"

    def target(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Target of the prediction for z_t: (B, C, T, F)."""
        return self.scheduler.get_velocity(z, eps, t)

    def _scale(self, snr: Tensor) -> Tensor:
        return snr + 1


@register("objective", "flow")
class Flow:
    """Rectified flow: the velocity eps - z of the straight line from latent to noise (Liu et al. 2023).

    z_t is (1 - s) z + s eps, where the timestep t is 1000 s and not rounded. It needs a scheduler of its own,
    such as `scheduler.flow_match_euler`.

    Args:
        time_sampling: `logit_normal`, which has more of the middle noise levels (Esser et al. 2024), or
            `uniform`.

    Shapes:
        z, eps, z_t and the target (B, C, T, F); t (B,), from 0 to 1000
    """

    prediction_type = "flow_prediction"

    def __init__(self, *, time_sampling: TimeSampling = "logit_normal") -> None:
        self.time_sampling = time_sampling

    def draw_times(self, count: int, rng: torch.Generator) -> Tensor:
        """Timesteps (count,) of a training step."""
        if self.time_sampling == "uniform":
            return FLOW_TIMES * torch.rand(count, generator=rng)
        return FLOW_TIMES * torch.randn(count, generator=rng).sigmoid()

    def spread_times(self, count: int) -> Tensor:
        """Timesteps (count,) of a validation: evenly spaced."""
        return FLOW_TIMES * (torch.arange(count) + 0.5) / count

    def add_noise(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Noisy latents z_t (B, C, T, F)."""
        s = (t / FLOW_TIMES).view(-1, *[1] * (z.ndim - 1))
        return (1 - s) * z + s * eps

    def target(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Target of the prediction for z_t: (B, C, T, F)."""
        return eps - z

    def weights(self, t: Tensor) -> None:
        """None: all squared errors count alike."""
        return None
