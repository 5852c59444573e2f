"""Schedulers: noise levels, and the step from one to the next; stock diffusers, as configurations."""

from typing import Any

from stav2a.registry import register

# The noise schedule of Stable Diffusion 2.1, which Tango, VTA-LDM and STA-V2A all use.
NOISE_SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}


@register("scheduler", "ddpm")
def ddpm(prediction_type: str, *, timestep_spacing: str = "leading") -> Any:
    """Ancestral sampling with fresh noise at every step: the paper's, with 200 steps.

    Args:
        prediction_type: What the model predicts, `epsilon` or `v_prediction`. Wired.
        timestep_spacing: Which of the training timesteps are visited, in diffusers' terms.
    """
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        prediction_type=prediction_type,
        timestep_spacing=timestep_spacing,
        clip_sample=False,
        **NOISE_SCHEDULE,
    )


@register("scheduler", "ddim")
def ddim(prediction_type: str, *, timestep_spacing: str = "leading") -> Any:
    """Deterministic sampling in fewer steps (Song et al. 2021).

    Args:
        prediction_type: What the model predicts, `epsilon` or `v_prediction`. Wired.
        timestep_spacing: Which of the training timesteps are visited, in diffusers' terms.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        prediction_type=prediction_type,
        timestep_spacing=timestep_spacing,
        clip_sample=False,
        set_alpha_to_one=False,
        **NOISE_SCHEDULE,
    )


@register("scheduler", "dpm_solver")
def dpm_solver(prediction_type: str, *, timestep_spacing: str = "linspace") -> Any:
    """DPM-Solver++ of second order: about 25 steps (Lu et al. 2022).

    Args:
        prediction_type: What the model predicts, `epsilon` or `v_prediction`. Wired.
        timestep_spacing: Which of the training timesteps are visited, in diffusers' terms.
    """
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        prediction_type=prediction_type, timestep_spacing=timestep_spacing, **NOISE_SCHEDULE
    )


@register("scheduler", "unipc")
def unipc(prediction_type: str, *, timestep_spacing: str = "linspace") -> Any:
    """UniPC of second order, a predictor and a corrector: about 25 steps (Zhao et al. 2023).

    Args:
        prediction_type: What the model predicts, `epsilon` or `v_prediction`. Wired.
        timestep_spacing: Which of the training timesteps are visited, in diffusers' terms.
    """
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(
        prediction_type=prediction_type, timestep_spacing=timestep_spacing, **NOISE_SCHEDULE
    )
