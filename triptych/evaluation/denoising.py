"""How well a diffusion network denoises real images, at fixed levels of noise."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline

from triptych.data.image_set import to_images
from triptych.evaluation.work_sharing import join
from triptych.losses.diffusion import diffuse, predicted_x0
from triptych.seeds import keyed_generator

SIGMAS = (0.05, 0.1, 0.2, 0.45, 1.0, 2.0, 5.0, 14.0)  # sqrt((1 - alpha_bar) / alpha_bar), images in [-1, 1]


@torch.no_grad()
def denoising_errors(
    pipe: DiffusionPipeline, batch: dict[str, torch.Tensor], with_labels: bool, batch_size: int, seed: int
) -> list[float]:
    """Mean squared error of E[x_0 | x_t] at SIGMAS, for images in [-1, 1]; the noise is a function of the seed alone.

    Between two steps t the network is asked at the t in between, so that sigma is the same for every schedule.
    Processes of one ``accelerate launch`` must all call it: each takes a share of the images, and all get the answer.

    Args:
        pipe: a class-conditional pipeline, on its device.
        batch: "pixels", uint8 (N, C, H, W), and "labels", (N,).
        with_labels: whether the network is told the classes.
        batch_size: images at once.
        seed: of the noise.
    """
    processes = join()
    alphas, scale = pipe.scheduler.alphas_cumprod.double(), pipe.config.data_std
    log_sigma = (((1 - alphas) / alphas).sqrt() * scale).log().numpy()
    x0 = to_images(batch["pixels"])
    eps = torch.randn(x0.shape, generator=keyed_generator("denoised", seed))
    null = torch.full_like(batch["labels"], len(pipe.class_names))
    labels, p = batch["labels"] if with_labels else null, pipe.config.pixel_unshuffle
    errors = []
    for sigma in SIGMAS:
        t = float(np.interp(np.log(sigma), log_sigma, np.arange(len(log_sigma))))
        alpha_bar = torch.full((batch_size,), 1 / (1 + (sigma / scale) ** 2))
        total = 0.0
        for first in range(0, len(x0), batch_size)[processes.index :: processes.count]:
            part = slice(first, first + batch_size)
            a = alpha_bar[: len(x0[part])]
            x_t = F.pixel_unshuffle(diffuse(x0[part] / scale, eps[part], a), p).to(pipe.unet.device)
            output = pipe.unet(x_t, t, class_labels=labels[part].to(x_t.device)).sample
            kind = pipe.scheduler.config.prediction_type
            estimate = F.pixel_shuffle(predicted_x0(output.cpu(), x_t.cpu(), a, kind), p) * scale
            total += float((estimate - x0[part]).square().mean((1, 2, 3)).sum())
        errors.append(sum(processes.gather(total)) / len(x0))
    return errors
