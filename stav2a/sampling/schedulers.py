"""Schedulers: configurations of those of diffusers, on the noise schedule of Stable Diffusion."""

from typing import Any

from stav2a.registry import register


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


@register("scheduler", "ddpm")
def ddpm(prediction_type: str, *, timestep_spacing: str = "leading") -> Any:
    """Ancestral sampling with fresh noise at every step: the paper's, with 200 steps.

    Args:
        prediction_type: Prediction of the model, `epsilon` or `v_prediction`. Wired.
        timestep_spacing: Choice of the training timesteps, as diffusers names it.
    """
    from diffusers import DDPMScheduler

    return DDPMScheduler(**_options(prediction_type, timestep_spacing), clip_sample=False)


@register("scheduler", "ddim")
def ddim(prediction_type: str, *, timestep_spacing: str = "leading") -> Any:
    """Deterministic sampling in fewer steps (Song et al. 2021).

    Args:
        prediction_type: Prediction of the model, `epsilon` or `v_prediction`. Wired.
        timestep_spacing: Choice of the training timesteps, as diffusers names it.
    """
    from diffusers import DDIMScheduler

    options = _options(prediction_type, timestep_spacing)
    return DDIMScheduler(**options, clip_sample=False, set_alpha_to_one=False)


@register("scheduler", "dpm_solver")
def dpm_solver(prediction_type: str, *, timestep_spacing: str = "linspace") -> Any:
    """DPM-Solver++ of second order: about 25 steps (Lu et al. 2022).

    Args:
        prediction_type: Prediction of the model, `epsilon` or `v_prediction`. Wired.
        timestep_spacing: Choice of the training timesteps, as diffusers names it.
    """
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(**_options(prediction_type, timestep_spacing))


@register("scheduler", "unipc")
def unipc(prediction_type: str, *, timestep_spacing: str = "linspace") -> Any:
    """UniPC of second order, a predictor and a corrector: about 25 steps (Zhao et al. 2023).

    Args:
        prediction_type: Prediction of the model, `epsilon` or `v_prediction`. Wired.
        timestep_spacing: Choice of the training timesteps, as diffusers names it.
    """
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(**_options(prediction_type, timestep_spacing))
