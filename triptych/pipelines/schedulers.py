"""The noise schedule, made so that diffusers' samplers for variance-preserving diffusion can take it over."""

from __future__ import annotations

import inspect

import diffusers
from diffusers import DDPMScheduler, SchedulerMixin

from triptych.config.diffusion import SamplingConfig, ScheduleConfig
from triptych.errors import UserError

# What the class-conditional pipeline takes: diffusers' other schedulers use other noise levels, or another process.
FITTING = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "PNDMScheduler",
)


def make_noise_scheduler(config: ScheduleConfig, data_std: float = 1.0) -> DDPMScheduler:
    """A ``DDPMScheduler`` for `config`, of images in [-1, 1] / `data_std`.

    The sigmoid schedule and zero terminal SNR are not known to all of diffusers' samplers; their betas are written out
    (``trained_betas``), so that each of `FITTING` can be put in its place from the saved config. Steps are spaced
    "trailing", so that sampling starts at the last training step, where the image is noise (Lin et al. 2024, section
    3.3).
    """
    settings = {
        "num_train_timesteps": config.num_train_timesteps,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "prediction_type": config.prediction_type,
        "timestep_spacing": "trailing",
        "clip_sample_range": 1 / data_std,
    }
    plain = DDPMScheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=config.beta_schedule,
        rescale_betas_zero_snr=config.zero_terminal_snr,
    )
    if config.beta_schedule == "sigmoid" or config.zero_terminal_snr:
        # Samplers divide by sqrt(alpha_bar), so it must not be 0: the last beta is limited as in the squared cosine.
        return DDPMScheduler(trained_betas=plain.betas.clamp(max=0.999).tolist(), **settings)
    return DDPMScheduler(beta_schedule=config.beta_schedule, **settings)


def scheduler_class(name: str) -> type[SchedulerMixin]:
    """The diffusers scheduler called `name`, such as "DDIMScheduler" or just "DDIM".

    Raises:
        UserError: diffusers has none of that name, or it doesn't fit our networks.
    """
    for candidate in (name, f"{name}Scheduler"):
        found = getattr(diffusers, candidate, None)
        if isinstance(found, type) and issubclass(found, SchedulerMixin):
            if candidate not in FITTING:
                raise UserError(
                    f"{candidate} does not fit our networks, whose noise levels it does not take over. Those that do: "
                    f"{', '.join(FITTING)}."
                )
            return found
    raise UserError(f"diffusers has no scheduler {name!r}. Those that fit: {', '.join(FITTING)}.")


def make_sampler(config: SamplingConfig, trained: DDPMScheduler) -> SchedulerMixin:
    """The scheduler that draws: `config.scheduler` with its own settings, for the noise schedule `trained`.

    Raises:
        UserError: there is no such scheduler, or it has no such setting.
    """
    kind = scheduler_class(config.scheduler)
    known = set(inspect.signature(kind).parameters)
    unknown = sorted(set(config.scheduler_settings) - known)
    if unknown:
        raise UserError(
            f"sampling.scheduler_settings: {kind.__name__} has no {', '.join(unknown)}. It has "
            f"{', '.join(sorted(known))}."
        )
    try:
        return kind.from_config(trained.config, **config.scheduler_settings)
    except (NotImplementedError, ValueError, TypeError) as error:
        raise UserError(f"sampling.scheduler_settings {config.scheduler_settings}: {error}") from None
