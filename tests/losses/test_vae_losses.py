"""The mathematics of the VAE against torch.distributions."""

from __future__ import annotations

import pytest
import torch
from stand_ins import seeded
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal, kl_divergence

from models.vae import Posterior
from triptych.losses.vae import bernoulli_nll, free_bits, gaussian_nll, importance_weighted_bound, kl_to_standard_normal


def test_kl_and_its_gradient_are_torchs():
    mean = torch.randn(5, 3, generator=seeded(0), dtype=torch.float64, requires_grad=True)
    logvar = torch.randn(5, 3, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    ours = kl_to_standard_normal(mean, logvar)
    theirs = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(kl.sum(), (mean, logvar), retain_graph=True) for kl in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_bernoulli_is_torchs():
    logits = torch.randn(4, 1, 3, 3, generator=seeded(0))
    pixels = torch.randint(0, 2, (4, 1, 3, 3), generator=seeded(1)).float()
    theirs = -Independent(Bernoulli(logits=logits), 3).log_prob(pixels)
    torch.testing.assert_close(bernoulli_nll(logits, pixels), theirs)


def test_gaussian_is_torchs_and_so_is_the_gradient_of_sigma():
    mean, pixels = torch.rand(2, 4, 3, 2, 2, generator=seeded(0))
    log_sigma = torch.tensor(-0.7, requires_grad=True)
    ours = gaussian_nll(mean, pixels, log_sigma)
    theirs = -Independent(Normal(mean, log_sigma.exp()), 3).log_prob(pixels)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(x.sum(), log_sigma, retain_graph=True) for x in (ours, theirs)))


def test_reparameterisation_has_the_posterior_it_says():
    posterior = Posterior(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, -2.0]]))
    z = posterior.sample(torch.randn(200_000, 2, generator=seeded(0)))
    torch.testing.assert_close(z.mean(0), posterior.mean[0], atol=0.01, rtol=0)
    torch.testing.assert_close(z.var(0), posterior.logvar[0].exp(), atol=0.01, rtol=0.01)


def test_free_bits():
    kl = torch.tensor([[0.1, 3.0, 0.0], [0.3, 1.0, 0.0]], requires_grad=True)
    assert free_bits(kl, 0.0).item() == pytest.approx(kl.sum(1).mean().item())
    assert free_bits(kl, 0.5).item() == pytest.approx(0.5 + 2.0 + 0.5)
    (gradient,) = torch.autograd.grad(free_bits(kl, 0.5), kl)
    assert gradient[:, 1].tolist() == [0.5, 0.5] and not gradient[:, [0, 2]].any()


def linear_gaussian():
    """p(z) = N(0, I), p(x | z) = N(W z, s^2 I): log p(x) is known exactly."""
    weights = torch.randn(6, 2, generator=seeded(1), dtype=torch.float64)
    sigma = 0.6
    x = torch.randn(5, 2, generator=seeded(2), dtype=torch.float64) @ weights.T
    x = x + sigma * torch.randn(5, 6, generator=seeded(3), dtype=torch.float64)
    covariance = weights @ weights.T + sigma**2 * torch.eye(6, dtype=torch.float64)
    exact = MultivariateNormal(torch.zeros(6, dtype=torch.float64), covariance).log_prob(x)
    posterior_covariance = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + weights.T @ weights / sigma**2)
    mean = x @ weights @ posterior_covariance / sigma**2
    # The best Gaussian with independent dimensions, widened: what an imperfect encoder would say.
    logvar = (posterior_covariance.diagonal() * 3).log().expand_as(mean)
    return weights, sigma, x, exact, mean, logvar


def bound(k: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    weights, sigma, x, exact, mean, logvar = linear_gaussian()
    z = mean + (0.5 * logvar).exp() * torch.randn(k, *mean.shape, generator=seeded(seed), dtype=torch.float64)
    log_likelihood = Independent(Normal(z @ weights.T, sigma), 1).log_prob(x)
    return importance_weighted_bound(log_likelihood, z, mean, logvar), exact


def test_importance_weighted_bound_meets_the_exact_likelihood():
    estimate, exact = bound(200_000, seed=0)
    torch.testing.assert_close(estimate, exact, atol=0.01, rtol=0)


def test_importance_weighted_bound_rises_with_k():
    means = [torch.stack([bound(k, seed)[0] for seed in range(1000)]).mean(0) for k in (1, 5, 50)]
    exact = bound(1, 0)[1]
    assert (means[0] < means[1]).all() and (means[1] < means[2]).all() and (means[2] < exact + 0.02).all()


def test_importance_weighted_bound_at_one_is_the_elbo():
    weights, sigma, x, _, mean, logvar = linear_gaussian()
    one = torch.stack([bound(1, seed)[0] for seed in range(3000)]).mean(0)
    z = mean + (0.5 * logvar).exp() * torch.randn(20_000, *mean.shape, generator=seeded(9), dtype=torch.float64)
    reconstruction = Independent(Normal(z @ weights.T, sigma), 1).log_prob(x).mean(0)
    elbo = reconstruction - kl_to_standard_normal(mean, logvar).sum(1)
    torch.testing.assert_close(one, elbo, atol=0.2, rtol=0)
