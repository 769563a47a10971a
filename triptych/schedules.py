"""The noise schedule, made so that every diffusers scheduler can take it over."""

from __future__ import annotations

import diffusers
from diffusers import DDPMScheduler, SchedulerMixin

from triptych.config import ScheduleConfig, UserError


def make_noise_scheduler(config: ScheduleConfig, data_std: float = 1.0) -> DDPMScheduler:
    """A ``DDPMScheduler`` for `config`, of images in [-1, 1] / `data_std`.

    The sigmoid schedule is known to ``DDPMScheduler`` alone; its betas are written out
    (``trained_betas``), so that DDIM, DPM-Solver, UniPC and the others can be put in its place from the
    saved config. Steps are spaced "trailing", so that sampling starts at the last training step, where the
    image is noise (Lin et al. 2024, section 3.3).
    """
    settings = {
        "num_train_timesteps": config.num_train_timesteps,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "prediction_type": config.prediction_type,
        "rescale_betas_zero_snr": config.zero_terminal_snr,
        "timestep_spacing": "trailing",
        "clip_sample_range": 1 / data_std,
    }
    if config.beta_schedule == "sigmoid":
        plain = DDPMScheduler(
            num_train_timesteps=config.num_train_timesteps,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            beta_schedule="sigmoid",
        )
        return DDPMScheduler(trained_betas=plain.betas.tolist(), **settings)
    return DDPMScheduler(beta_schedule=config.beta_schedule, **settings)


def scheduler_class(name: str) -> type[SchedulerMixin]:
    """The diffusers scheduler called `name`, such as "DDIMScheduler" or just "DDIM".

    Raises:
        UserError: diffusers has none of that name.
    """
    for candidate in (name, f"{name}Scheduler"):
        found = getattr(diffusers, candidate, None)
        if isinstance(found, type) and issubclass(found, SchedulerMixin):
            return found
    raise UserError(
        f"diffusers has no scheduler {name!r}. Some that fit: DDPMScheduler, DDIMScheduler, "
        f"DPMSolverMultistepScheduler, UniPCMultistepScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler."
    )
