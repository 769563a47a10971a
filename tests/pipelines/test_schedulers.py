"""Schedules against diffusers, and every other scheduler taking ours over."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler

from triptych.config.diffusion import SamplingConfig, ScheduleConfig
from triptych.errors import UserError
from triptych.losses.diffusion import signal_to_noise
from triptych.pipelines.schedulers import make_noise_scheduler, make_sampler, scheduler_class

SCHEDULES = ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]
OTHERS = ["DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler"]


@pytest.mark.parametrize("name", SCHEDULES)
def test_is_the_schedule_it_says(name):
    ours = make_noise_scheduler(ScheduleConfig(beta_schedule=name, beta_end=0.03, num_train_timesteps=200))
    theirs = DDPMScheduler(beta_schedule=name, beta_end=0.03, num_train_timesteps=200)
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("other", OTHERS)
def test_other_schedulers_take_it_over(name, other):
    ours = make_noise_scheduler(ScheduleConfig(beta_schedule=name))
    swapped = getattr(diffusers, other).from_config(ours.config)
    torch.testing.assert_close(swapped.alphas_cumprod, ours.alphas_cumprod)


@pytest.mark.parametrize("name", SCHEDULES)
def test_zero_terminal_snr(name):
    config = ScheduleConfig(beta_schedule=name, prediction_type="v_prediction", zero_terminal_snr=True)
    alpha_bar = make_noise_scheduler(config).alphas_cumprod
    assert signal_to_noise(alpha_bar)[-1] < 1e-6
    assert (alpha_bar.diff() < 0).all()


def test_sampling_starts_at_the_last_training_step():
    scheduler = make_noise_scheduler(ScheduleConfig())
    scheduler.set_timesteps(7)
    assert scheduler.timesteps[0] == 999


def test_zero_terminal_snr_with_epsilon_is_refused():
    with pytest.raises(ValueError, match="v_prediction or sample"):
        ScheduleConfig(zero_terminal_snr=True)


def test_scheduler_by_name():
    assert scheduler_class("DDIM") is diffusers.DDIMScheduler
    assert scheduler_class("UniPCMultistepScheduler") is diffusers.UniPCMultistepScheduler
    for wrong in ("Nonsense", "UNet2DModel", "DiffusionPipeline"):
        with pytest.raises(UserError, match="no scheduler"):
            scheduler_class(wrong)


def test_a_samplers_own_settings():
    trained = make_noise_scheduler(ScheduleConfig(prediction_type="v_prediction"), data_std=0.5)
    assert trained.config.clip_sample_range == 2
    stochastic = SamplingConfig(scheduler_settings={"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True})
    sampler = make_sampler(stochastic, trained)
    assert isinstance(sampler, diffusers.DPMSolverMultistepScheduler)
    assert sampler.config.algorithm_type == "sde-dpmsolver++" and sampler.config.use_karras_sigmas
    assert sampler.config.prediction_type == "v_prediction"
    for settings, message in (({"algoritm": 1}, "has no algoritm. It has"), ({"algorithm_type": "x"}, "x")):
        with pytest.raises(UserError, match=f"scheduler_settings.*{message}"):
            make_sampler(SamplingConfig(scheduler_settings=settings), trained)
