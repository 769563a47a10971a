"""The parts of the ELBO of a VAE whose likelihood is known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from triptych.evaluation.likelihoods import elbo_parts, summarize_elbo

# x = z + sigma eps, z ~ N(0, 1), one pixel: p(x) = N(0, 1 + sigma^2), p(z | x) = N(x, sigma^2) / (1 + sigma^2).
SIGMA = 0.1
PIXELS = torch.tensor([0.4, 0.6]).view(2, 1, 1, 1)


def linear_parts(widening: float) -> dict[str, torch.Tensor]:
    """Of a linear VAE whose q(z | x) is the posterior, its variance multiplied by `widening`."""
    pipe = SimpleNamespace(
        vae=SimpleNamespace(log_sigma=None), config=SimpleNamespace(likelihood="gaussian", sigma=SIGMA)
    )

    def decode(z: torch.Tensor) -> torch.Tensor:
        """Logits whose sigmoid, the mean of p(x | z), is z; a z beyond [0, 1] is too far away to matter."""
        return torch.logit(z.clamp(1e-6, 1 - 1e-6)).view(-1, 1, 1, 1)

    mean = PIXELS.flatten(1) / (1 + SIGMA**2)
    logvar = torch.full_like(mean, math.log(widening * SIGMA**2 / (1 + SIGMA**2)))
    return elbo_parts(pipe, decode, PIXELS, mean, logvar, 20_000, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("widening", [1.0, 2.0])
def test_the_elbo_misses_the_likelihood_by_the_divergence_from_the_posterior(widening):
    parts = linear_parts(widening)
    evidence = torch.distributions.Normal(0, math.sqrt(1 + SIGMA**2)).log_prob(PIXELS.flatten())
    gap = 0.5 * (widening - 1 - math.log(widening))
    elbo = -parts["reconstruction"] - parts["kl"].sum(1)
    torch.testing.assert_close(evidence - elbo, torch.full((2,), gap), atol=0.03, rtol=0)
    torch.testing.assert_close(parts["bound"], evidence, atol=0.02, rtol=0)


def test_summaries_are_means_in_nats():
    measured = {
        "reconstruction": torch.tensor([10.0, 14.0]),
        "kl": torch.tensor([[1.0, 0.0], [3.0, 0.0]]),
        "bound": torch.tensor([-11.0, -15.0]),
        "mean": torch.tensor([[0.0, 0.5], [1.0, 0.5]]),
    }
    found = summarize_elbo(measured)
    assert (found["reconstruction"], found["kl"], found["neg_elbo"]) == (12, 2, 14)
    assert found["importance_weighted_nll"] == 13 and found["kl_per_dimension"] == [2, 0]
    assert found["importance_weighted_nll_standard_error"] == pytest.approx(math.sqrt(8) / math.sqrt(2))
    assert found["active_units"] == 1, "the second dimension says nothing of the image"
