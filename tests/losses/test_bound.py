"""The variational bound's terms against torch's own divergences, and against a sum over all values of a pixel."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler
from torch.distributions import Normal, kl_divergence

from triptych.losses.bound import NoiseSteps, discretized_gaussian_nll, prior_divergence, step_divergence
from triptych.losses.diffusion import signal_to_noise

SCHEDULES = ("linear", "squaredcos_cap_v2")


def steps_of(schedule: str, count: int = 1000) -> NoiseSteps:
    return NoiseSteps(DDPMScheduler(num_train_timesteps=count, beta_schedule=schedule).betas)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("choice", ["posterior", "forward"])
def test_a_step_costs_the_divergence_of_the_two_gaussians(schedule, choice):
    steps = steps_of(schedule)
    generator = torch.Generator().manual_seed(0)
    x0, guess, x_t = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    for t in (1, 2, 50, 500, 998, 999):
        a, before, beta = steps.alpha_bar[t], steps.alpha_bar_before[t], steps.betas[t].double()

        def mean(image, a=a, before=before, beta=beta):  # Ho et al. 2020, eq. 7, as it stands there
            return before.sqrt() * beta / (1 - a) * image + (1 - beta).sqrt() * (1 - before) / (1 - a) * x_t

        q = Normal(mean(x0), ((1 - before) / (1 - a) * beta).sqrt())
        p = Normal(mean(guess), q.scale if choice == "posterior" else beta.sqrt())
        found = step_divergence((x0 - guess).square().sum(), 5, torch.tensor(t), steps, choice)
        torch.testing.assert_close(found, kl_divergence(q, p).sum(), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_with_the_posterior_variance_it_is_half_the_fall_of_the_signal_to_noise_ratio(schedule):
    steps, t = steps_of(schedule), torch.arange(1, 1000)
    snr = signal_to_noise(steps.alpha_bar)
    found = step_divergence(torch.full((999,), 2.0), 7, t, steps, "posterior")
    torch.testing.assert_close(found, snr[:-1] - snr[1:], rtol=1e-8, atol=0)


def test_steps_agree_with_diffusers():
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="fixed_small")
    steps = NoiseSteps(scheduler.betas)
    for t in (1, 10, 999):
        assert float(steps.posterior_variance[t]) == pytest.approx(float(scheduler._get_variance(t)), rel=1e-3)
    assert steps.posterior_variance[0] == 0 and steps.variance("posterior")[0] == steps.posterior_variance[1]


def test_the_prior_costs_the_divergence_from_a_standard_normal():
    steps = steps_of("linear", 100)  # of which a third of the variance is left
    x0 = torch.linspace(-1, 1, 12).view(2, 2, 3)
    left = steps.alpha_bar[-1]
    q = Normal(left.sqrt() * x0.double(), (1 - left).sqrt())
    expected = kl_divergence(q, Normal(torch.zeros((), dtype=torch.float64), 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(prior_divergence(x0, steps), expected)


@pytest.mark.parametrize(("mean", "std"), [(0.1, 0.05), (-0.999, 0.003), (1.4, 0.4)])
def test_the_values_of_a_pixel_have_probabilities_that_sum_to_one(mean, std):
    values = torch.arange(256).double() / 127.5 - 1
    nll = discretized_gaussian_nll(values[:, None], torch.full((256, 1), mean), std, 1 / 255)
    assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-12)
    inner = Normal(mean, std).cdf(values[1:-1] + 1 / 255) - Normal(mean, std).cdf(values[1:-1] - 1 / 255)
    torch.testing.assert_close((-nll).exp()[1:-1], inner, rtol=1e-6, atol=1e-14)


def test_what_is_all_but_impossible_has_a_finite_cost():
    x0 = torch.tensor([[1.0], [-1.0], [0.5]])
    nll = discretized_gaussian_nll(x0, -x0, 0.004, 1 / 255)
    far = 0.5 * ((2 - 1 / 255) / 0.004) ** 2
    assert nll[0].item() == pytest.approx(nll[1].item()) == pytest.approx(far, rel=1e-3)
    assert math.isfinite(nll[2].item())
