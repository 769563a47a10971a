"""Whether a scheduler leads through the noise levels that a network was trained on, and the steps it takes.

Saved in the file of every pipeline that imports it.
"""

from __future__ import annotations

import inspect
import itertools
import operator
import warnings

import torch
from diffusers import DDPMScheduler
from diffusers.schedulers import SchedulerMixin

from .arguments import at_least_1, finite, listed

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


def misfit(
    scheduler: SchedulerMixin, trained: DDPMScheduler | None, known_to_fit: SchedulerMixin | None = None
) -> str | None:
    """Why a scheduler's steps are none from x_t towards x_0 through the network's own noise levels; None if they are.

    Args:
        scheduler: the one to be tried.
        trained: what the network was trained on, if it is known.
        known_to_fit: a scheduler that was checked before, and is not made to draw again.
    """
    step = getattr(type(scheduler), "step", None)
    required = [
        key
        for key, parameter in (inspect.signature(step).parameters.items() if callable(step) else ())
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    alphas = getattr(scheduler, "alphas_cumprod", None)
    reason = None
    if not torch.is_tensor(alphas) or not hasattr(scheduler, "init_noise_sigma"):
        reason = "it is not made for variance-preserving diffusion (it has no alphas_cumprod)"
    elif required[1:] != ["model_output", "timestep", "sample"]:
        reason = f"its step takes {', '.join(required[1:])}"
    elif "original_inference_steps" in inspect.signature(scheduler.set_timesteps).parameters:
        reason = "it is made for networks distilled to a few steps"
    elif trained is not None:
        prediction_type = scheduler.config.get("prediction_type")
        if prediction_type != trained.config.prediction_type:
            reason = (
                f"it takes the network's answer for {prediction_type!r}, which is {trained.config.prediction_type!r}"
            )
        elif alphas.shape != trained.alphas_cumprod.shape or not torch.allclose(
            alphas.cpu().float(), trained.alphas_cumprod, rtol=0, atol=1e-5
        ):
            reason = "its noise levels (alphas_cumprod) are not those that the network was trained on"
        elif scheduler is not known_to_fit:
            reason = failure(scheduler, trained)
    return reason


def check_fit(scheduler: SchedulerMixin, trained: DDPMScheduler | None, known_to_fit: SchedulerMixin | None) -> None:
    """Raise a ValueError that says why, and names those that fit, unless the scheduler does; see :func:`misfit`."""
    reason = misfit(scheduler, trained, known_to_fit)
    if reason is not None:
        raise ValueError(
            f"{type(scheduler).__name__} does not fit this network: {reason}. What fits, put in by "
            f"`pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)` while the saved one is in "
            f"place: {', '.join(FITTING)}."
        )


def failure(scheduler: SchedulerMixin, trained: DDPMScheduler) -> str | None:
    """What is wrong with how a scheduler draws pixels N(0.2, 0.2^2) by the best network there is for them."""
    mean, std, num_inference_steps = 0.2, 0.2, 50
    generator = torch.Generator().manual_seed(0)
    if len(trained.alphas_cumprod) < num_inference_steps:
        return None  # too coarse a schedule to tell
    # The logarithm of the signal-to-noise ratio: between two steps of training it is interpolated, as samplers do.
    log_snr = torch.logit(trained.alphas_cumprod.double().clamp(1e-12, 1 - 1e-12))
    try:
        scheduler = type(scheduler).from_config(scheduler.config)
        takes = inspect.signature(scheduler.step).parameters
        extra = {"generator": generator} if "generator" in takes else {}
        scheduler.set_timesteps(num_inference_steps)
        x = torch.randn(1, 1, 16, 16, generator=generator) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x_in, low = scheduler.scale_model_input(x, t).double(), int(t)
            a = torch.lerp(log_snr[low], log_snr[min(low + 1, len(log_snr) - 1)], float(t) - low).sigmoid()
            x_0 = mean + a.sqrt() * std**2 / (a * std**2 + 1 - a) * (x_in - a.sqrt() * mean)  # E[x_0 | x_t]
            eps = (x_in - a.sqrt() * x_0) / (1 - a).sqrt()
            answers = {"sample": x_0, "epsilon": eps, "v_prediction": a.sqrt() * eps - (1 - a).sqrt() * x_0}
            answer = answers[trained.config.prediction_type].float()
            x = scheduler.step(answer, t, x, **extra, return_dict=False)[0]
    except Exception as error:  # whatever a scheduler raises that is set as it cannot be
        return f"as it is set it fails ({' '.join(str(error).split())})"
    if not (abs(x.mean() - mean) < 0.05 and abs(x.std() / std - 1) < 0.25):  # negated, so that NaN is refused too
        return "as it is set it draws something else than the network has learned, or NaN"
    return None


def set_timesteps(scheduler: SchedulerMixin, num_inference_steps: int, timesteps: object, device: torch.device) -> None:
    """Set the scheduler's steps: so many of its own, or those given; a ValueError if it cannot take them."""
    name, count = type(scheduler).__name__, scheduler.config.num_train_timesteps
    if timesteps is None:
        steps = at_least_1("num_inference_steps", num_inference_steps)
        if steps > count:
            raise ValueError(f"num_inference_steps must be at most {count}, the steps of training; not {steps}.")
        scheduler.set_timesteps(steps, device=device)
    else:
        if "timesteps" not in inspect.signature(scheduler.set_timesteps).parameters:
            raise ValueError(f"{name} takes no timesteps; DDPMScheduler, DPMSolverMultistepScheduler and others do.")
        steps = listed(timesteps)
        try:
            steps = [operator.index(step) for step in steps]
        except TypeError:
            raise ValueError(f"timesteps must be integers, not {steps}.") from None
        fits = all(a > b for a, b in itertools.pairwise(steps)) and steps
        if not fits or steps[0] >= count or steps[-1] < 0:
            raise ValueError(f"timesteps must descend from at most {count - 1} to at least 0, each once; not {steps}.")
        scheduler.set_timesteps(timesteps=steps, device=device)
    second_order = getattr(scheduler, "order", 1) == 2 and hasattr(scheduler, "sigmas")
    karras = scheduler.config.get("use_karras_sigmas")
    if second_order and not karras and scheduler.alphas_cumprod[-1] < 1e-6 and len(scheduler.timesteps) < 200:
        warnings.warn(
            f"{name} may leave noise in the images: its second-order steps are too long where this schedule "
            f"begins, in almost nothing but noise. HeunDiscreteScheduler with use_karras_sigmas=True does better, "
            f"and so do DPMSolverMultistepScheduler, UniPCMultistepScheduler and DDIMScheduler.",
            stacklevel=5,
        )


def step_arguments(scheduler: SchedulerMixin, generator: object, eta: float | None) -> dict:
    """What this scheduler's ``step`` takes of `generator` and `eta`; schedulers differ."""
    accepted = inspect.signature(scheduler.step).parameters
    given = {"generator": generator} if "generator" in accepted else {}
    if eta is not None:
        if "eta" not in accepted:
            raise ValueError(f"{type(scheduler).__name__} takes no eta; it belongs to DDIMScheduler.")
        if not 0 <= finite("eta", eta) <= 1:
            raise ValueError(f"eta must lie between 0 and 1, not {eta!r}.")
        given["eta"] = min(float(eta), 1 - 1e-5)  # at 1, DDIM takes a root of what rounding makes less than nothing
    return given


def alpha_bar(scheduler: SchedulerMixin, t: torch.Tensor | float) -> torch.Tensor:
    """alpha_bar of the training step nearest to t."""
    alphas = scheduler.alphas_cumprod
    return alphas[int(torch.as_tensor(t).round().clamp(0, len(alphas) - 1))]


def predicted_x0(scheduler: SchedulerMixin, output: torch.Tensor, x_in: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The clean image a prediction stands for (Ho et al. 2020, eq. 4; Salimans & Ho 2022, appendix D)."""
    a = alpha_bar(scheduler, t).to(x_in)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (x_in - (1 - a).sqrt() * output) / a.sqrt().clamp(min=1e-4)
    if kind == "v_prediction":
        return a.sqrt() * x_in - (1 - a).sqrt() * output
    return output
