"""What a VAE's bound loses, image by image, split by its two causes (Cremer et al. 2018).

    log p(x) - ELBO[q] = (log p(x) - ELBO[best]) + (ELBO[best] - ELBO[q])

`best` is the best Gaussian of independent dimensions for that one image: what is lost with it is the price of the
family (approximation), the rest that of one encoder for all images (amortisation).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from diffusers import DiffusionPipeline

from triptych.evaluation.likelihoods import best_gaussians, elbo_parts, evidence_on_a_grid
from triptych.losses.vae import negative_log_likelihood
from triptych.seeds import keyed_generator

WIDENING = 1.5  # of the best Gaussians, from which log p(x) is drawn: they are narrower than what they approximate
COMPARING = 20  # draws of z that choose between two starts: starts differ by nats where it matters
AVERAGING = 60  # draws of z for an ELBO, the same for both Gaussians: images differ far more than draws do


def split_gap(
    pipe: DiffusionPipeline,
    pixels: torch.Tensor,
    elsewhere: tuple[torch.Tensor, torch.Tensor],
    num_updates: int,
    num_samples: int,
    seed: int,
) -> dict[str, torch.Tensor]:
    """The parts of the gap of each image, in nats, (B,) each, and what they come from.

    Args:
        pipe: a variational VAE's.
        pixels: (B, C, H, W) in [0, 1].
        elsewhere: means and log-variances of other images, (M, D) each. A posterior may have several modes, and the
            encoder may know of the wrong one: where one of these fits better, the search begins there.
        num_updates: of the search for the best Gaussian.
        num_samples: draws of z for log p(x).
        seed: of all draws.

    Returns:
        "elbo", "best_elbo", "evidence" (a lower bound of log p(x) in the mean; with two latent variables and Bernoulli
        pixels log p(x) itself), "bound" (the bound, whatever the number of variables), "gap", "approximation",
        "amortisation", and "moved", 1 where the search began elsewhere.
    """
    pipe.vae.requires_grad_(False)
    decode = pipe.vae.decode

    def measure(purpose: str, mean: torch.Tensor, logvar: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
        parts = elbo_parts(pipe, decode, pixels, mean, logvar, count, keyed_generator(purpose, seed))
        return (-parts["reconstruction"] - parts["kl"].sum(1)).double(), parts["bound"].double()

    mean, logvar = pipe.encode(pixels)
    other = likeliest(decode, pipe.config.likelihood, pixels, elsewhere)
    moved = measure("start", *other, COMPARING)[0] > measure("start", mean, logvar, COMPARING)[0]
    start = (torch.where(moved[:, None], there, here) for there, here in zip(other, (mean, logvar), strict=True))
    best = best_gaussians(pipe, decode, pixels, *start, num_updates, keyed_generator("search", seed))
    elbo, _ = measure("elbo", mean, logvar, AVERAGING)
    best_elbo, _ = measure("elbo", *best, AVERAGING)
    wide = (best[0], best[1] + 2 * math.log(WIDENING))
    evidence = bound = measure("evidence", *wide, num_samples)[1]
    if pipe.vae.config.latent_dim == 2 and pipe.config.likelihood != "gaussian":
        evidence = evidence_on_a_grid(decode, pixels)
    found = {"elbo": elbo, "best_elbo": best_elbo, "evidence": evidence, "bound": bound, "moved": moved.double()}
    return found | {"gap": evidence - elbo, "approximation": evidence - best_elbo, "amortisation": best_elbo - elbo}


@torch.no_grad()
def likeliest(
    decode: Callable[[torch.Tensor], torch.Tensor],
    likelihood: str,
    pixels: torch.Tensor,
    candidates: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the candidates, (M, D) means and log-variances, that whose mean has the highest p(x, z) for each image.

    With a Gaussian p(x | z) its deviation is taken to be 1, which chooses the nearest picture.

    Returns:
        (B, D) each.
    """
    means, logvars = candidates
    logits = torch.cat([decode(part) for part in means.split(500)])
    log_prior = -0.5 * means.square().sum(1)
    zero = torch.zeros((), device=means.device)
    chosen = [
        int((log_prior - negative_log_likelihood(likelihood, logits, one.expand_as(logits), zero)).argmax())
        for one in pixels.to(means.device)
    ]
    return means[chosen], logvars[chosen]
