"""Draw the forward process: images of a data set at chosen steps of chosen schedules, with the SNR under each.

    python scripts/figures/forward_process.py --data.path uoft-cs/cifar10 --output runs/forward

Writes forward_process.png (the pictures) and schedules.png (alpha_bar and SNR against t).
"""

from __future__ import annotations

from triptych.cli import command

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from triptych.config.base import DataConfig
from triptych.config.diffusion import ScheduleConfig
from triptych.data.image_set import to_images
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.figures.charts import save_schedules
from triptych.figures.images import save_forward_process
from triptych.losses.diffusion import diffuse, signal_to_noise
from triptych.outputs import claim_folder
from triptych.pipelines.schedulers import make_noise_scheduler
from triptych.seeds import keyed_generator


def main(
    data: DataConfig = DataConfig(),  # noqa: B008 - frozen
    output: Path = Path("runs/forward_process"),
    schedules: list[Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]] | None = None,
    timesteps: list[int] | None = None,
    images: list[int] | None = None,
    num_train_timesteps: int = 1000,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    zero_terminal_snr: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Draw x_t for images of a data set.

    Args:
        data: where the images come from.
        output: folder for the figures.
        schedules: all four if not given.
        timesteps: steps to show, 0 to num_train_timesteps - 1; nine evenly spaced if not given.
        images: which images of the split; the first two if not given.
        num_train_timesteps: length T of the process.
        beta_start: first beta (linear, scaled_linear, sigmoid).
        beta_end: last beta (likewise).
        zero_terminal_snr: rescale the betas so that x_T is pure noise (Lin et al. 2024).
        seed: of the noise; each image keeps its noise over all steps and schedules.
        overwrite: write into an output folder that already holds something.
    """
    claim_folder(output, overwrite)
    schedules = schedules or ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]
    timesteps = timesteps or np.linspace(0, num_train_timesteps - 1, 9).round().astype(int).tolist()
    outside = [t for t in timesteps if not 0 <= t < num_train_timesteps]
    if outside:
        raise UserError(f"timesteps {outside} lie outside the process: 0 to {num_train_timesteps - 1}.")
    dataset = load_images(data)
    indices = images if images is not None else [0, 1]
    if not indices or not all(0 <= i < len(dataset) for i in indices):
        raise UserError(f"images must name rows of the data set, 0 to {len(dataset) - 1}; given: {indices}.")

    x0 = to_images(dataset.__getitems__(indices)["pixels"])  # (N, C, H, W) in [-1, 1]
    eps = torch.stack(
        [torch.randn(x.shape, generator=keyed_generator("noise", seed, i)) for i, x in zip(indices, x0, strict=True)]
    )
    curves = {}
    for name in schedules:
        config = ScheduleConfig(name, beta_start, beta_end, num_train_timesteps, "v_prediction", zero_terminal_snr)
        curves[name] = make_noise_scheduler(config).alphas_cumprod
    noisy = torch.stack(
        [torch.stack([diffuse(x0, eps, a[t].expand(len(x0))) for t in timesteps], 1) for a in curves.values()], 1
    )  # (images, schedules, steps, C, H, W)
    snr_db = torch.stack([10 * torch.log10(signal_to_noise(a[timesteps])) for a in curves.values()])
    pictures = (noisy / 2 + 0.5).clamp(0, 1).movedim(3, -1).numpy()
    first = save_forward_process(pictures, schedules, timesteps, snr_db.numpy(), output / "forward_process.png")
    second = save_schedules({k: a.numpy() for k, a in curves.items()}, timesteps, output / "schedules.png")
    print(f"{first}\n{second}")


if __name__ == "__main__":
    command(main)
