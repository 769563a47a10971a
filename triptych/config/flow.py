"""What rectified flow can be told: the network, the times it learns at, how it draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from triptych.config.diffusion import UNetConfig
from triptych.config.training import ExperimentConfig
from triptych.errors import check


@dataclass(frozen=True)
class TimeConfig:
    """The times t that are trained on; 0 is data, 1 is noise."""

    # "uniform" (Liu et al. 2023), or "logit_normal": logit(t) ~ N(mean, std^2) (Esser et al. 2024, section 3.1)
    distribution: Literal["uniform", "logit_normal"] = "logit_normal"
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        check(self.std > 0, "time.std must be positive")


@dataclass(frozen=True)
class FlowSamplingConfig:
    """How the trained model draws when nobody says otherwise: saved as the pipeline's defaults."""

    # Euler steps from noise to image
    num_inference_steps: int = 50
    # above 1 spends more of the steps near noise, as larger images want (Esser et al. 2024, eq. 23)
    shift: float = 1.0
    # uncond + guidance_scale * (cond - uncond); 1 = no guidance (Ho & Salimans 2022)
    guidance_scale: float = 2.0
    # images per class in the grids drawn while training
    num_per_class: int = 8

    def __post_init__(self) -> None:
        check(self.num_inference_steps >= 1, "sampling.num_inference_steps must be at least 1")
        check(self.shift > 0, "sampling.shift must be positive")
        check(self.guidance_scale >= 0, "sampling.guidance_scale must be 0 or more")
        check(self.num_per_class >= 1, "sampling.num_per_class must be at least 1")


@dataclass(frozen=True)
class FlowConfig(ExperimentConfig):
    """Class-conditional rectified flow: ``scripts/train_flow.py``."""

    name: str = "flow"
    num_updates: int = 200_000
    unet: UNetConfig = field(default_factory=UNetConfig)
    time: TimeConfig = field(default_factory=TimeConfig)
    sampling: FlowSamplingConfig = field(default_factory=FlowSamplingConfig)
    # fraction of labels replaced by the null class, so that one network learns both (Ho & Salimans 2022)
    label_dropout: float = 0.1
    horizontal_flip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 <= self.label_dropout < 1, "label_dropout must lie in [0, 1)")
