"""The report's formulas of diffusion are the code's own."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from stand_ins import draws
from torch.distributions import Normal, kl_divergence

from triptych.losses.diffusion import diffuse, min_snr_weight, predicted_x0, prediction_target, signal_to_noise

# ---- variational autoencoder ---------------------------------------------------------------------------------


# ---- diffusion -----------------------------------------------------------------------------------------------


@pytest.fixture
def batch(generator):
    x0 = torch.rand(6, 3, 4, 4, generator=generator, dtype=torch.float64) * 2 - 1
    return x0, draws(6, 3, 4, 4, generator=generator)


def test_schedules():
    """linear, cosine: the formulas count from 1 to T, diffusers from 0."""
    t = torch.arange(1, 1001, dtype=torch.float64)
    linear = 1e-4 + (t - 1) / 999 * (0.02 - 1e-4)
    torch.testing.assert_close(DDPMScheduler().betas.double(), linear, atol=1e-7, rtol=1e-4)

    def f(t: torch.Tensor) -> torch.Tensor:
        return torch.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    cosine = (1 - f(t) / f(t - 1)).clamp(max=0.999)
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(scheduler.betas.double(), cosine, atol=1e-7, rtol=1e-4)
    prescribed = f(t) / f(torch.zeros(()))
    torch.testing.assert_close(scheduler.alphas_cumprod[:990].double(), prescribed[:990], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_forward_process_in_one_step_and_in_many(schedule, batch):
    """forward-step, forward-induction, forward-closed: mean and variance, carried through the single steps."""
    x0, eps = batch
    scheduler = DDPMScheduler(beta_schedule=schedule)
    mean, variance, closed = torch.ones(()).double(), torch.zeros(()).double(), []
    for beta in scheduler.betas.double():
        mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
        closed.append((mean, variance))
    alpha_bar = (1 - scheduler.betas.double()).cumprod(0)
    torch.testing.assert_close(torch.stack([m for m, _ in closed]), alpha_bar.sqrt())
    torch.testing.assert_close(torch.stack([v for _, v in closed]), 1 - alpha_bar)
    t = torch.tensor([0, 1, 99, 500, 900, 999])
    formula = torch.stack([closed[i][0] * x + closed[i][1].sqrt() * e for i, x, e in zip(t, x0, eps, strict=True)])
    torch.testing.assert_close(formula, diffuse(x0, eps, alpha_bar[t]))
    torch.testing.assert_close(formula.float(), scheduler.add_noise(x0.float(), eps.float(), t), atol=1e-4, rtol=1e-3)


def test_score_is_the_noise(batch):
    """score."""
    x0, eps = batch
    alpha_bar = torch.tensor(0.37, dtype=torch.float64)
    x_t = diffuse(x0, eps, alpha_bar.expand(6)).requires_grad_()
    (score,) = torch.autograd.grad(Normal(alpha_bar.sqrt() * x0, (1 - alpha_bar).sqrt()).log_prob(x_t).sum(), x_t)
    torch.testing.assert_close(score, -eps / (1 - alpha_bar).sqrt())


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("t", [1, 2, 300, 999])
def test_posterior_of_a_step(schedule, t, batch):
    """posterior-bayes, posterior-precision, posterior, mean-from-noise, ancestral, against DDPMScheduler's step."""
    x0, eps = batch
    scheduler = DDPMScheduler(beta_schedule=schedule, variance_type="fixed_small", clip_sample=False)
    beta = scheduler.betas.double()[t]
    alpha_bar, alpha_bar_before = scheduler.alphas_cumprod.double()[t], scheduler.alphas_cumprod.double()[t - 1]
    alpha = alpha_bar / alpha_bar_before
    beta = 1 - alpha
    x_t = diffuse(x0, eps, alpha_bar.expand(6))
    mean = (alpha_bar_before.sqrt() * beta * x0 + alpha.sqrt() * (1 - alpha_bar_before) * x_t) / (1 - alpha_bar)
    variance = (1 - alpha_bar_before) / (1 - alpha_bar) * beta
    torch.testing.assert_close(1 / variance, alpha / beta + 1 / (1 - alpha_bar_before))
    weighed = variance * (alpha.sqrt() / beta * x_t + alpha_bar_before.sqrt() / (1 - alpha_bar_before) * x0)
    torch.testing.assert_close(mean, weighed)
    torch.testing.assert_close(mean, (x_t - beta / (1 - alpha_bar).sqrt() * eps) / alpha.sqrt(), atol=1e-6, rtol=1e-6)

    # Bayes' rule pointwise: q(x_t | y) q(y | x_0) / q(x_t | x_0) is that Gaussian's density.
    y = mean + variance.sqrt() * eps.flip(0)
    bayes = (
        Normal(alpha.sqrt() * y, beta.sqrt()).log_prob(x_t)
        + Normal(alpha_bar_before.sqrt() * x0, (1 - alpha_bar_before).sqrt()).log_prob(y)
        - Normal(alpha_bar.sqrt() * x0, (1 - alpha_bar).sqrt()).log_prob(x_t)
    )
    torch.testing.assert_close(bayes, Normal(mean, variance.sqrt()).log_prob(y), atol=1e-6, rtol=1e-6)

    xi = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    stepped = scheduler.step(eps, t, x_t, generator=torch.Generator().manual_seed(1)).prev_sample
    torch.testing.assert_close(stepped, mean + variance.sqrt() * xi, atol=2e-3, rtol=2e-3)


def test_the_last_step_is_the_image_itself(batch):
    """ancestral at t = 1 (0 in code)."""
    x0, eps = batch
    scheduler = DDPMScheduler(clip_sample=False)
    x_1 = diffuse(x0, eps, scheduler.alphas_cumprod.double()[:1].expand(6))
    torch.testing.assert_close(scheduler.step(eps, 0, x_1).prev_sample, x0, atol=1e-4, rtol=1e-4)


def test_bound_is_a_weighted_error_of_noise(batch):
    """bound-term: the KL of two Gaussians of equal variance, of means from true and from predicted noise."""
    _, eps = batch
    predicted, x_t = eps + 0.1 * eps.flip(0), eps.flip(1)
    alpha, alpha_bar, sigma = (torch.tensor(v, dtype=torch.float64) for v in (0.98, 0.4, 0.13))
    beta = 1 - alpha

    def mean(noise: torch.Tensor) -> torch.Tensor:
        return (x_t - beta / (1 - alpha_bar).sqrt() * noise) / alpha.sqrt()

    kl = kl_divergence(Normal(mean(eps), sigma), Normal(mean(predicted), sigma)).sum()
    formula = beta**2 / (2 * sigma**2 * alpha * (1 - alpha_bar)) * (eps - predicted).square().sum()
    torch.testing.assert_close(kl, formula)


def test_predictions_convert_and_their_errors_scale(batch):
    """velocity, conversions, errors, snr, min-snr."""
    x0, eps = batch
    alpha_bar = torch.tensor([0.999, 0.9, 0.6, 0.3, 0.1, 0.01], dtype=torch.float64)
    a = alpha_bar[:, None, None, None]
    x_t, v = diffuse(x0, eps, alpha_bar), a.sqrt() * eps - (1 - a).sqrt() * x0
    torch.testing.assert_close(v, prediction_target(x0, eps, alpha_bar, "v_prediction"))
    torch.testing.assert_close((x_t - (1 - a).sqrt() * eps) / a.sqrt(), x0)
    torch.testing.assert_close(a.sqrt() * x_t - (1 - a).sqrt() * v, x0)
    torch.testing.assert_close((x_t - a.sqrt() * x0) / (1 - a).sqrt(), eps)
    torch.testing.assert_close((1 - a).sqrt() * x_t + a.sqrt() * v, eps)
    for kind, target in (("epsilon", eps), ("v_prediction", v), ("sample", x0)):
        torch.testing.assert_close(predicted_x0(target, x_t, alpha_bar, kind), x0)

    snr = alpha_bar / (1 - alpha_bar)
    torch.testing.assert_close(snr, signal_to_noise(alpha_bar))
    wrong = x0 + 0.1 * eps.flip(0)
    wrong_eps = (x_t - a.sqrt() * wrong) / (1 - a).sqrt()
    wrong_v = a.sqrt() * wrong_eps - (1 - a).sqrt() * wrong
    of_x0, of_eps, of_v = ((p - q).square().flatten(1).sum(1) for p, q in ((wrong, x0), (wrong_eps, eps), (wrong_v, v)))
    torch.testing.assert_close(of_eps, snr * of_x0)
    torch.testing.assert_close(of_v, (snr + 1) * of_x0)
    capped = snr.clamp(max=5)
    for kind, weight in (("sample", capped), ("epsilon", capped / snr), ("v_prediction", capped / (snr + 1))):
        torch.testing.assert_close(weight, min_snr_weight(alpha_bar, kind, 5.0))


def test_guidance(batch):
    """guidance as the pipeline computes it, the same whatever is predicted; guided-density by Bayes' rule."""
    from models.pipeline_class_conditional import ClassConditionalPipeline

    x_t, cond = (part.float() for part in batch)
    uncond, s = cond.flip(0), 2.5

    class Unet:
        dtype = torch.float32

        def __call__(self, x, t, class_labels):
            answers = torch.where(
                class_labels[:, None, None, None] == 10, uncond.repeat(2, 1, 1, 1), cond.repeat(2, 1, 1, 1)
            )
            return type("Output", (), {"sample": answers})

    pipeline = type("Pipeline", (), {"unet": Unet(), "guide": None})()
    labels, null = torch.full((6,), 3), torch.full((6,), 10)
    guided = ClassConditionalPipeline._denoise(pipeline, x_t, torch.tensor(5), labels, null, s)
    torch.testing.assert_close(guided, uncond + s * (cond - uncond))
    torch.testing.assert_close(guided, (1 + (s - 1)) * cond - (s - 1) * uncond)  # the paper's s = 1 + w
    alpha_bar = torch.full((6,), 0.3)
    for kind in ("epsilon", "v_prediction"):
        a, b, c = (predicted_x0(output, x_t, alpha_bar, kind) for output in (guided, cond, uncond))
        torch.testing.assert_close(a, c + s * (b - c), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_step(eta, batch):
    """ddim against DDIMScheduler; with eta 1 and neighbouring steps it is the posterior's variance."""
    x0, eps = batch
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(50)
    t, s = 599, 579
    a_t, a_s = scheduler.alphas_cumprod.double()[t], scheduler.alphas_cumprod.double()[s]
    x_t = diffuse(x0, eps, a_t.expand(6))
    sigma = eta * ((1 - a_s) / (1 - a_t)).sqrt() * (1 - a_t / a_s).sqrt()
    xi = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    formula = a_s.sqrt() * x0 + (1 - a_s - sigma**2).sqrt() * eps + sigma * xi
    stepped = scheduler.step(eps, t, x_t, eta=eta, generator=torch.Generator().manual_seed(1)).prev_sample
    torch.testing.assert_close(stepped, formula, atol=1e-4, rtol=1e-4)
    if eta == 1:
        beta_tilde = (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
        torch.testing.assert_close(sigma**2, beta_tilde)
        mean = (a_s.sqrt() * (1 - a_t / a_s) * x0 + (a_t / a_s).sqrt() * (1 - a_s) * x_t) / (1 - a_t)
        torch.testing.assert_close(formula - sigma * xi, mean)
