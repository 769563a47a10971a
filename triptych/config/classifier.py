"""What the judge, an image classifier, can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from triptych.config.training import EmaConfig, ExperimentConfig, OptimizerConfig
from triptych.errors import check


@dataclass(frozen=True)
class ClassifierModelConfig:
    """The layout of one of transformers' image classifiers; channels and classes are those of the data."""

    model_type: Literal["resnet", "convnext"] = "resnet"
    """By transformers' names: "resnet", residual blocks of 3x3 convolutions and batch normalisation (He et al. 2016);
    "convnext", 7x7 convolutions within a channel, 1x1 between them, and layer normalisation (Liu et al. 2022)."""

    embedding_size: int = 64
    """Width of a resnet's stem, which halves the (enlarged) image twice."""

    patch_size: int = 4
    """Side of the patches of the (enlarged) image that a convnext's stem makes positions of."""

    hidden_sizes: tuple[int, ...] = (128, 256, 512)
    """Widths of the stages; each but the first halves the resolution once more."""

    depths: tuple[int, ...] = (1, 1, 1)
    """Residual blocks of each stage."""

    layer_type: Literal["basic", "bottleneck"] = "basic"
    """Of a resnet: "basic", two 3x3 convolutions a block (He et al. 2016, fig. 5 left); "bottleneck", 1x1, 3x3, 1x1
    (right)."""

    drop_path_rate: float = 0.0
    """How often the last block of a convnext is left out in training, those before it in proportion (Huang et al.
    2016)."""

    layer_scale_init_value: float = 0.1
    """What a convnext's blocks count at first. Liu et al. begin with 1e-6, for trainings of hundreds of epochs."""

    def __post_init__(self) -> None:
        check(self.embedding_size >= 1, "model.embedding_size must be at least 1")
        check(self.patch_size >= 1, "model.patch_size must be at least 1")
        check(len(self.hidden_sizes) >= 1, "model.hidden_sizes needs at least one stage")
        check(all(c >= 4 for c in self.hidden_sizes), "model.hidden_sizes must be at least 4")
        check(len(self.depths) == len(self.hidden_sizes), "model.depths needs one number for each of hidden_sizes")
        check(all(d >= 1 for d in self.depths), "model.depths must be at least 1")
        check(0 <= self.drop_path_rate < 1, "model.drop_path_rate must lie in [0, 1)")

    def settings(self) -> dict[str, Any]:
        """Those that transformers' configuration of this ``model_type`` has."""
        shared = {"model_type": self.model_type, "hidden_sizes": self.hidden_sizes, "depths": self.depths}
        if self.model_type == "resnet":
            return shared | {"embedding_size": self.embedding_size, "layer_type": self.layer_type}
        own = {"patch_size": self.patch_size, "num_stages": len(self.depths), "drop_path_rate": self.drop_path_rate}
        return shared | own | {"layer_scale_init_value": self.layer_scale_init_value}


@dataclass(frozen=True)
class ClassifierConfig(ExperimentConfig):
    """The judge, an image classifier: ``scripts/train_classifier.py``."""

    name: str = "classifier"
    """The run's name, and its folder's."""

    model: ClassifierModelConfig = field(default_factory=ClassifierModelConfig)
    """The network."""

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(name="sgd", lr=0.1, weight_decay=5e-4, lr_schedule="linear")
    )
    """How the weights are updated."""

    ema: EmaConfig = field(default_factory=lambda: EmaConfig(decay=0.999))
    """The moving average of the weights, which is what is sampled and saved."""

    upsample: int = 2
    """Images are enlarged so many times before the stem, here and in the saved image processor."""

    whitened_stem: bool = False
    """The stem's kernels are principal patches of the training images and stay so (whitening.py); false = learned."""

    half: Literal["even", "odd"] | None = None
    """Train on every other image alone, so that a judge of what was trained on the rest has seen none of it; null =
    all."""

    label_smoothing: float = 0.1
    """What the other classes share of the target (Szegedy et al. 2016, section 7)."""

    max_shift: int = 2
    """Images are shifted by up to so many pixels each way, what enters being a reflection; 0 = off."""

    horizontal_flip: bool = False
    """Mirror every other image at random."""

    cutout: int = 0
    """Side of a square that is erased at a random place (DeVries & Taylor 2017); 0 = off."""

    num_refining_updates: int = 0
    """The last so many updates erase nothing: images as they will be judged, at the smallest steps (He et al. 2019,
    "Data augmentation revisited")."""

    validation_split: str = "test"
    """The split whose accuracy is measured while training and for scores.json. Nothing is chosen by it."""

    validate_every: int = 0
    """Updates between two measurements, a multiple of run.log_every; 0 = only at the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.upsample >= 1, "upsample must be at least 1")
        check(0 <= self.label_smoothing < 1, "label_smoothing must lie in [0, 1)")
        check(self.max_shift >= 0, "max_shift must be 0 or more")
        check(self.cutout >= 0, "cutout must be 0 or more")
        check(self.num_refining_updates >= 0, "num_refining_updates must be 0 or more")
        check(self.validate_every >= 0, "validate_every must be 0 or more")
        check(self.validate_every % self.run.log_every == 0, "validate_every must be a multiple of run.log_every")
