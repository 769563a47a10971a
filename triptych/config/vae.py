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
    # convolutions around a residual dense trunk, or the textbook's one hidden layer each way
    architecture: Literal["conv", "mlp"] = "conv"
    # "conv": widths at half and at quarter resolution, and residual blocks at each
    hidden_channels: tuple[int, int] = (32, 64)
    layers_per_block: int = 0
    # "conv": channels at quarter resolution that the dense trunk sees
    bottleneck_channels: int = 12
    # "mlp": the hidden layer; "conv": width of the dense trunk between convolutions and latent variables
    hidden_dim: int = 192
    # "conv": residual blocks of the trunk, each way
    num_dense_blocks: int = 3
    # false = a plain autoencoder: no sampling, no KL
    variational: bool = True

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
    model: VaeModelConfig = field(default_factory=VaeModelConfig)
    ema: EmaConfig = field(default_factory=lambda: EmaConfig(decay=0.999))
    # p(x | z): Bernoulli on grey pixels, on pixels drawn black or white anew each time, or Gaussian
    likelihood: Literal["bernoulli", "binarized_bernoulli", "gaussian"] = "bernoulli"
    # standard deviation of the Gaussian, pixels in [0, 1]; null = learned, one number (Rybkin et al. 2021)
    sigma: float | None = None
    # weight of the KL (Higgins et al. 2017) and the updates over which it grows from 0 (Bowman et al. 2016)
    kl_weight: float = 1.0
    num_kl_warmup_updates: int = 0
    # nats each latent dimension may spend for nothing (Kingma et al. 2016)
    free_bits: float = 0.0
    # a split to measure the ELBO on while training, with the averaged weights; null = none. Nothing is chosen by it
    validation_split: str | None = None
    # updates between two such measurements, a multiple of run.log_every; 0 = only at the end
    validate_every: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.sigma is None or self.sigma > 0, "sigma must be positive")
        check(self.kl_weight >= 0, "kl_weight must be 0 or more")
        check(self.num_kl_warmup_updates >= 0, "num_kl_warmup_updates must be 0 or more")
        check(self.free_bits >= 0, "free_bits must be 0 or more")
        check(self.validate_every >= 0, "validate_every must be 0 or more")
        check(self.validate_every % self.run.log_every == 0, "validate_every must be a multiple of run.log_every")
