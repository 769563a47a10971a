"""Degradations of an image: Gaussian, Poisson, salt-and-pepper and speckle noise, alone or one after the other.

Images are float (B, C, H, W) in [-1, 1]; levels are the literature's (sigma of 255, photons, fractions of pixels).
Nothing is clipped unless asked: a Gaussian of a known sigma is Gaussian only without.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from triptych.config.base import NoiseConfig
from triptych.seeds import keyed_generator


def _per_image(level: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return level.to(images).reshape(-1, *[1] * (images.dim() - 1))  # (B,) -> (B, 1, 1, 1)


def add_gaussian(images: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Additive white noise; `sigma` its standard deviation on the scale of 0 to 255: (B, C, H, W), (B,)."""
    eps = torch.randn(images.shape, generator=generator, device=images.device)
    return images + _per_image(sigma, images) * (2 / 255) * eps


def add_poisson(images: torch.Tensor, peak: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shot noise: a white pixel receives `peak` photons on average, a grey one its share: (B, C, H, W), (B,)."""
    photons = (images.clamp(-1, 1) + 1) / 2 * _per_image(peak, images)
    return torch.poisson(photons, generator=generator) / _per_image(peak, images) * 2 - 1


def add_salt_and_pepper(images: torch.Tensor, amount: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A fraction `amount` of the pixels, all channels at once, becomes black or white: (B, C, H, W), (B,)."""
    where = torch.rand((len(images), 1, *images.shape[2:]), generator=generator, device=images.device)
    amount = _per_image(amount, images)
    degraded = torch.where(where < amount / 2, -torch.ones_like(images), images)  # pepper
    return torch.where(where > 1 - amount / 2, torch.ones_like(images), degraded)  # salt


def add_speckle(images: torch.Tensor, speckle: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Multiplicative noise, y (1 + n) for intensities y in [0, 1], n of deviation `speckle`: (B, C, H, W), (B,)."""
    n = torch.randn(images.shape, generator=generator, device=images.device) * _per_image(speckle, images)
    return ((images + 1) / 2 * (1 + n)) * 2 - 1


STEPS = {  # kind: (what it does, the setting that says how much)
    "gaussian": (add_gaussian, "sigma"),
    "poisson": (add_poisson, "peak"),
    "salt_and_pepper": (add_salt_and_pepper, "amount"),
    "speckle": (add_speckle, "speckle"),
}


def degrade(images: torch.Tensor, config: NoiseConfig, generator: torch.Generator) -> torch.Tensor:
    """Degrade a batch as `config` says: (B, C, H, W) in [-1, 1] -> the same shape, beyond [-1, 1] unless clipped.

    Of a setting that is a range every image gets its own level, uniformly: what a blind denoiser is trained on.
    """
    for kind in config.kinds:
        add, setting = STEPS[kind]
        low, high = getattr(config, setting)
        level = low + (high - low) * torch.rand(len(images), generator=generator, device=images.device)
        images = add(images, level, generator)
    return to_8_bits(images) if config.clip else images


def degrade_by_index(
    images: torch.Tensor, indices: Sequence[int], config: NoiseConfig, seed: int, purpose: str = "test noise"
) -> torch.Tensor:
    """Degrade images so that the noise of each is a function of (purpose, seed, its index) alone.

    For test images the index is the place in the data: every method that is compared sees the same noisy images,
    whatever its batches. In training it is the place in the stream, and the purpose another: (B, C, H, W) twice.
    """
    degraded = [
        degrade(image[None], config, keyed_generator(purpose, seed, index, device=images.device))
        for image, index in zip(images, indices, strict=True)
    ]
    return torch.cat(degraded)


def to_8_bits(images: torch.Tensor) -> torch.Tensor:
    """What is left after saving to a file: clipped to [-1, 1] and rounded to 256 levels, any shape."""
    return (images.clamp(-1, 1) + 1).mul(127.5).round().div(127.5).sub(1)
