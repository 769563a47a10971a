"""The gap of a VAE whose posterior is known: linear decoders, and one whose posterior has two modes."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from triptych.evaluation.inference_gap import split_gap
from triptych.evaluation.likelihoods import best_gaussians, evidence_on_a_grid
from triptych.evaluation.scores import certainty
from triptych.losses.vae import bernoulli_nll

SIGMA = 0.02  # of the pixels
SCALE = 0.05  # z moves the pixels by so much: small enough for them to stay in (0, 1)


def linear_vae(mixing: torch.Tensor, encoder_shift: float = 0.0, likelihood: str = "gaussian") -> SimpleNamespace:
    """x = 1/2 + SCALE mixing z + SIGMA eps, z of D dimensions; the encoder is the best Gaussian, its mean shifted.

    The posterior is N(m, L^-1) with L = I + (SCALE / SIGMA)^2 mixing^T mixing; of Gaussians with independent
    dimensions the best has its mean, and variances 1 / L_ii.
    """
    num_pixels, num_latents = mixing.shape
    ratio = SCALE / SIGMA
    precision = torch.eye(num_latents) + ratio**2 * mixing.T @ mixing

    def decode(z: torch.Tensor) -> torch.Tensor:
        return torch.logit((0.5 + SCALE * z @ mixing.T).clamp(1e-4, 1 - 1e-4)).view(-1, 1, 1, num_pixels)

    def encode(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = ratio / SIGMA * (pixels.flatten(1) - 0.5) @ mixing @ torch.linalg.inv(precision)
        return mean + encoder_shift, -precision.diagonal().log().expand_as(mean)

    config = SimpleNamespace(latent_dim=num_latents, variational=True)
    vae = SimpleNamespace(log_sigma=None, config=config, decode=decode, requires_grad_=lambda _: None)
    pipe = SimpleNamespace(
        vae=vae, encode=encode, config=SimpleNamespace(likelihood=likelihood, sigma=SIGMA), precision=precision
    )
    covariance = SCALE**2 * mixing @ mixing.T + SIGMA**2 * torch.eye(num_pixels)
    pipe.marginal = torch.distributions.MultivariateNormal(torch.full((num_pixels,), 0.5), covariance)
    return pipe


@pytest.mark.parametrize("encoder_shift", [0.0, 0.3])
def test_the_gap_of_a_linear_vae_is_split_as_algebra_splits_it(encoder_shift):
    pipe = linear_vae(torch.tensor([[1.0, 0.6], [0.2, 0.9], [0.5, -0.3]]), encoder_shift)
    torch.manual_seed(0)
    pixels = pipe.marginal.sample((20,)).view(-1, 1, 1, 3)
    nowhere = (torch.full((3, 2), 50.0), torch.zeros(3, 2))
    found = split_gap(pipe, pixels, nowhere, num_updates=150, num_samples=1500, seed=0)
    evidence = pipe.marginal.log_prob(pixels.flatten(1))
    approximation = 0.5 * (pipe.precision.diagonal().log().sum() - torch.logdet(pipe.precision)).item()
    amortisation = 0.5 * encoder_shift**2 * pipe.precision.sum().item()  # of a shift d in every dimension: d^T L d / 2
    assert approximation > 0.05
    torch.testing.assert_close(found["evidence"], evidence.double(), atol=0.05, rtol=0)
    assert found["approximation"].mean().item() == pytest.approx(approximation, abs=0.05)
    assert found["amortisation"].mean().item() == pytest.approx(amortisation, abs=0.05 + 0.02 * amortisation)
    torch.testing.assert_close(found["gap"], found["approximation"] + found["amortisation"])
    assert not found["moved"].any()


def test_the_best_gaussian_is_found_from_afar():
    pipe = linear_vae(torch.tensor([[1.0, 0.6], [0.2, 0.9], [0.5, -0.3]]))
    pixels = torch.tensor([[0.52, 0.48, 0.5], [0.45, 0.55, 0.53]]).view(2, 1, 1, 3)
    exact = pipe.encode(pixels)
    start = (exact[0] + 0.5, exact[1] - 1.5)
    mean, logvar = best_gaussians(
        pipe, pipe.vae.decode, pixels, *start, 300, torch.Generator().manual_seed(0), num_draws=32
    )
    torch.testing.assert_close(mean, exact[0], atol=0.03, rtol=0)
    torch.testing.assert_close(logvar, exact[1].expand_as(logvar), atol=0.1, rtol=0)


def test_a_mode_that_the_encoder_does_not_know_is_found_elsewhere():
    """x depends on z^2 alone: two modes, and an encoder far from both."""

    def decode(z: torch.Tensor) -> torch.Tensor:
        return torch.logit((0.2 + 0.05 * z[:, :1].square()).clamp(1e-4, 1 - 1e-4)).view(-1, 1, 1, 1)

    config = SimpleNamespace(latent_dim=1, variational=True)
    pipe = SimpleNamespace(
        vae=SimpleNamespace(log_sigma=None, config=config, decode=decode, requires_grad_=lambda _: None),
        config=SimpleNamespace(likelihood="gaussian", sigma=SIGMA),
        encode=lambda pixels: (torch.zeros(len(pixels), 1), torch.full((len(pixels), 1), -4.0)),
    )
    pixels = torch.full((3, 1, 1, 1), 0.4)  # z = 2 or -2
    elsewhere = (torch.tensor([[0.1], [1.9], [4.0]]), torch.full((3, 1), -4.0))
    found = split_gap(pipe, pixels, elsewhere, num_updates=200, num_samples=2000, seed=0)
    assert found["moved"].all() and found["amortisation"].min() > 10
    # The Gaussian lies in one of two equal modes, and its draws don't know of the other: half of p(x) is what they see.
    z = torch.linspace(-6, 6, 20001, dtype=torch.float64)
    joint = torch.distributions.Normal(0.2 + 0.05 * z.square(), SIGMA).log_prob(torch.tensor(0.4).double())
    joint = joint + torch.distributions.Normal(0.0, 1.0).log_prob(z)
    evidence = (joint.logsumexp(0) + math.log(12 / 20000)).item()
    assert found["evidence"].mean().item() == pytest.approx(evidence - math.log(2), abs=0.1)
    assert -0.2 < found["approximation"].mean() < 0.4  # 60 draws an ELBO, three images


def test_the_integral_over_the_plane_is_the_average_over_the_prior():
    weights = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))

    def decode(z: torch.Tensor) -> torch.Tensor:
        return (z @ weights).view(-1, 1, 2, 3)

    pixels = torch.rand(4, 1, 2, 3, generator=torch.Generator().manual_seed(1))
    found = evidence_on_a_grid(decode, pixels, half=6, num_points=121)
    z = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(2))
    for one, of_grid in zip(pixels, found, strict=True):
        likelihoods = (-bernoulli_nll(decode(z), one.expand(len(z), 1, 2, 3))).double().exp()
        assert of_grid.exp().item() == pytest.approx(likelihoods.mean().item(), rel=0.02)


def test_a_judge_is_sure_where_it_says_so():
    probabilities = torch.tensor([[0.95, 0.05], [0.5, 0.5], [0.2, 0.8], [0.01, 0.99]])
    found = certainty(["cat", "dog"], probabilities.log(), 0.9)
    assert found["sure"] == 0.5 and found["sure_interval"] == pytest.approx(1.96 * math.sqrt(1 / 3) / 2)
    assert [one["share"] for one in found["classes"].values()] == [0.5, 0.5] and list(found["classes"]) == [
        "cat",
        "dog",
    ]
