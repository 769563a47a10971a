"""The parts of a saved VAE's ELBO on given images, and the importance-weighted bound, in nats per image."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
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
    log_sigma = pipe.vae.log_sigma
    if log_sigma is None and pipe.config.sigma is not None:
        log_sigma = torch.tensor(math.log(pipe.config.sigma), device=mean.device)
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
