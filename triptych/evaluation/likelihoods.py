"""The parts of a saved VAE's ELBO on given images, the importance-weighted bound, and the best Gaussian for each image;
in nats per image."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline

from triptych.losses.vae import importance_weighted_bound, kl_to_standard_normal, negative_log_likelihood

DECODES = 500  # images decoded at once: bounds the memory whatever k is, and stays in the cache of a CPU


def make_decoder(vae: torch.nn.Module, dtype: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """z -> logits, the network in `dtype`, but for its first layer: bfloat16's 8 bits are too few for z."""
    if dtype == "float32":
        return vae.decode
    layers = copy.deepcopy(vae.decoder).to(torch.bfloat16)  # a third faster than autocast, which casts at every layer
    return lambda z: layers(vae.from_latents(z).to(torch.bfloat16)).float()


@torch.no_grad()
def elbo_parts(
    pipe: DiffusionPipeline,
    decode: Callable[[torch.Tensor], torch.Tensor],
    pixels: torch.Tensor,
    mean: torch.Tensor,
    logvar: torch.Tensor,
    num_samples: int,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Of each image: -log p(x | z), mean over the samples, (B,); KL, (B, D); importance-weighted bound, (B,)."""
    eps = torch.randn(num_samples, *mean.shape, generator=generator).to(mean.device)
    pixels = pixels.to(mean.device)
    z = mean + (0.5 * logvar).exp() * eps  # (K, B, D)
    log_sigma = _log_sigma(pipe, mean.device)
    log_likelihood = []
    for samples in z.split(max(1, DECODES // len(pixels))):  # (k, B, D)
        logits = decode(samples.flatten(0, 1))
        repeated = pixels.repeat(len(samples), 1, 1, 1)
        nll = negative_log_likelihood(pipe.config.likelihood, logits, repeated, log_sigma)
        log_likelihood.append(-nll.view(len(samples), -1))
    log_likelihood = torch.cat(log_likelihood)  # (K, B)
    parts = {
        "reconstruction": -log_likelihood.mean(0),
        "kl": kl_to_standard_normal(mean, logvar),
        "bound": importance_weighted_bound(log_likelihood, z, mean, logvar),
    }
    return {key: part.cpu() for key, part in parts.items()}


def _log_sigma(pipe: DiffusionPipeline, device: torch.device) -> torch.Tensor | None:
    """That of a Gaussian p(x | z), learnt or set; None of another."""
    if pipe.vae.log_sigma is None and pipe.config.sigma is not None:
        return torch.tensor(math.log(pipe.config.sigma), device=device)
    return pipe.vae.log_sigma


def best_gaussians(
    pipe: DiffusionPipeline,
    decode: Callable[[torch.Tensor], torch.Tensor],
    pixels: torch.Tensor,
    mean: torch.Tensor,
    logvar: torch.Tensor,
    num_updates: int,
    generator: torch.Generator,
    num_draws: int = 4,
    learning_rate: float = 0.03,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The Gaussian of independent dimensions that gives each image by itself the highest ELBO (Cremer et al. 2018).

    By Adam on the means and log-variances, each image's own, the decoder held fixed; the rate falls to zero in a line.

    Args:
        pipe: a VAE's.
        decode: z -> logits, differentiable.
        pixels: (B, C, H, W) in [0, 1].
        mean, logvar: where the search begins, the encoder's answer; (B, D).
        num_updates: of Adam.
        generator: of the draws.
        num_draws: of z for each image and update.
        learning_rate: of Adam, at the beginning.

    Returns:
        mean and log-variance, (B, D) each.
    """
    log_sigma = _log_sigma(pipe, mean.device)
    log_sigma = None if log_sigma is None else log_sigma.detach()
    mean, logvar = (part.detach().clone().requires_grad_() for part in (mean, logvar))
    repeated = pixels.to(mean.device).repeat(num_draws, 1, 1, 1)
    optimizer = torch.optim.Adam([mean, logvar], lr=learning_rate)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 1 - update / num_updates)
    for _ in range(num_updates):
        z = mean + (0.5 * logvar).exp() * torch.randn(num_draws, *mean.shape, generator=generator).to(mean.device)
        nll = negative_log_likelihood(pipe.config.likelihood, decode(z.flatten(0, 1)), repeated, log_sigma)
        # of each image by itself, so a sum: Adam's step doesn't depend on how many there are
        loss = nll.sum() / num_draws + kl_to_standard_normal(mean, logvar).sum()
        mean.grad, logvar.grad = torch.autograd.grad(loss, (mean, logvar))
        optimizer.step()
        decay.step()
    return mean.detach(), logvar.detach()


@torch.no_grad()
def evidence_on_a_grid(
    decode: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor, half: float = 4.5, num_points: int = 451
) -> torch.Tensor:
    """log p(x) of a Bernoulli VAE with two latent variables, integrated over the plane: (B, C, H, W) -> (B,).

    The trapezoid rule on a square from -half to half, outside of which the prior has next to nothing. It is exact to
    many digits as soon as the points are nearer to each other than a posterior is wide.

    Args:
        decode: z, (N, 2) -> logits.
        pixels: in [0, 1].
        half: of the square's side.
        num_points: along each side.
    """
    line = torch.linspace(-half, half, num_points)
    points = torch.cartesian_prod(line, line)  # (num_points^2, 2)
    x = pixels.flatten(1)
    total = torch.full((len(x),), -math.inf, dtype=torch.float64)
    for z in points.split(DECODES * 10):
        logits = torch.cat([decode(part).flatten(1) for part in z.split(DECODES)])
        log_p = x @ logits.T - F.softplus(logits).sum(1)  # log p(x | z), (B, N)
        log_prior = -0.5 * z.square().sum(1) - math.log(2 * math.pi)
        total = torch.logaddexp(total, (log_p.double() + log_prior.double()).logsumexp(1))
    return total + 2 * math.log(2 * half / (num_points - 1))


def summarize_elbo(measured: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Means over the images, in nats, and what the latent dimensions are used for."""
    reconstruction, kl, bound = (measured[key].double() for key in ("reconstruction", "kl", "bound"))
    return {
        "reconstruction": float(reconstruction.mean()),
        "kl": float(kl.sum(1).mean()),
        "neg_elbo": float((reconstruction + kl.sum(1)).mean()),
        "importance_weighted_nll": -float(bound.mean()),
        "importance_weighted_nll_standard_error": float(bound.std()) / math.sqrt(len(bound)),
        "kl_per_dimension": kl.mean(0).tolist(),
        # Burda et al. 2016, section 5.2: a dimension is active when its mean varies with the image.
        "active_units": int((measured["mean"].var(0) > 0.01).sum()),
    }
