"""What a variational autoencoder can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from triptych.config.training import EmaConfig, ExperimentConfig
from triptych.errors import check


@dataclass(frozen=True)
class VaeModelConfig:
    """The network of ``models/vae.py``; image size and channels are those of the data."""

    latent_dim: int = 2
    """Latent variables."""

    architecture: Literal["conv", "mlp"] = "conv"
    """The kind of network: convolutions ("conv") around a residual dense trunk, or the textbook's one hidden layer each
    way ("mlp")."""

    hidden_channels: tuple[int, int] = (32, 64)
    """Of "conv": widths at half and at quarter resolution."""

    layers_per_block: int = 0
    """Of "conv": residual blocks at each of these resolutions."""

    bottleneck_channels: int = 12
    """Of "conv": channels at quarter resolution that the dense trunk sees."""

    hidden_dim: int = 192
    """Width of the hidden layer ("mlp"), or of the dense trunk between convolutions and latent variables ("conv")."""

    num_dense_blocks: int = 3
    """Of "conv": residual blocks of the trunk, each way."""

    variational: bool = True
    """False = a plain autoencoder: no sampling, no KL."""

    def __post_init__(self) -> None:
        check(self.latent_dim >= 1, "model.latent_dim must be at least 1")
        check(all(c >= 8 and c % 8 == 0 for c in self.hidden_channels), "model.hidden_channels: multiples of 8")
        check(self.layers_per_block >= 0, "model.layers_per_block must be 0 or more")
        check(self.bottleneck_channels >= 1, "model.bottleneck_channels must be at least 1")
        check(self.hidden_dim >= 1, "model.hidden_dim must be at least 1")
        check(self.num_dense_blocks >= 0, "model.num_dense_blocks must be 0 or more")


@dataclass(frozen=True)
class VaeConfig(ExperimentConfig):
    """Variational autoencoder: ``scripts/train_vae.py``."""

    name: str = "vae"
    """The run's name, and its folder's."""

    model: VaeModelConfig = field(default_factory=VaeModelConfig)
    """The network."""

    ema: EmaConfig = field(default_factory=lambda: EmaConfig(decay=0.999))
    """The moving average of the weights, which is what is sampled and saved."""

    likelihood: Literal["bernoulli", "binarized_bernoulli", "gaussian"] = "bernoulli"
    """The distribution p(x | z): Bernoulli on grey pixels, on pixels drawn black or white anew each time, or
    Gaussian."""

    sigma: float | None = None
    """Standard deviation of the Gaussian, pixels in [0, 1]; null = learned, one number (Rybkin et al. 2021)."""

    kl_weight: float = 1.0
    """Weight of the KL divergence (Higgins et al. 2017); 1 = the ELBO."""

    num_kl_warmup_updates: int = 0
    """Updates over which that weight grows from 0 (Bowman et al. 2016)."""

    free_bits: float = 0.0
    """Nats each latent dimension may spend for nothing (Kingma et al. 2016)."""

    validation_split: str | None = None
    """A split to measure the ELBO on while training, with the averaged weights; null = none. Nothing is chosen by
    it."""

    validate_every: int = 0
    """Updates between two such measurements, a multiple of run.log_every; 0 = only at the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.sigma is None or self.sigma > 0, "sigma must be positive")
        check(self.kl_weight >= 0, "kl_weight must be 0 or more")
        check(self.num_kl_warmup_updates >= 0, "num_kl_warmup_updates must be 0 or more")
        check(self.free_bits >= 0, "free_bits must be 0 or more")
        check(self.validate_every >= 0, "validate_every must be 0 or more")
        check(self.validate_every % self.run.log_every == 0, "validate_every must be a multiple of run.log_every")
