"""What every training can be told: the optimizer, the averages of weights, the run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from triptych.config.base import DataConfig
from triptych.errors import check


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019), Muon (Jordan et al. 2024) beside it, or SGD, with warm-up and decay."""

    name: Literal["adamw", "muon", "sgd"] = "adamw"
    """The kind of optimizer. "muon": hidden weight matrices by Muon, the rest by AdamW; fewer images to the same loss,
    more work per update; "sgd": with Nesterov's momentum."""

    lr: float = 2e-4
    """Learning rate; of "muon" that of what AdamW trains."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the two moving averages of adamw; of sgd the first is the momentum."""

    eps: float = 1e-8
    """Added to the denominator of adamw."""

    weight_decay: float = 0.01
    """Decoupled weight decay (Loshchilov & Hutter 2019)."""

    muon_lr: float = 0.02
    """Learning rate of Muon's share."""

    muon_momentum: float = 0.95
    """Momentum of Muon's share."""

    lr_schedule: Literal["constant", "cosine", "linear", "warmup_stable_decay"] = "cosine"
    """Shape of the learning rate after warm-up, over num_updates (names of diffusers.optimization); or
    "warmup_stable_decay": constant, then to zero over the last num_decay_updates (Haegele et al. 2024)."""

    num_warmup_updates: int = 500
    """Updates over which the learning rate rises from 0."""

    num_decay_updates: int = 0
    """The last so many updates, in which warmup_stable_decay lowers the rate to 0; a fifth to a quarter of num_updates
    is usual."""

    max_grad_norm: float | None = 1.0
    """Gradients are scaled down to this global L2 norm; null = never."""

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
    """Decay of the average at most; 0.999 remembers about 1,000 updates."""

    power: float = 0.75
    """Decay at update k is min(decay, 1 - (1 + k) ** -power): short runs are not dominated by their start."""

    def __post_init__(self) -> None:
        check(0 <= self.decay < 1, "ema.decay must lie in [0, 1)")
        check(self.power > 0, "ema.power must be positive")


@dataclass(frozen=True)
class PowerAverageConfig:
    """Averages kept beside the checkpoints, so that their width can be chosen afterwards (``training/averages.py``)."""

    widths: tuple[float, ...] = ()
    """Standard deviations of the averages' profiles, as fractions of training, such as [0.05, 0.1]; empty = none."""

    snapshot_every: int = 0
    """Updates between two snapshots; 0 = only at the end."""

    def __post_init__(self) -> None:
        check(all(0 < w < 0.28 for w in self.widths), "power_averages.widths must lie between 0 and 0.28")
        check(len(set(self.widths)) == len(self.widths), "power_averages.widths must differ")
        check(self.snapshot_every >= 0, "power_averages.snapshot_every must be 0 or more")


@dataclass(frozen=True)
class RunConfig:
    """Bookkeeping. Nothing here changes what is learned, so all of it may change when a run is resumed."""

    output_dir: str = "runs"
    """Runs are written to <output_dir>/<name>."""

    checkpoint_every: int = 1000
    """Updates between two checkpoints."""

    keep_checkpoints: int = 2
    """So many of the newest checkpoints are kept."""

    log_every: int = 50
    """Updates between two rows of log.jsonl."""

    stop_if_collapsed: bool = True
    """Stop when the loss has risen back to where it began and stays there for four rows of the log, and name the last
    checkpoint of before."""

    sample_every: int = 1000
    """Updates between sample grids; 0 = only at the end."""

    tracker: str | None = "tensorboard"
    """Any tracker accelerate knows by name (tensorboard, wandb, mlflow, ...); null = log.jsonl alone."""

    num_threads: int | None = None
    """Torch threads per process on a CPU; null = all cores, shared by the processes of this machine."""

    progress: bool = True
    """Show a progress bar."""

    push_to: str | None = None
    """A Hub repository, "user/name", to publish the finished run in; whether that is possible is asked before
    training."""

    push_private: bool = False
    """Make that repository a private one."""

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
class ExperimentConfig:
    """What every experiment has."""

    name: str = "experiment"
    """The run's name, and its folder's."""

    resume: str | None = None
    """ "latest", or the folder of one checkpoint, also of another run; null = start a new run."""

    data: DataConfig = field(default_factory=DataConfig)
    """The images to train on."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How the weights are updated."""

    ema: EmaConfig = field(default_factory=EmaConfig)
    """The moving average of the weights, which is what is sampled and saved."""

    run: RunConfig = field(default_factory=RunConfig)
    """Where the run is written, and how often."""

    batch_size: int = 128
    """Images per process and forward pass; an update sees batch_size * gradient_accumulation_steps * processes."""

    gradient_accumulation_steps: int = 1
    """Forward passes whose gradients make one update."""

    num_updates: int = 10_000
    """Optimizer updates in all."""

    seed: int = 0
    """Of all random numbers: weights, order of the images, noise."""

    def __post_init__(self) -> None:
        check(bool(re.fullmatch(r"[\w.-]+", self.name)), "name may hold letters, digits, '.', '_' and '-' only")
        check(self.batch_size >= 1, "batch_size must be at least 1")
        check(self.gradient_accumulation_steps >= 1, "gradient_accumulation_steps must be at least 1")
        check(self.num_updates >= 1, "num_updates must be at least 1")
