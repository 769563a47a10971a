"""What the denoising GAN can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from triptych.config.base import NoiseConfig
from triptych.config.training import EmaConfig, ExperimentConfig, OptimizerConfig
from triptych.errors import check


@dataclass(frozen=True)
class GeneratorConfig:
    """The restoring U-Net of ``models/gan.py``; channels are those of the data."""

    block_out_channels: tuple[int, ...] = (64, 128)
    """Widths, a level each; every level below the first halves the resolution."""

    layers_per_block: int = 2
    """Residual blocks of a level, each way."""

    pixel_unshuffle: int = 2
    """Fold p x p pixels into channels at the entrance: cheaper by about p^2 (1 = off)."""

    prediction_type: Literal["noise", "sample"] = "noise"
    """What the network answers: the "noise", which is subtracted from its input, or the clean "sample"."""

    bias: bool = False
    """Without biases a network generalises better to noise levels it has not seen (Mohan et al. 2020)."""

    def __post_init__(self) -> None:
        check(len(self.block_out_channels) >= 1, "generator.block_out_channels needs at least one level")
        check(all(c >= 1 for c in self.block_out_channels), "generator.block_out_channels must be positive")
        check(self.layers_per_block >= 1, "generator.layers_per_block must be at least 1")
        check(self.pixel_unshuffle >= 1, "generator.pixel_unshuffle must be at least 1")


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The patch discriminator of ``models/gan.py``."""

    block_out_channels: tuple[int, ...] = (64, 128, 256)
    """Widths; every level but the first halves the resolution."""

    conditional: bool = False
    """See the noisy image too; otherwise it judges by what clean images look like alone."""

    def __post_init__(self) -> None:
        check(len(self.block_out_channels) >= 1, "discriminator.block_out_channels needs at least one level")
        check(all(c >= 1 for c in self.block_out_channels), "discriminator.block_out_channels must be positive")


@dataclass(frozen=True)
class GanConfig(ExperimentConfig):
    """Restoration by a generator against a discriminator: ``scripts/train_gan.py``."""

    name: str = "gan"
    """The run's name, and its folder's."""

    crop_size: int | None = None
    """Side of the random squares cut from images of any sizes; null = the images are square and all alike."""

    paired: bool = False
    """The data holds pairs, in folders "noisy" and "clean" under the same names; no noise is then added."""

    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """How clean images are degraded."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """The network that restores."""

    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    """The network that tells restored images from clean ones."""

    generator_init: str | None = None
    """A saved denoiser whose weights the generator starts from, such as a regression's (Wang et al. 2018, ESRGAN)."""

    discriminator_optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(betas=(0.5, 0.9)))
    """How the discriminator is updated; `optimizer` is of the generator."""

    ema: EmaConfig = field(default_factory=lambda: EmaConfig(decay=0.999))
    """The moving average of the weights, which is what is sampled and saved."""

    reconstruction: Literal["l1", "l2", "charbonnier"] = "charbonnier"
    """Distance of the restored image from the clean one."""

    reconstruction_weight: float = 1.0
    """Its weight in the generator's loss."""

    adversarial: Literal["non_saturating", "least_squares", "hinge", "relativistic"] = "relativistic"
    """The loss of the game between generator and discriminator (triptych/losses/gan.py)."""

    adversarial_weight: float = 0.01
    """Its weight in the generator's loss; 0 = plain regression, without a discriminator."""

    feature_matching_weight: float = 0.0
    """Weight of the distance between the discriminator's features of clean and restored images; 0 = off."""

    r1_weight: float = 0.0
    """Weight of the penalty on the discriminator's gradient at clean images (Mescheder et al. 2018); 0 = off."""

    r1_every: int = 16
    """Steps between two applications of that penalty."""

    num_discriminator_warmup_updates: int = 0
    """Updates in which the discriminator learns while the generator minimises the reconstruction alone."""

    horizontal_flip: bool = False
    """Mirror every other image at random: for photographs, not for digits."""

    num_samples: int = 8
    """Images in the grids drawn while training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("reconstruction_weight", "adversarial_weight", "feature_matching_weight", "r1_weight"):
            check(getattr(self, key) >= 0, f"{key} must be 0 or more")
        check(self.crop_size is None or self.crop_size >= 8, "crop_size must be at least 8")
        check(not self.paired or self.crop_size is not None, "paired images may be of any sizes: set crop_size too")
        check(
            self.reconstruction_weight + self.adversarial_weight > 0,
            "reconstruction_weight and adversarial_weight are both 0: there is nothing to learn",
        )
        check(
            self.adversarial_weight > 0 or self.feature_matching_weight == 0,
            "feature_matching_weight needs a discriminator: set adversarial_weight above 0",
        )
        check(self.r1_every >= 1, "r1_every must be at least 1")
        check(self.num_discriminator_warmup_updates >= 0, "num_discriminator_warmup_updates must be 0 or more")
        check(self.num_samples >= 1, "num_samples must be at least 1")
