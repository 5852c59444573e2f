"""Schedulers: configurations of those of diffusers, on the noise schedule of Stable Diffusion."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from stav2a.registry import register
from stav2a.utils.errors import UsageError, check_positive

FLOW = "flow_prediction"


def _options(prediction_type: str, timestep_spacing: str) -> dict[str, Any]:
    """Options with the noise schedule of Stable Diffusion 2.1, which Tango, VTA-LDM and STA-V2A use."""
    return {
        "prediction_type": prediction_type,
        "timestep_spacing": timestep_spacing,
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "steps_offset": 1,
    }


def _multistep_options(prediction_type: str, timestep_spacing: str) -> dict[str, Any]:
    """Options of a scheduler that can also follow a flow."""
    options = _options(prediction_type, timestep_spacing)
    return options | {"use_flow_sigmas": True} if prediction_type == FLOW else options


def _refuse_flow(scheduler: str, prediction_type: str) -> None:
    if prediction_type == FLOW:
        raise UsageError(
            f"scheduler.{scheduler} takes epsilon or v_prediction, but the objective is a flow.",
            advice="Bind run.scheduler = @scheduler.flow_match_euler.",
        )


def _refuse_all_but_flow(scheduler: str, prediction_type: str) -> None:
    if prediction_type != FLOW:
        raise UsageError(
            f"scheduler.{scheduler} takes a flow, but the objective is {prediction_type}.",
            advice="Bind run.objective = @objective.flow, or run.scheduler = @scheduler.ddim.",
        )


@register("scheduler", "ddpm")
def ddpm(prediction_type: str, *, timestep_spacing: str = "leading") -> Any:
    """Ancestral sampling with fresh noise at every step: the paper's, with 200 steps.

    Args:
        prediction_type: Prediction of the model, `epsilon` or `v_prediction`. Wired.
        timestep_spacing: Choice of the training timesteps, as diffusers names it.

    Raises:
        UsageError: The model predicts a flow.
    """
    from diffusers import DDPMScheduler

    _refuse_flow("ddpm", prediction_type)
    return DDPMScheduler(**_options(prediction_type, timestep_spacing), clip_sample=False)


@register("scheduler", "ddim")
def ddim(prediction_type: str, *, timestep_spacing: str = "leading") -> Any:
    """Deterministic sampling in fewer steps (Song et al. 2021).

    Args:
        prediction_type: Prediction of the model, `epsilon` or `v_prediction`. Wired.
        timestep_spacing: Choice of the training timesteps, as diffusers names it.

    Raises:
        UsageError: The model predicts a flow.
    """
    from diffusers import DDIMScheduler

    _refuse_flow("ddim", prediction_type)
    options = _options(prediction_type, timestep_spacing)
    return DDIMScheduler(**options, clip_sample=False, set_alpha_to_one=False)


@register("scheduler", "dpm_solver")
def dpm_solver(prediction_type: str, *, timestep_spacing: str = "linspace") -> Any:
    """DPM-Solver++ of second order: about 25 steps (Lu et al. 2022).

    Args:
        prediction_type: Prediction of the model, `epsilon`, `v_prediction` or `flow_prediction`. Wired.
        timestep_spacing: Choice of the training timesteps, as diffusers names it; a flow has none.
    """
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(**_multistep_options(prediction_type, timestep_spacing))


@register("scheduler", "unipc")
def unipc(prediction_type: str, *, timestep_spacing: str = "linspace") -> Any:
    """UniPC of second order, a predictor and a corrector: about 25 steps (Zhao et al. 2023).

    Args:
        prediction_type: Prediction of the model, `epsilon`, `v_prediction` or `flow_prediction`. Wired.
        timestep_spacing: Choice of the training timesteps, as diffusers names it; a flow has none.
    """
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(**_multistep_options(prediction_type, timestep_spacing))


@register("scheduler", "flow_match_euler")
def flow_match_euler(prediction_type: str, *, shift: float = 1.0) -> Any:
    """Euler steps along a flow, evenly spaced, as in Stable Diffusion 3 and MMAudio: about 25 steps.

    Args:
        prediction_type: Prediction of the model, `flow_prediction`. Wired.
        shift: Factor that moves the noise levels of the steps up, above 1, or down (Esser et al. 2024).

    Raises:
        UsageError: The model predicts something else, or the factor is not above 0.
    """
    _refuse_all_but_flow("flow_match_euler", prediction_type)
    check_positive("scheduler.flow_match_euler.shift", shift)
    return _even_euler()(num_train_timesteps=1000, shift=shift)


@register("scheduler", "flow_match_heun")
def flow_match_heun(prediction_type: str, *, shift: float = 1.0) -> Any:
    """Heun's steps of second order along a flow, evenly spaced (Karras et al. 2022).

    A step evaluates the model twice, the last one once: n steps cost as much as 2 n - 1 of Euler's.

    Args:
        prediction_type: Prediction of the model, `flow_prediction`. Wired.
        shift: Factor that moves the noise levels of the steps up, above 1, or down (Esser et al. 2024).

    Raises:
        UsageError: The model predicts something else, or the factor is not above 0.
    """
    _refuse_all_but_flow("flow_match_heun", prediction_type)
    check_positive("scheduler.flow_match_heun.shift", shift)
    return _even_heun()(num_train_timesteps=1000, shift=shift)


@cache
def _even_euler() -> Any:
    """Euler scheduler of diffusers with the noise levels that its pipelines give it, down to 1 / n."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    class EvenFlowMatchEuler(FlowMatchEulerDiscreteScheduler):
        init_noise_sigma = 1.0

        def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
            levels = torch.linspace(1, 1 / num_inference_steps, num_inference_steps)
            super().set_timesteps(sigmas=levels.tolist(), device=device)

    return EvenFlowMatchEuler


@cache
def _even_heun() -> Any:
    """Heun scheduler of diffusers on the noise levels of `_even_euler`; its own end at a thousandth."""
    from diffusers import FlowMatchHeunDiscreteScheduler

    class EvenFlowMatchHeun(FlowMatchHeunDiscreteScheduler):
        init_noise_sigma = 1.0

        def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
            self.sigma_max, self.sigma_min, self.sample = 1.0, 1 / num_inference_steps, None
            super().set_timesteps(num_inference_steps, device=device)

    return EvenFlowMatchHeun


def clean_latent(scheduler: Any, prediction: Tensor, t: Tensor, z_t: Tensor) -> Tensor:
    """Latent (B, C, T, F) without noise that a prediction at timestep t stands for.

    Args:
        scheduler: Scheduler of the model's predictions, one of this module's.
        prediction: Prediction of the model for z_t, (B, C, T, F).
        t: Timestep ().
        z_t: Noisy latents (B, C, T, F).
    """
    kind = scheduler.config.get("prediction_type", FLOW)
    if kind == FLOW:
        return z_t - t / scheduler.config.num_train_timesteps * prediction
    signal = scheduler.alphas_cumprod[t]
    if kind == "v_prediction":
        return signal.sqrt() * z_t - (1 - signal).sqrt() * prediction
    return (z_t - (1 - signal).sqrt() * prediction) / signal.sqrt()
