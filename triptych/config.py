"""Typed experiment configurations: defaults and their reasons here, experiments in ``configs/*.yaml``.

Everything can be overridden from the command line by its dotted name (``--optimizer.lr 1e-4``); unknown
or ill-typed keys are refused before any work begins. Parsing is jsonargparse's.
"""

from __future__ import annotations

import dataclasses
import difflib
import errno
import io
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import jsonargparse
import yaml

T = TypeVar("T")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, somebody's share of it, what a process may write


class UserError(Exception):
    """Something the user can mend. Its text is one paragraph: what is wrong, where, and what to do."""


def check(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless `condition`; jsonargparse turns it into a command-line error."""
    if not condition:
        raise ValueError(message)


def check_interval(interval: tuple[float, float] | None, setting: str) -> None:
    """The same for noise levels between which something is done."""
    low, high = interval or (0, 1)
    check(0 <= low < high, f"{setting} must be [low, high] with 0 <= low < high")


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from and how they are read."""

    # "digits" (embedded), a Hub id ("uoft-cs/cifar10"), a local dataset or image folder, or a .zip of images
    path: str = "digits"
    # of a folder or zip: its folders train, validation and test at the top; without them, all is "train"
    split: str = "train"
    # columns; null = found by name and type ("image" or "img"; "label")
    image_column: str | None = None
    label_column: str | None = None
    # 1 (grey) or 3 (RGB); null = 3 if any image has colours
    channels: Literal[1, 3] | None = None
    # side in pixels to which images are resized; null = refuse images that are not square and all alike
    image_size: int | None = None
    # a file that cannot be decoded: name it and stop, or name it, count it and go on without it
    on_corrupt: Literal["refuse", "skip"] = "refuse"
    # decoded sets up to this size are held in memory as uint8; larger ones are decoded as they stream
    memory_limit_mb: int = 2048
    # loader processes; 0 is best for sets held in memory
    num_workers: int = 0

    def __post_init__(self) -> None:
        check(self.image_size is None or self.image_size >= 4, "data.image_size must be at least 4")
        check(self.num_workers >= 0, "data.num_workers must be 0 or more")
        check(self.memory_limit_mb >= 0, "data.memory_limit_mb must be 0 or more")


@dataclass(frozen=True)
class NoiseConfig:
    """How clean images are spoiled (``triptych/noise.py``). Each level is a range, drawn from anew for every image."""

    # one after the other; two or more make a mixture
    kinds: tuple[Literal["gaussian", "poisson", "salt_and_pepper", "speckle"], ...] = ("gaussian",)
    # "gaussian": standard deviation, of 255
    sigma: tuple[float, float] = (25.0, 25.0)
    # "poisson": photons of a white pixel; fewer are noisier
    peak: tuple[float, float] = (30.0, 30.0)
    # "salt_and_pepper": fraction of pixels that become black or white
    amount: tuple[float, float] = (0.1, 0.1)
    # "speckle": standard deviation of the factor
    speckle: tuple[float, float] = (0.3, 0.3)
    # clip to [0, 255] and round, as saving to a file does; false keeps Gaussian noise Gaussian
    clip: bool = False

    def __post_init__(self) -> None:
        check(len(self.kinds) >= 1, "noise.kinds needs at least one kind")
        bounds = {"sigma": (0, 255), "peak": (0.1, 1e6), "amount": (0, 1), "speckle": (0, 10)}
        for name, (least, most) in bounds.items():
            low, high = getattr(self, name)
            check(
                least <= low <= high <= most,
                f"noise.{name} must be a range [low, high] within [{least}, {most:g}], not [{low:g}, {high:g}]",
            )

    def describe(self) -> str:
        """For people: "gaussian (sigma 0-55)", the kinds in their order."""
        levels = {"gaussian": "sigma", "poisson": "peak", "salt_and_pepper": "amount", "speckle": "speckle"}

        def level(name: str) -> str:
            low, high = getattr(self, name)
            return f"{name} {low:g}" if low == high else f"{name} {low:g}-{high:g}"

        return ", then ".join(f"{kind} ({level(levels[kind])})" for kind in self.kinds) + (
            ", in 8 bits" if self.clip else ""
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019), Muon (Jordan et al. 2024) beside it, or SGD, with warm-up and decay."""

    # "muon": hidden weight matrices by Muon, the rest by AdamW; fewer images to the same loss, more work per update;
    # "sgd": with Nesterov's momentum
    name: Literal["adamw", "muon", "sgd"] = "adamw"
    lr: float = 2e-4
    # "sgd": the first is the momentum
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    # learning rate and momentum of Muon's share
    muon_lr: float = 0.02
    muon_momentum: float = 0.95
    # shape of the learning rate after warm-up, over num_updates (names of diffusers.optimization); or
    # "warmup_stable_decay": constant, then to zero over the last num_decay_updates (Haegele et al. 2024)
    lr_schedule: Literal["constant", "cosine", "linear", "warmup_stable_decay"] = "cosine"
    num_warmup_updates: int = 500
    # "warmup_stable_decay" alone: a fifth to a quarter of num_updates is usual
    num_decay_updates: int = 0
    # gradients are scaled down to this global L2 norm; null = never
    max_grad_norm: float | None = 1.0

    def __post_init__(self) -> None:
        check(self.lr > 0, "optimizer.lr must be positive")
        check(self.muon_lr > 0, "optimizer.muon_lr must be positive")
        check(0 <= self.muon_momentum < 1, "optimizer.muon_momentum must lie in [0, 1)")
        check(all(0 <= b < 1 for b in self.betas), "optimizer.betas must lie in [0, 1)")
        check(self.weight_decay >= 0, "optimizer.weight_decay must be 0 or more")
        check(self.num_warmup_updates >= 0, "optimizer.num_warmup_updates must be 0 or more")
        check(self.num_decay_updates >= 0, "optimizer.num_decay_updates must be 0 or more")
        check(
            self.num_decay_updates == 0 or self.lr_schedule == "warmup_stable_decay",
            "optimizer.num_decay_updates belongs to optimizer.lr_schedule warmup_stable_decay",
        )
        check(self.max_grad_norm is None or self.max_grad_norm > 0, "optimizer.max_grad_norm must be positive")


@dataclass(frozen=True)
class EmaConfig:
    """Moving average of the weights (diffusers' ``EMAModel``); the averaged weights are what is sampled and saved."""

    decay: float = 0.9999
    # decay at update k is min(decay, 1 - (1 + k) ** -power): short runs are not dominated by their start
    power: float = 0.75

    def __post_init__(self) -> None:
        check(0 <= self.decay < 1, "ema.decay must lie in [0, 1)")
        check(self.power > 0, "ema.power must be positive")


@dataclass(frozen=True)
class PowerAverageConfig:
    """Averages kept beside the checkpoints, so that their width can be chosen afterwards (``triptych/averages.py``)."""

    # standard deviations of the averages' profiles, as fractions of training, such as [0.05, 0.1]; empty = none
    widths: tuple[float, ...] = ()
    # updates between two snapshots; 0 = only at the end
    snapshot_every: int = 0

    def __post_init__(self) -> None:
        check(all(0 < w < 0.28 for w in self.widths), "power_averages.widths must lie between 0 and 0.28")
        check(len(set(self.widths)) == len(self.widths), "power_averages.widths must differ")
        check(self.snapshot_every >= 0, "power_averages.snapshot_every must be 0 or more")


@dataclass(frozen=True)
class RunConfig:
    """Bookkeeping. Nothing here changes what is learned, so all of it may change when a run is resumed."""

    # runs are written to <output_dir>/<name>
    output_dir: str = "runs"
    checkpoint_every: int = 1000
    # the newest N checkpoints are kept
    keep_checkpoints: int = 2
    log_every: int = 50
    # updates between sample grids; 0 = only at the end
    sample_every: int = 1000
    # any tracker accelerate knows by name (tensorboard, wandb, mlflow, ...); null = log.jsonl alone
    tracker: str | None = "tensorboard"
    # torch threads per process on a CPU; null = all cores, shared by the processes of this machine
    num_threads: int | None = None
    progress: bool = True
    # a Hub repository, "user/name", to publish the finished run in; whether that is possible is asked before training
    push_to: str | None = None
    # make that repository a private one
    push_private: bool = False

    def __post_init__(self) -> None:
        check(self.checkpoint_every >= 1, "run.checkpoint_every must be at least 1")
        check(self.keep_checkpoints >= 1, "run.keep_checkpoints must be at least 1")
        check(self.log_every >= 1, "run.log_every must be at least 1")
        check(self.sample_every >= 0, "run.sample_every must be 0 or more")
        check(self.num_threads is None or self.num_threads >= 1, "run.num_threads must be at least 1")
        check(
            self.push_to is None or bool(re.fullmatch(r"[\w.-]+/[\w.-]+", self.push_to)),
            f"run.push_to must be the name of a repository, user/name, not {self.push_to}",
        )


@dataclass(frozen=True)
class UNetConfig:
    """The layout of diffusers' ``UNet2DModel``; block types follow from ``attention_resolutions``."""

    block_out_channels: tuple[int, ...] = (128, 256, 256, 256)
    layers_per_block: int = 2
    # feature-map sides at which self-attention is added, counted after pixel_unshuffle
    attention_resolutions: tuple[int, ...] = (16,)
    attention_head_dim: int = 64
    # "scale_shift": time and class scale and shift each normalised feature (Dhariwal & Nichol 2021, AdaGN)
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    dropout: float = 0.0
    norm_num_groups: int = 32

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
    beta_start: float = 1e-4
    beta_end: float = 0.02
    num_train_timesteps: int = 1000
    # what the network predicts: eps, v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0, or x0
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    # rescale the betas so that the last step is pure noise (Lin et al. 2024)
    zero_terminal_snr: bool = False

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

    # "uniform": all alike (Ho et al. 2020); "log_normal": the t nearest to a sigma with ln sigma ~ N(mean, std^2), the
    # noise on images in [-1, 1] (Karras et al. 2022, table 1); "importance": as often as the loss weights them, and all
    # errors then count alike: the same objective, with less noise in its gradient
    distribution: Literal["uniform", "log_normal", "importance"] = "uniform"
    mean: float = -1.2
    std: float = 1.2
    # spread the levels of a batch evenly over the distribution (Kingma et al. 2021, appendix I.1)
    stratified: bool = False

    def __post_init__(self) -> None:
        check(self.std > 0, "noise_levels.std must be positive")


@dataclass(frozen=True)
class SamplingConfig:
    """How the trained model draws when nobody says otherwise: saved as the pipeline's defaults."""

    # a scheduler class of diffusers: one of those that triptych.schedules.FITTING lists
    scheduler: str = "DPMSolverMultistepScheduler"
    num_inference_steps: int = 25
    # arguments of that class beside the trained ones, such as {algorithm_type: sde-dpmsolver++}
    scheduler_settings: dict[str, Any] = field(default_factory=dict)
    # uncond + guidance_scale * (cond - uncond); 1 = no guidance (Ho & Salimans 2022)
    guidance_scale: float = 2.0
    # guide at these noise levels alone, sigma on images in [-1, 1] (Kynkaanniemi et al. 2024); null = at all
    guidance_interval: tuple[float, float] | None = None
    # images per class in the grids drawn while training
    num_per_class: int = 8

    def __post_init__(self) -> None:
        check(self.num_inference_steps >= 1, "sampling.num_inference_steps must be at least 1")
        check(self.guidance_scale >= 0, "sampling.guidance_scale must be 0 or more")
        check_interval(self.guidance_interval, "sampling.guidance_interval")
        check(self.num_per_class >= 1, "sampling.num_per_class must be at least 1")


@dataclass(frozen=True)
class ExperimentConfig:
    """What every experiment has."""

    # the run's name, and its folder's
    name: str = "experiment"
    # "latest", or the folder of one checkpoint; null = start a new run
    resume: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    run: RunConfig = field(default_factory=RunConfig)
    # images per process and forward pass; an update sees batch_size * gradient_accumulation_steps * processes
    batch_size: int = 128
    gradient_accumulation_steps: int = 1
    # optimizer updates in all
    num_updates: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        check(bool(re.fullmatch(r"[\w.-]+", self.name)), "name may hold letters, digits, '.', '_' and '-' only")
        check(self.batch_size >= 1, "batch_size must be at least 1")
        check(self.gradient_accumulation_steps >= 1, "gradient_accumulation_steps must be at least 1")
        check(self.num_updates >= 1, "num_updates must be at least 1")


@dataclass(frozen=True)
class DiffusionConfig(ExperimentConfig):
    """Class-conditional diffusion: ``scripts/train_diffusion.py``."""

    name: str = "diffusion"
    num_updates: int = 200_000
    unet: UNetConfig = field(default_factory=UNetConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    # a saved pipeline of the same layout and prediction type whose weights the network starts from
    unet_init: str | None = None
    noise_levels: NoiseLevelConfig = field(default_factory=NoiseLevelConfig)
    power_averages: PowerAverageConfig = field(default_factory=PowerAverageConfig)
    # the network sees images / data_std. 0.5 is about the standard deviation of photographs in [-1, 1], and v is then
    # what a network under the preconditioning of Karras et al. 2022 predicts (1 = as they are)
    data_std: float = 1.0
    # scales the class embeddings before training: at 1 they are far larger than those of t that they are added to
    class_embedding_scale: float = 1.0
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    # fold p x p pixels into channels before the network: cheaper by about p^2 (1 = off)
    pixel_unshuffle: int = 1
    # fraction of labels replaced by the null class, so that one network learns both (Ho & Salimans 2022)
    label_dropout: float = 0.1
    # min-SNR-gamma loss weighting (Hang et al. 2023); null = the plain mean squared error
    min_snr_gamma: float | None = None
    horizontal_flip: bool = False

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
    # a saved class-conditional pipeline with v-prediction; the student begins as its copy
    teacher: str = ""
    # steps in which the student draws
    num_inference_steps: int = 8
    # the teacher's DDIM steps for each of them; 2 in Salimans & Ho 2022
    num_teacher_steps: int = 2
    # of the teacher, which the student learns to draw like without (Meng et al. 2023); null = the teacher's own
    guidance_scale: float | None = None
    guidance_interval: tuple[float, float] | None = None
    horizontal_flip: bool = False
    # images per class in the grids drawn while training
    num_per_class: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.teacher), "teacher is missing: name a saved pipeline, as in --teacher FOLDER")
        check(self.num_inference_steps >= 1, "num_inference_steps must be at least 1")
        check(self.num_teacher_steps >= 2, "num_teacher_steps must be at least 2: with 1 there is nothing to learn")
        check(self.guidance_scale is None or self.guidance_scale >= 0, "guidance_scale must be 0 or more")
        check_interval(self.guidance_interval, "guidance_interval")
        check(self.num_per_class >= 1, "num_per_class must be at least 1")


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


@dataclass(frozen=True)
class GeneratorConfig:
    """The restoring U-Net of ``models/gan.py``; channels are those of the data."""

    # widths, a level each; every level below the first halves the resolution
    block_out_channels: tuple[int, ...] = (64, 128)
    # residual blocks of a level, each way
    layers_per_block: int = 2
    # fold p x p pixels into channels at the entrance: cheaper by about p^2 (1 = off)
    pixel_unshuffle: int = 2
    # "noise": the network's answer is subtracted from its input; "sample": it is the clean image
    prediction_type: Literal["noise", "sample"] = "noise"
    # without biases a network generalises better to noise levels it has not seen (Mohan et al. 2020)
    bias: bool = False

    def __post_init__(self) -> None:
        check(len(self.block_out_channels) >= 1, "generator.block_out_channels needs at least one level")
        check(all(c >= 1 for c in self.block_out_channels), "generator.block_out_channels must be positive")
        check(self.layers_per_block >= 1, "generator.layers_per_block must be at least 1")
        check(self.pixel_unshuffle >= 1, "generator.pixel_unshuffle must be at least 1")


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The patch discriminator of ``models/gan.py``."""

    # widths; every level but the first halves the resolution
    block_out_channels: tuple[int, ...] = (64, 128, 256)
    # see the noisy image too; otherwise it judges by what clean images look like alone
    conditional: bool = False

    def __post_init__(self) -> None:
        check(len(self.block_out_channels) >= 1, "discriminator.block_out_channels needs at least one level")
        check(all(c >= 1 for c in self.block_out_channels), "discriminator.block_out_channels must be positive")


@dataclass(frozen=True)
class GanConfig(ExperimentConfig):
    """Restoration by a generator against a discriminator: ``scripts/train_gan.py``."""

    name: str = "gan"
    # side of the random squares cut from images of any sizes; null = the images are square and all alike
    crop_size: int | None = None
    # the data holds pairs, in folders "noisy" and "clean" under the same names; nothing is then spoiled
    paired: bool = False
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    # a saved denoiser whose weights the generator starts from, such as a regression's (Wang et al. 2018, ESRGAN)
    generator_init: str | None = None
    # of the discriminator; `optimizer` is the generator's
    discriminator_optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(betas=(0.5, 0.9)))
    ema: EmaConfig = field(default_factory=lambda: EmaConfig(decay=0.999))
    # distance from the clean image, and its weight
    reconstruction: Literal["l1", "l2", "charbonnier"] = "charbonnier"
    reconstruction_weight: float = 1.0
    # the game (triptych/losses.py), and its weight in the generator's loss; 0 = plain regression, no discriminator
    adversarial: Literal["non_saturating", "least_squares", "hinge", "relativistic"] = "relativistic"
    adversarial_weight: float = 0.01
    # distance between the discriminator's features of clean and restored images
    feature_matching_weight: float = 0.0
    # gradient penalty of the discriminator on clean images, and the steps between two applications
    r1_weight: float = 0.0
    r1_every: int = 16
    # updates in which the discriminator learns while the generator minimises the reconstruction alone
    num_discriminator_warmup_updates: int = 0
    horizontal_flip: bool = False
    # images in the grids drawn while training
    num_samples: int = 8

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


@dataclass(frozen=True)
class ClassifierModelConfig:
    """The layout of transformers' ``ResNetForImageClassification``; channels and classes are those of the data."""

    # width of the stem, which halves the (enlarged) image twice
    embedding_size: int = 64
    # widths of the stages, each but the first halving the resolution once more, and the residual blocks of each
    hidden_sizes: tuple[int, ...] = (128, 256, 512)
    depths: tuple[int, ...] = (1, 1, 1)
    # "basic": two 3x3 convolutions a block (He et al. 2016, fig. 5 left); "bottleneck": 1x1, 3x3, 1x1 (right)
    layer_type: Literal["basic", "bottleneck"] = "basic"

    def __post_init__(self) -> None:
        check(self.embedding_size >= 1, "model.embedding_size must be at least 1")
        check(len(self.hidden_sizes) >= 1, "model.hidden_sizes needs at least one stage")
        check(all(c >= 4 for c in self.hidden_sizes), "model.hidden_sizes must be at least 4")
        check(len(self.depths) == len(self.hidden_sizes), "model.depths needs one number for each of hidden_sizes")
        check(all(d >= 1 for d in self.depths), "model.depths must be at least 1")


@dataclass(frozen=True)
class ClassifierConfig(ExperimentConfig):
    """The judge, an image classifier: ``scripts/train_classifier.py``."""

    name: str = "classifier"
    model: ClassifierModelConfig = field(default_factory=ClassifierModelConfig)
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(name="sgd", lr=0.1, weight_decay=5e-4, lr_schedule="linear")
    )
    ema: EmaConfig = field(default_factory=lambda: EmaConfig(decay=0.999))
    # images are enlarged so many times before the stem, here and in the saved image processor
    upsample: int = 2
    # the stem's kernels are principal patches of the training images and stay so (triptych.whitening); false = learned
    whitened_stem: bool = False
    # train on every other image alone, so that a judge of what was trained on the rest has seen none of it; null = all
    half: Literal["even", "odd"] | None = None
    # what the other classes share of the target (Szegedy et al. 2016, section 7)
    label_smoothing: float = 0.1
    # images are shifted by up to so many pixels each way, what enters being a reflection; 0 = off
    max_shift: int = 2
    horizontal_flip: bool = False
    # side of a square that is blotted out at a random place (DeVries & Taylor 2017); 0 = off
    cutout: int = 0
    # the last so many updates blot nothing out: images as they will be judged, at the smallest steps (He et al. 2019,
    # "Data augmentation revisited")
    num_refining_updates: int = 0
    # the split whose accuracy is measured while training and for scores.json. Nothing is chosen by it
    validation_split: str = "test"
    # updates between two measurements, a multiple of run.log_every; 0 = only at the end
    validate_every: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.upsample >= 1, "upsample must be at least 1")
        check(0 <= self.label_smoothing < 1, "label_smoothing must lie in [0, 1)")
        check(self.max_shift >= 0, "max_shift must be 0 or more")
        check(self.cutout >= 0, "cutout must be 0 or more")
        check(self.num_refining_updates >= 0, "num_refining_updates must be 0 or more")
        check(self.validate_every >= 0, "validate_every must be 0 or more")
        check(self.validate_every % self.run.log_every == 0, "validate_every must be a multiple of run.log_every")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain nested dicts and lists, ready for YAML; what ``--config`` reads back."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return plain(dataclasses.asdict(config))


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def listed(text: str | None, separator: str = ",") -> list[str]:
    """ "a, b" from the command line, as a list without blanks and empty parts."""
    return [part.strip() for part in (text or "").split(separator) if part.strip()]


def named_folders(text: str, argument: str, taken: Collection[str] = ()) -> dict[str, str]:
    """ "a=folder,b=folder" from the command line, by name.

    Args:
        text: what was given.
        argument: what it was given as, for the errors.
        taken: names that mean something else.

    Raises:
        UserError: it is of another form, or a name is given twice or is one of `taken`.
    """
    parts = [part.split("=", 1) for part in listed(text)]
    if any(len(part) != 2 or not all(part) for part in parts):
        raise UserError(f"{argument} must be name=folder, several separated by commas, not {text!r}.")
    folders = dict(parts)
    if set(taken) & folders.keys() or len(folders) < len(parts):
        none_of = f", and none of {', '.join(taken)}" if taken else ""
        raise UserError(f"{argument}: the names clash. Every name must be its own{none_of}.")
    return folders


def command(main: Callable[..., Any], parameters: type[T] | Callable[..., Any] | None = None) -> None:
    """Run `main` from the command line; whatever goes wrong is told in one paragraph.

    With a config dataclass as `parameters`, its fields become the flags (and ``--config FILE``,
    ``--print_config``) and `main` receives the instance; without, the flags are `main`'s own parameters.

    A :class:`UserError`, and what a model or a metric refuses, leave with exit code 2, Ctrl-C with 130, any other
    exception with 1 and the path of a file that holds the traceback. With TRIPTYCH_TRACEBACK=1 in the environment the
    traceback is shown in all these cases.
    """
    run: Path | None = None
    try:
        given = _from_command_line(main, parameters)
        run = _run_of(given.get("config"))
        main(**given)
    except KeyboardInterrupt as error:
        _leave(error, f"Stopped by Ctrl-C.{_what_is_kept(run)}", 130)
    except UserError as error:
        _leave(error, f"error: {plain(error)}", 2)
    except Exception as error:
        if _is_refusal(error):
            _leave(error, f"error: {plain(error)}", 2)
        _leave(error, f"error: {_explain(error)}{_what_is_kept(run)} {tell_traceback(error, run)}", 1)


def _from_command_line(main: Callable[..., Any], parameters: type[T] | Callable[..., Any] | None) -> dict[str, Any]:
    """The arguments of `main`."""
    parser = jsonargparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile, help="a YAML file of these settings")
    if parameters is None:
        parser.add_function_arguments(main, as_positional=True)
    else:
        parser.add_class_arguments(parameters)
    parser.error = lambda message, *_: _refuse(parser, str(message))  # type: ignore[method-assign]
    files = _config_files()
    for file in files:
        _refuse_unless_settings(file)
    arguments = parser.parse_args()
    try:
        values = parser.instantiate(arguments).as_dict()
        values.pop("config", None)
        if parameters is None:
            return values
        return {"config": _in_its_folder(parameters(**values), files)}
    except ValueError as error:  # of a __post_init__ above
        raise UserError(str(error)) from None


def _config_files() -> list[Path]:
    """What ``--config`` names, in order."""
    files, arguments = [], sys.argv[1:]
    for k, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag == "--config" and (equals or k + 1 < len(arguments)):
            files.append(Path(value if equals else arguments[k + 1]))
    return files


def _refuse_unless_settings(file: Path) -> None:
    """A file of settings that is empty, torn or something else is named; one that isn't there, by the parser."""
    if not file.is_file():
        return
    try:
        problem = "" if isinstance(yaml.safe_load(file.read_text()), dict) else "it is empty or a list, not settings"
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = plain(error)
    except OSError as error:
        problem = error.strerror
    if problem:
        copies = sorted(file.parent.glob(f"checkpoints/update_*/{file.name}"))
        hint = f" The run's last checkpoint holds a copy: --config {copies[-1]}, with the same flags." if copies else ""
        raise UserError(f"--config {file} cannot be read as settings: {problem}.{hint}")


def _in_its_folder(config: Any, files: list[Path]) -> Any:
    """`config`, moved to the run's folder where a run is resumed by its own ``config.yaml``: the folder may have been
    renamed or moved since, or named from another directory. What the command line says of either counts more."""
    said = {argument.partition("=")[0] for argument in sys.argv[1:]} & {"--name", "--run", "--run.output_dir"}
    if said or not files or getattr(config, "resume", None) is None:
        return config
    folder = files[-1].parent if files[-1].parent.name not in ("", "..") else files[-1].absolute().parent
    if folder.name.startswith("update_") and folder.parent.name == "checkpoints":  # the copy in a checkpoint
        folder = folder.absolute().parent.parent
    is_run = any((folder / part).exists() for part in ("checkpoints", "timing.jsonl"))
    here = Path(config.run.output_dir) / config.name
    if not is_run or folder.resolve() == here.resolve():
        return config
    print(f"note: going on in {folder}, where its settings say {here}.", file=sys.stderr)
    run = dataclasses.replace(config.run, output_dir=str(folder.parent))
    return dataclasses.replace(config, name=folder.name, run=run)


# ---- what to say of an exception -----------------------------------------------------------------


def _is_refusal(error: Exception) -> bool:
    """Whether :func:`check` raised it, or a file of ``models/`` or ``metrics/``, or its copy in a saved pipeline: they
    say by a ValueError what of their input is wrong and how to mend it."""
    frame = next(reversed([frame for frame, _ in traceback.walk_tb(error.__traceback__)]), None)
    module = frame.f_globals.get("__name__", "") if frame else ""
    ours = module.partition(".")[0] in ("models", "diffusers_modules", "evaluate_modules")
    return type(error) is ValueError and (ours or frame.f_code is check.__code__)


def plain(error: BaseException) -> str:
    """The text of an exception without the traceback that those of worker processes carry in it."""
    text = str(error).strip()
    if "Traceback (most recent call last)" in text:
        return " ".join(re.split(r"^[\w.]+(?:Error|Exception|Interrupt|Exit): ?", text, flags=re.MULTILINE)[-1].split())
    return text if isinstance(error, UserError) else " ".join(text.split())[:600]


def tell_traceback(error: BaseException, folder: Path | None) -> str:
    """Save the traceback in the run's `folder`, or where files that nobody keeps are, and say where it is."""
    name = f"traceback_{time.strftime('%Y%m%d_%H%M%S')}_{os.getpid()}.txt"
    text = f"{' '.join(sys.argv)}\n\n{''.join(traceback.format_exception(error))}\n"
    is_run = folder is not None and (folder / "config.yaml").exists()
    for place in (folder, None) if is_run else (None,):
        with suppress(OSError):
            path = (place or Path(tempfile.gettempdir())) / name
            with path.open("a") as file:
                file.write(text)
            return f"The traceback is in {path}."
    return "The traceback could not be saved; TRIPTYCH_TRACEBACK=1 in the environment shows it."


def _explain(error: Exception) -> str:
    """What was being done, what happened, and what can be done: for exceptions that nobody foresaw."""
    number, path = _errno_of(error), _path_of(error)
    at = f" at {path}" if path else ""
    if number in FULL:
        return f"{os.strerror(number)}{at}. Make room there or have it written elsewhere, and run this again."
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{os.strerror(number)}{at}. Make it readable and writable for you, or name another place."
    if number is not None and path:
        return f"{os.strerror(number)}{at}. Name another place, or mend what is there."
    where = _where(error)
    what = f"{Path(sys.argv[0]).name} stopped{where} with {type(error).__name__}: {plain(error) or 'no message'}"
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        return f"{what}. The memory does not suffice: a smaller batch_size needs less."
    return f"{what}{'' if what.endswith(('.', '!', '?')) else '.'} If that does not tell what to mend, report it."


def _where(error: Exception) -> str:
    """The innermost function of ours that the exception passed through."""
    root = Path(__file__).resolve().parents[1]
    rooms = [root / room for room in ("metrics", "models", "scripts", "triptych")]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if frame.name != "command" and any(path.is_relative_to(room) for room in rooms):
            return f" in {frame.name} ({path.relative_to(root)}, line {frame.lineno})"
    return ""


def _errno_of(error: Exception) -> int | None:
    """The operating system's number of what went wrong; libraries in Rust hide it in the text."""
    if isinstance(error, OSError):
        return error.errno
    hidden = re.search(r"\(os error (\d+)\)", str(error))
    return int(hidden.group(1)) if hidden else None


def _path_of(error: Exception) -> str | None:
    """The file at which an operation failed: the exception's own, or the one that was open in the innermost function.

    A write that fails names no file.
    """
    if isinstance(error, OSError) and error.filename is not None:
        return str(error.filename)
    if _errno_of(error) not in (*FULL, errno.EIO):
        return None
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for value in (value for frame in reversed(frames) for value in reversed(frame.f_locals.values())):
        name = getattr(value, "name", None) if isinstance(value, io.IOBase) else value
        if isinstance(name, Path) or (isinstance(name, str) and os.sep in name and "\n" not in name):
            return str(name)
    return None


def _run_of(config: Any) -> Path | None:
    """The folder of the training that `config` is about."""
    return Path(config.run.output_dir) / config.name if isinstance(config, ExperimentConfig) else None


def _what_is_kept(run: Path | None) -> str:
    """Where a training that was interrupted goes on."""
    newest = max(run.glob("checkpoints/update_*"), default=None) if run is not None else None
    return f" What was trained up to {newest} is kept; --resume latest goes on from there." if newest else ""


def _leave(error: BaseException, message: str, code: int) -> NoReturn:
    if os.environ.get("TRIPTYCH_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exception(error)
    print(f"\n{message}", file=sys.stderr)
    sys.exit(code)


def _refuse(parser: jsonargparse.ArgumentParser, message: str) -> None:
    """Print a parser's complaint with the nearest known key, and leave."""
    known = [action.dest for action in parser._actions if action.dest]
    unknown = re.search(r"key ['\"]?([\w.]+)|unrecognized arguments: --([\w.]+)", message, re.IGNORECASE)
    hint = ""
    if unknown:
        name = unknown.group(1) or unknown.group(2)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near and name not in known else ""
    print(f"\nerror: {' '.join(message.split())}{hint} All settings: --help, --print_config.", file=sys.stderr)
    sys.exit(2)


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings of a saved ``config.yaml``."""
    return yaml.safe_load(path.read_text())


def write_yaml(config: Any, path: Path) -> None:
    """Save a config dataclass as YAML, in the order of its fields, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
    partial.replace(path)
