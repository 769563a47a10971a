"""What diffusion can be told: the network, the noise, the sampler, distillation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from triptych.config.training import ExperimentConfig, PowerAverageConfig
from triptych.errors import UserError, check, check_interval


@dataclass(frozen=True)
class UNetConfig:
    """The layout of diffusers' ``UNet2DModel``; block types follow from ``attention_resolutions``."""

    block_out_channels: tuple[int, ...] = (128, 256, 256, 256)
    """Widths of the levels; each but the last halves the resolution."""

    layers_per_block: int = 2
    """Residual blocks of a level on the way down (one more on the way up)."""

    attention_resolutions: tuple[int, ...] = (16,)
    """Feature-map sides at which self-attention is added, counted after pixel_unshuffle."""

    attention_head_dim: int = 64
    """Channels of one attention head."""

    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    """How time and class enter: "scale_shift" scales and shifts each normalised feature (Dhariwal & Nichol 2021,
    AdaGN), "default" adds."""

    dropout: float = 0.0
    """Fraction of features dropped in the residual blocks while training."""

    norm_num_groups: int = 32
    """Groups of the group normalisation; must divide every width."""

    def __post_init__(self) -> None:
        check(len(self.block_out_channels) >= 1, "unet.block_out_channels needs at least one level")
        for channels in self.block_out_channels:
            check(
                channels % self.norm_num_groups == 0,
                f"unet.block_out_channels: {channels} is not a multiple of unet.norm_num_groups "
                f"({self.norm_num_groups})",
            )
        check(self.layers_per_block >= 1, "unet.layers_per_block must be at least 1")
        check(self.attention_head_dim >= 1, "unet.attention_head_dim must be at least 1")
        check(0 <= self.dropout < 1, "unet.dropout must lie in [0, 1)")

    def arguments(self, image_size: int, channels: int, pixel_unshuffle: int) -> dict[str, Any]:
        """Constructor arguments of ``UNet2DModel`` for images of `image_size` pixels and `channels` channels.

        Raises:
            UserError: the image cannot be halved as often as the network asks.
        """
        depth = len(self.block_out_channels)
        divisor = pixel_unshuffle * 2 ** (depth - 1)
        if image_size % divisor:
            raise UserError(
                f"A {image_size}x{image_size} image cannot pass this network: pixel_unshuffle {pixel_unshuffle} and "
                f"{depth} levels halve it to a fraction of a pixel. Set data.image_size to a multiple of {divisor}, "
                f"or give unet.block_out_channels fewer levels."
            )
        sides = [image_size // pixel_unshuffle // 2**level for level in range(depth)]
        attends = [side in self.attention_resolutions for side in sides]
        unknown = sorted(set(self.attention_resolutions) - set(sides))
        if unknown:
            raise UserError(
                f"unet.attention_resolutions names {unknown}, but the feature maps of this network are {sides} "
                f"pixels wide. Choose among those."
            )
        return {
            "sample_size": image_size // pixel_unshuffle,
            "in_channels": channels * pixel_unshuffle**2,
            "out_channels": channels * pixel_unshuffle**2,
            "block_out_channels": self.block_out_channels,
            "layers_per_block": self.layers_per_block,
            "down_block_types": tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            "up_block_types": tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
            "attention_head_dim": self.attention_head_dim,
            "resnet_time_scale_shift": self.resnet_time_scale_shift,
            "dropout": self.dropout,
            "norm_num_groups": self.norm_num_groups,
        }


@dataclass(frozen=True)
class ScheduleConfig:
    """The forward process (Ho et al. 2020; Nichol & Dhariwal 2021): how fast images turn into noise."""

    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"] = "linear"
    """How the noise grows with t (names of DDPMScheduler); squaredcos_cap_v2 is the cosine of Nichol & Dhariwal
    2021."""

    beta_start: float = 1e-4
    """Variance added in the first step; the cosine schedule has its own."""

    beta_end: float = 0.02
    """Variance added in the last step; the cosine schedule has its own."""

    num_train_timesteps: int = 1000
    """Steps from image to noise, T."""

    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    """What the network predicts: eps, v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0, or x0."""

    zero_terminal_snr: bool = False
    """Rescale the betas so that the last step is pure noise (Lin et al. 2024)."""

    def __post_init__(self) -> None:
        check(0 < self.beta_start < self.beta_end < 1, "schedule: 0 < beta_start < beta_end < 1 must hold")
        check(self.num_train_timesteps >= 2, "schedule.num_train_timesteps must be at least 2")
        check(
            not (self.zero_terminal_snr and self.prediction_type == "epsilon"),
            "schedule.zero_terminal_snr: at the last step the input is pure noise and predicting it teaches "
            "nothing; use prediction_type v_prediction or sample",
        )


@dataclass(frozen=True)
class NoiseLevelConfig:
    """Which steps t of the forward process are trained on. Their errors are weighted by ``min_snr_gamma``."""

    distribution: Literal["uniform", "log_normal", "importance"] = "uniform"
    """ "uniform": every t alike (Ho et al. 2020); "log_normal": the t nearest to a sigma with ln sigma ~ N(mean,
    std^2), sigma = sqrt((1 - alpha_bar) / alpha_bar) (Karras et al. 2022); "importance": each t as often as the loss
    weights it, which is then constant."""

    mean: float = -1.2
    """Mean of ln sigma; log_normal alone."""

    std: float = 1.2
    """Standard deviation of ln sigma; log_normal alone."""

    stratified: bool = False
    """Spread the levels of a batch evenly over the distribution (Kingma et al. 2021, appendix I.1)."""

    def __post_init__(self) -> None:
        check(self.std > 0, "noise_levels.std must be positive")


@dataclass(frozen=True)
class SamplingConfig:
    """How the trained model draws when nobody says otherwise: saved as the pipeline's defaults."""

    scheduler: str = "DPMSolverMultistepScheduler"
    """A scheduler class of diffusers that can draw for this noise schedule, such as DDIMScheduler; a wrong name lists
    all."""

    num_inference_steps: int = 25
    """Steps of the sampler."""

    scheduler_settings: dict[str, Any] = field(default_factory=dict)
    """Arguments of that class beside the trained ones, such as {algorithm_type: sde-dpmsolver++}."""

    guidance_scale: float = 2.0
    """s in eps_uncond + s (eps_cond - eps_uncond); 1 = no guidance (Ho & Salimans 2022, whose w is s - 1)."""

    guidance_interval: tuple[float, float] | None = None
    """Guide at these noise levels alone, [low, high] in sigma on images in [-1, 1] (Kynkaanniemi et al. 2024); null =
    at all."""

    num_per_class: int = 8
    """Images per class in the grids drawn while training."""

    def __post_init__(self) -> None:
        check(self.num_inference_steps >= 1, "sampling.num_inference_steps must be at least 1")
        check(self.guidance_scale >= 0, "sampling.guidance_scale must be 0 or more")
        check_interval(self.guidance_interval, "sampling.guidance_interval")
        check(self.num_per_class >= 1, "sampling.num_per_class must be at least 1")


@dataclass(frozen=True)
class DiffusionConfig(ExperimentConfig):
    """Class-conditional diffusion: ``scripts/train_diffusion.py``."""

    name: str = "diffusion"
    """The run's name, and its folder's."""

    num_updates: int = 200_000
    """Optimizer updates in all."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    """The network's layout (UNet2DModel)."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The noise schedule (DDPMScheduler)."""

    unet_init: str | None = None
    """A saved pipeline of the same layout and prediction type whose weights the network starts from."""

    noise_levels: NoiseLevelConfig = field(default_factory=NoiseLevelConfig)
    """Which noise levels are trained how often."""

    power_averages: PowerAverageConfig = field(default_factory=PowerAverageConfig)
    """Averages of the weights whose width is chosen after training."""

    data_std: float = 1.0
    """The network sees images / data_std. 0.5 is about the standard deviation of photographs in [-1, 1], and v is
    then what a network under the preconditioning of Karras et al. 2022 predicts (1 = as they are)."""

    class_embedding_scale: float = 1.0
    """Scales the class embeddings before training; at 1 they are far larger than those of t, to which they are
    added."""

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How images are drawn while training and by the saved pipeline."""

    pixel_unshuffle: int = 1
    """Fold p x p pixels into channels before the network: cheaper by about p^2 (1 = off)."""

    label_dropout: float = 0.1
    """Fraction of labels replaced by the null class, so that one network learns both (Ho & Salimans 2022)."""

    min_snr_gamma: float | None = None
    """Min-SNR-gamma loss weighting (Hang et al. 2023); null = the plain mean squared error."""

    horizontal_flip: bool = False
    """Mirror every other image at random: for photographs, not for digits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.data_std > 0, "data_std must be positive")
        check(self.class_embedding_scale >= 0, "class_embedding_scale must be 0 or more")
        check(self.pixel_unshuffle >= 1, "pixel_unshuffle must be at least 1")
        check(0 <= self.label_dropout < 1, "label_dropout must lie in [0, 1)")
        check(self.min_snr_gamma is None or self.min_snr_gamma > 0, "min_snr_gamma must be positive")


@dataclass(frozen=True)
class DistillationConfig(ExperimentConfig):
    """A student that draws in fewer steps than its teacher: ``scripts/distill_diffusion.py``."""

    name: str = "distillation"
    """The run's name, and its folder's."""

    teacher: str = ""
    """A saved class-conditional pipeline with v-prediction; the student begins as its copy."""

    num_inference_steps: int = 8
    """Steps in which the student draws."""

    num_teacher_steps: int = 2
    """The teacher's DDIM steps for each of them; 2 in Salimans & Ho 2022."""

    guidance_scale: float | None = None
    """Guidance of the teacher, which the student learns to draw like without (Meng et al. 2023); null = its own."""

    guidance_interval: tuple[float, float] | None = None
    """Noise levels between which the teacher is guided, [low, high]; null = its own."""

    horizontal_flip: bool = False
    """Mirror every other image at random: for photographs, not for digits."""

    num_per_class: int = 8
    """Images per class in the grids drawn while training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.teacher), "teacher is missing: name a saved pipeline, as in --teacher FOLDER")
        check(self.num_inference_steps >= 1, "num_inference_steps must be at least 1")
        check(self.num_teacher_steps >= 2, "num_teacher_steps must be at least 2: with 1 there is nothing to learn")
        check(self.guidance_scale is None or self.guidance_scale >= 0, "guidance_scale must be 0 or more")
        check_interval(self.guidance_interval, "guidance_interval")
        check(self.num_per_class >= 1, "num_per_class must be at least 1")
