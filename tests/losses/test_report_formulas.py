"""The report's formulas of autoencoders and adversarial networks are the code's own."""

from __future__ import annotations

import math

import pytest
import torch
from stand_ins import draws
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from triptych.losses.gan import discriminator_loss, generator_loss, r1_penalty
from triptych.losses.vae import bernoulli_nll, gaussian_nll, importance_weighted_bound, kl_to_standard_normal

# ---- variational autoencoder ---------------------------------------------------------------------------------


def test_kl_of_gaussians(generator):
    """kl-steps, kl."""
    mean, logvar = draws(5, 4, generator=generator), draws(5, 4, generator=generator)
    sigma = (logvar / 2).exp()
    formula = 0.5 * (mean**2 + sigma**2 - 1 - (sigma**2).log())
    torch.testing.assert_close(formula, kl_to_standard_normal(mean, logvar))
    standard = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(formula, kl_divergence(Normal(mean, sigma), standard))
    log_q = -0.5 * (2 * math.pi * sigma**2).log() - 0.5
    log_p = -0.5 * math.log(2 * math.pi) - 0.5 * (mean**2 + sigma**2)
    torch.testing.assert_close(log_q, -Normal(mean, sigma).entropy())
    torch.testing.assert_close(log_q - log_p, formula)


def test_likelihoods(generator):
    """bernoulli, gaussian."""
    logits, s = draws(3, 1, 4, 4, generator=generator), torch.tensor(0.3, dtype=torch.float64)
    binary = (draws(3, 1, 4, 4, generator=generator) > 0).double()
    x_hat = logits.sigmoid()
    formula = -(binary * x_hat.log() + (1 - binary) * (1 - x_hat).log()).flatten(1).sum(1)
    torch.testing.assert_close(formula, bernoulli_nll(logits, binary))
    torch.testing.assert_close(formula, -Independent(Bernoulli(logits=logits), 3).log_prob(binary))
    formula = ((binary - x_hat) ** 2 / (2 * s**2) + s.log() + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)
    torch.testing.assert_close(formula, gaussian_nll(x_hat, binary, s.log()))
    torch.testing.assert_close(formula, -Independent(Normal(x_hat, s), 3).log_prob(binary))


def test_elbo_splits_the_likelihood(generator):
    """elbo-split, elbo and iwae, on a linear model whose likelihood and posterior are known: x = w z + s noise."""
    w, s, x = torch.tensor(1.3).double(), torch.tensor(0.7).double(), torch.tensor(0.9).double()
    evidence = Normal(0.0, (w**2 + s**2).sqrt()).log_prob(x)
    posterior = Normal(w * x / (w**2 + s**2), (s**2 / (w**2 + s**2)).sqrt())
    mean, logvar = torch.tensor([[0.2]]).double(), torch.tensor([[-1.0]]).double()
    q = Normal(mean.item(), math.exp(logvar.item() / 2))
    expected_error = (x - w * mean) ** 2 + w**2 * logvar.exp()  # E_q (x - w z)^2
    reconstruction = expected_error / (2 * s**2) + s.log() + 0.5 * math.log(2 * math.pi)
    neg_elbo = reconstruction + kl_to_standard_normal(mean, logvar)
    torch.testing.assert_close(evidence, (-neg_elbo + kl_divergence(q, posterior)).squeeze())

    z = mean + (logvar / 2).exp() * draws(200_000, 1, 1, generator=generator)
    log_likelihood = Normal(w * z[..., 0], s).log_prob(x)  # (K, B)
    bounds = {k: groups(log_likelihood, z, mean, logvar, k) for k in (1, 20)}
    assert bounds[1] == pytest.approx(-neg_elbo.item(), abs=0.01)
    assert bounds[1] < bounds[20] <= evidence.item() + 1e-3


def groups(log_likelihood, z, mean, logvar, k: int) -> float:
    """The mean of many importance-weighted bounds of k draws."""
    by_k = z.reshape(k, -1, 1), log_likelihood.reshape(k, -1)
    batch = by_k[0].shape[1]
    return importance_weighted_bound(by_k[1], by_k[0], mean.expand(batch, 1), logvar.expand(batch, 1)).mean().item()


def test_reparameterised_gradient(generator):
    """reparameterised: for h(z) = z^2, E h = mu^2 + sigma^2, with gradients 2 mu and 2 sigma."""
    mu, sigma = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.4, 0.8))
    (mu + sigma * draws(400_000, generator=generator)).square().mean().backward()
    assert mu.grad.item() == pytest.approx(0.8, abs=0.01)
    assert sigma.grad.item() == pytest.approx(1.6, abs=0.02)


def test_kl_is_information_and_the_mixture_s_divergence(generator):
    """kl-surgery, on discrete distributions."""
    data = torch.rand(5, generator=generator, dtype=torch.float64).softmax(0)
    q = draws(5, 7, generator=generator).softmax(1)  # q(z | x)
    prior = draws(7, generator=generator).softmax(0)
    mixture = data @ q
    average = (data[:, None] * q * (q / prior).log()).sum()
    information = (data[:, None] * q * (q / mixture).log()).sum()
    torch.testing.assert_close(average, information + (mixture * (mixture / prior).log()).sum())


def test_noise_in_the_code_punishes_slopes(generator):
    """smoothing is exact for a linear decoder."""
    decoder, x = draws(6, 3, generator=generator), draws(6, generator=generator)
    mu, sigma = draws(3, generator=generator), torch.rand(3, generator=generator, dtype=torch.float64)
    z = mu + sigma * draws(400_000, 3, generator=generator)
    sampled = (x - z @ decoder.T).square().sum(1).mean()
    formula = (x - decoder @ mu).square().sum() + (sigma**2 * decoder.square().sum(0)).sum()
    assert sampled.item() == pytest.approx(formula.item(), rel=0.01)


# ---- generative adversarial network --------------------------------------------------------------------------


def test_optimal_discriminator_and_the_value_against_it(generator):
    """minimax, optimal-discriminator, jensen-shannon, on distributions over nine points."""
    data, fake = (draws(9, generator=generator).softmax(0) for _ in range(2))

    def value(d: torch.Tensor) -> torch.Tensor:
        return (data * d.log()).sum() + (fake * (1 - d).log()).sum()

    best = data / (data + fake)
    m = (data + fake) / 2
    js = 0.5 * (data * (data / m).log()).sum() + 0.5 * (fake * (fake / m).log()).sum()
    torch.testing.assert_close(value(best), -math.log(4) + 2 * js)
    assert 0 < js < math.log(2)
    logits = best.logit().requires_grad_()
    (gradient,) = torch.autograd.grad(value(logits.sigmoid()), logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    for _ in range(20):
        assert value((logits + 0.1 * draws(9, generator=generator)).sigmoid()) < value(best)
    assert (data * torch.full_like(data, 0.5).log()).sum() * 2 == pytest.approx(-math.log(4))  # at p_g = p_data


def test_adversarial_losses_in_logits(generator):
    """gan-losses, gan-gradients."""
    real, fake = draws(8, generator=generator), draws(8, generator=generator).requires_grad_()
    d_real, d_fake = real.sigmoid(), fake.sigmoid()
    torch.testing.assert_close(
        discriminator_loss("non_saturating", real, fake), -(d_real.log().mean() + (1 - d_fake).log().mean())
    )
    torch.testing.assert_close(generator_loss("non_saturating", real, fake), -d_fake.log().mean())
    (minimax,) = torch.autograd.grad((1 - d_fake).log().sum(), fake, retain_graph=True)
    (non_saturating,) = torch.autograd.grad(-d_fake.log().sum(), fake)
    torch.testing.assert_close(minimax, -d_fake.detach())
    torch.testing.assert_close(non_saturating, -(1 - d_fake.detach()))


def test_r1_penalty_is_half_the_squared_slope(generator):
    """r1, gamma left outside."""
    images = draws(3, 1, 2, 2, generator=generator).requires_grad_()
    logits = images.square().flatten(1).sum(1)
    formula = 0.5 * (2 * images.detach()).square().flatten(1).sum(1).mean()
    assert r1_penalty(logits, images).item() == pytest.approx(formula.item())
