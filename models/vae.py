"""A variational autoencoder for small images; by config the classic MLP, or a plain autoencoder.

Self-contained: this file is saved beside the weights and is what ``from_pretrained`` runs, here or on the Hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


@dataclass
class Posterior:
    """q(z | x), a Gaussian with independent dimensions.

    Attributes:
        mean, logvar: (B, latent_dim). A plain autoencoder's has no spread: its logvar is -inf.
    """

    mean: torch.Tensor
    logvar: torch.Tensor

    def sample(self, eps: torch.Tensor) -> torch.Tensor:
        """z = mean + sigma * eps with eps ~ N(0, I) (Kingma & Welling 2014, section 2.4), (B, latent_dim)."""
        return self.mean + (0.5 * self.logvar).exp() * eps


class VAE(ModelMixin, ConfigMixin):
    """Encoder q(z | x) and decoder p(x | z) (Kingma & Welling 2014).

    Args:
        image_size: side in pixels; a multiple of 4 for "conv".
        in_channels: 1 or 3.
        latent_dim: number of latent variables, at least 1.
        architecture: "conv" (convolutions around a residual dense trunk) or "mlp" (one hidden layer each way).
        hidden_channels: widths of "conv" at half and at quarter resolution.
        layers_per_block: residual blocks of "conv" at each of the two.
        bottleneck_channels: channels at quarter resolution next to the trunk ("conv"), whose first and last layers
            would otherwise hold most of the parameters.
        hidden_dim: width of the hidden layer ("mlp"), or of the dense trunk ("conv").
        num_dense_blocks: residual blocks of the trunk, each way. A decoder bends a plane of two latent variables
            through all ten digits, and depth here costs little beside convolutions.
        variational: False makes a plain autoencoder: z = mean, nothing is sampled.
        learn_sigma: keep the standard deviation of a Gaussian p(x | z) among the weights.

    Attributes:
        log_sigma: its logarithm, one number for all pixels (Rybkin et al. 2021); None unless ``learn_sigma``.

    Raises:
        ValueError: a size the network can't take.
    """

    _code = ("vae", Path(__file__).read_text(encoding="utf-8"))  # what it is saved with

    @register_to_config
    def __init__(
        self,
        image_size: int = 28,
        in_channels: int = 1,
        latent_dim: int = 2,
        architecture: str = "conv",
        hidden_channels: tuple[int, int] = (32, 64),
        layers_per_block: int = 0,
        bottleneck_channels: int = 12,
        hidden_dim: int = 192,
        num_dense_blocks: int = 3,
        variational: bool = True,
        learn_sigma: bool = False,
    ):
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, not {latent_dim}.")
        if architecture not in ("conv", "mlp"):
            raise ValueError(f"architecture must be 'conv' or 'mlp', not {architecture!r}.")
        if architecture == "conv" and (image_size % 4 or image_size < 8):
            raise ValueError(f"image_size must be a multiple of 4, at least 8, for 'conv'; not {image_size}.")
        if architecture == "mlp":
            pixels = in_channels * image_size**2
            self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, hidden_dim), nn.ReLU())
            self.decoder = nn.Sequential(
                nn.ReLU(), nn.Linear(hidden_dim, pixels), nn.Unflatten(1, (in_channels, image_size, image_size))
            )
        else:
            half, quarter = hidden_channels
            side = image_size // 4
            self.encoder = nn.Sequential(
                nn.Conv2d(in_channels, half, 4, stride=2, padding=1),  # (B, half, H / 2, W / 2)
                *(ResidualBlock(half) for _ in range(layers_per_block)),
                nn.SiLU(),
                nn.Conv2d(half, quarter, 4, stride=2, padding=1),  # (B, quarter, H / 4, W / 4)
                *(ResidualBlock(quarter) for _ in range(layers_per_block)),
                nn.SiLU(),
                nn.Conv2d(quarter, bottleneck_channels, 1),
                nn.Flatten(),
                nn.Linear(bottleneck_channels * side**2, hidden_dim),
                *(ResidualDense(hidden_dim) for _ in range(num_dense_blocks)),
                nn.LayerNorm(hidden_dim),
            )
            self.decoder = nn.Sequential(
                *(ResidualDense(hidden_dim) for _ in range(num_dense_blocks)),
                nn.LayerNorm(hidden_dim),
                nn.SiLU(),
                nn.Linear(hidden_dim, bottleneck_channels * side**2),
                nn.Unflatten(1, (bottleneck_channels, side, side)),
                nn.Conv2d(bottleneck_channels, quarter, 1),
                *(ResidualBlock(quarter) for _ in range(layers_per_block)),
                nn.SiLU(),
                nn.ConvTranspose2d(quarter, half, 4, stride=2, padding=1),  # (B, half, H / 2, W / 2)
                *(ResidualBlock(half) for _ in range(layers_per_block)),
                nn.SiLU(),
                nn.ConvTranspose2d(half, in_channels, 4, stride=2, padding=1),  # (B, C, H, W)
            )
        self.to_moments = nn.Linear(hidden_dim, 2 * latent_dim if variational else latent_dim)
        self.from_latents = nn.Linear(latent_dim, hidden_dim)
        self.log_sigma = nn.Parameter(torch.zeros(())) if learn_sigma else None

    def encode(self, images: torch.Tensor) -> Posterior:
        """q(z | x): (B, C, H, W) in [-1, 1] -> means and log-variances, (B, latent_dim)."""
        hidden = self.encoder(images)
        with torch.autocast(hidden.device.type, enabled=False):  # bf16 has 8 bits: too few for a sharp posterior
            moments = self.to_moments(hidden.to(self.to_moments.weight.dtype)).float()
        if not self.config.variational:
            return Posterior(moments, torch.full_like(moments, -torch.inf))
        mean, logvar = moments.chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(-20, 20))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Logits of the pixels of p(x | z): (B, latent_dim) -> (B, C, H, W); their sigmoid is the mean in [0, 1]."""
        with torch.autocast(z.device.type, enabled=False):
            hidden = self.from_latents(z.to(self.from_latents.weight.dtype))
        return self.decoder(hidden).float()

    def forward(self, images: torch.Tensor, eps: torch.Tensor) -> tuple[torch.Tensor, Posterior]:
        """Encode, sample, decode: (B, C, H, W), (B, latent_dim) -> logits (B, C, H, W) and q(z | x)."""
        posterior = self.encode(images)
        z = posterior.sample(eps) if self.config.variational else posterior.mean
        return self.decode(z), posterior


class ResidualBlock(nn.Module):
    """x + conv(norm(conv(norm(x)))) (He et al. 2016, pre-activation), (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class ResidualDense(nn.Module):
    """x + linear(silu(linear(norm(x)))), (B, D) -> (B, D)."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear1, self.linear2 = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.linear2(F.silu(self.linear1(self.norm(x))))
