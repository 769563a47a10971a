"""Parts of the evidence lower bound, and the tighter importance-weighted one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


# ---- the evidence lower bound, part by part, in nats (Kingma & Welling 2014, eq. 3) ------------------------
def bernoulli_nll(logits: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """-log p(x | z) of independent Bernoulli pixels: (B, C, H, W), (B, C, H, W) in [0, 1] -> (B,).

    For pixels of 0 and 1 it is a likelihood; for grey ones the usual cross-entropy, which has no normalising constant
    and is never 0 (Loaiza-Ganem & Cunningham 2019).
    """
    return F.binary_cross_entropy_with_logits(logits, pixels, reduction="none").flatten(1).sum(1)


def gaussian_nll(mean: torch.Tensor, pixels: torch.Tensor, log_sigma: torch.Tensor) -> torch.Tensor:
    """-log p(x | z) of independent Gaussian pixels: (B, C, H, W), (B, C, H, W), () or like the images -> (B,)."""
    error = ((pixels - mean) / log_sigma.exp()).square()
    return (0.5 * (error + math.log(2 * math.pi)) + log_sigma).flatten(1).sum(1)


def negative_log_likelihood(
    likelihood: str, logits: torch.Tensor, pixels: torch.Tensor, log_sigma: torch.Tensor | None = None
) -> torch.Tensor:
    """-log p(x | z) for "bernoulli", "binarized_bernoulli" or "gaussian": (B, C, H, W), (B, C, H, W), () -> (B,)."""
    if likelihood == "gaussian":
        return gaussian_nll(logits.sigmoid(), pixels, log_sigma)
    return bernoulli_nll(logits, pixels)


def kl_to_standard_normal(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """KL(q(z | x) || N(0, I)) of each dimension: (B, D), (B, D) -> (B, D) (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar)


def free_bits(kl: torch.Tensor, minimum: float) -> torch.Tensor:
    """What the KL costs when each dimension may spend `minimum` nats for nothing: (B, D) -> ().

    The batch mean of a dimension is what is compared (Kingma et al. 2016, appendix C.8). With 0 it is the KL.
    """
    return kl.mean(0).clamp(min=minimum).sum()


def importance_weighted_bound(
    log_likelihood: torch.Tensor, z: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor
) -> torch.Tensor:
    """log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x), a lower bound of log p(x) (Burda et al. 2016, eq. 8).

    Args:
        log_likelihood: log p(x | z_k), (K, B).
        z: samples of q(z | x), (K, B, D).
        mean, logvar: of q(z | x), (B, D).

    Returns:
        (B,); with K = 1 a sample of the evidence lower bound.
    """
    log_prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
    log_posterior = -0.5 * ((z - mean).square() / logvar.exp() + logvar + math.log(2 * math.pi)).sum(-1)
    log_weights = log_likelihood + log_prior - log_posterior  # (K, B)
    return torch.logsumexp(log_weights, dim=0) - math.log(len(z))
