"""Degraded images, and what restores them: classical methods, denoisers, VAEs, diffusion; one signature for all.

A restorer takes noisy images, a list of (C, H, W) around [0, 1], and the noise's standard deviation on that scale, or
None where it is not one number, and returns the restored ones, in [0, 1].
"""

from __future__ import annotations

from triptych.cli import named_folders

import inspect
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput

from triptych.config.base import DataConfig, NoiseConfig
from triptych.data.degradations import degrade_by_index
from triptych.data.image_set import ImageSet, to_unit_interval
from triptych.data.photos import load_photos
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation import classical
from triptych.pipelines.store import load_pipeline, weights_hash
from triptych.seeds import keyed_generator

Restore = Callable[[list[torch.Tensor], float | None], list[torch.Tensor]]


@dataclass
class DegradedImages:
    """Clean images and their noisy versions; the noise of each is a function of (seed, its index)."""

    images: ImageSet
    noise: NoiseConfig | None  # None: the images are pairs
    seed: int

    @property
    def sigma(self) -> float | None:
        """The standard deviation of the noise on the scale of [0, 1], where it is one number."""
        noise = self.noise
        if noise is None or noise.kinds != ("gaussian",) or noise.sigma[0] != noise.sigma[1]:
            return None
        return noise.sigma[0] / 255

    def chunks(self, count: int, size: int = 500) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
        """The first `count` images, `size` at a time: lists of clean ones, (C, H, W) in [0, 1], and of noisy ones."""
        for first in range(0, count, size):
            indices = range(first, min(first + size, count))
            pixels = [to_unit_interval(self.images.whole(index)) for index in indices]
            if self.noise is None:
                yield tuple(map(list, zip(*(pair.chunk(2) for pair in pixels), strict=True)))
            else:
                noisy = (
                    degrade_by_index(image[None] * 2 - 1, [index], self.noise, self.seed)[0] / 2 + 0.5
                    for image, index in zip(pixels, indices, strict=True)
                )
                yield pixels, list(noisy)


def tuned_strength(name: str, tuning: DegradedImages, count: int, pool: ProcessPoolExecutor) -> float:
    """The best strength of a classical method on images that are not measured."""
    chunks = list(tuning.chunks(min(count, len(tuning.images))))
    clean, noisy = (as_arrays([image for chunk in chunks for image in chunk[part]]) for part in (0, 1))
    return classical.tune(name, clean, noisy, tuning.sigma, pool)


def classical_restorer(name: str, strength: float, pool: ProcessPoolExecutor) -> Restore:
    """A classical method as a restorer, working in the processes of `pool`."""

    def restore(noisy: list[torch.Tensor], sigma: float | None) -> list[torch.Tensor]:
        done = classical.restore_all(name, strength, as_arrays(noisy), sigma, pool)
        return [torch.from_numpy(image).permute(2, 0, 1) for image in done]

    return restore


def as_arrays(images: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """(C, H, W) -> (H, W, C), of each."""
    return [image.permute(1, 2, 0).numpy() for image in images]


def load_restorers(
    models: str,
    diffusion_steps: Sequence[int] = (25,),
    posterior_draws: Sequence[int] = (),
    seed: int = 0,
    device: str | torch.device | None = None,
) -> dict[str, tuple[Restore, dict]]:
    """Saved pipelines as restorers: denoisers; VAEs, for which restoring is reconstructing; and diffusion pipelines.

    Args:
        models: "a=folder,b=folder", from the command line.
        diffusion_steps: of a diffusion pipeline, which is told sigma and no class: 1 gives the mean of the clean images
            that fit, more where the scheduler it was saved with leads from there. Each number makes a restorer of its
            own.
        posterior_draws: of a diffusion pipeline: the mean of that many draws from the posterior, by DDPM in the largest
            number of `diffusion_steps`. The squared error of K draws' mean is 1 + 1/K times that of the posterior's
            mean, where the draws are exact: 3 dB more for one draw, 1.2 dB for three.
        seed: of what the schedulers draw.
        device: where they compute, the best there is if not given; images come and go on the CPU.

    Returns:
        By name ("b, 25 steps", "b, 1 draw", "b, mean of 3 draws" for diffusion): a restorer, and the entries that tell
        its rows from others.

    Raises:
        UserError: `models` is malformed, or a folder holds no pipeline that restores.
    """
    restorers: dict[str, tuple[Restore, dict]] = {}
    for name, folder in named_folders(models, "models", taken=("noisy", *classical.METHODS)).items():
        pipe, facts = load_pipeline(folder).to(find_device(device)), {"weights": weights_hash(folder)}
        restore = find_restore(pipe, folder)
        if "num_inference_steps" in inspect.signature(restore).parameters:
            for steps in diffusion_steps:
                title = f"{name}, {steps} step" + "s" * (steps > 1)
                restorers[title] = diffusion_restorer(pipe, steps, seed), facts | {"diffusion_steps": steps}
            for draws in posterior_draws:
                title = f"{name}, 1 draw" if draws == 1 else f"{name}, mean of {draws} draws"
                restore = diffusion_restorer(pipe, max(diffusion_steps), seed, draws)
                restorers[title] = restore, facts | {"diffusion_steps": max(diffusion_steps), "posterior_draws": draws}
        else:
            restorers[name] = one_pass_restorer(pipe, restore), facts
    return restorers


def find_restore(pipe: DiffusionPipeline, folder: str) -> Callable:
    """The pipeline's ``restore(images, sigma)``, or what did the same in folders saved before all of them had it.

    Raises:
        UserError: it restores nothing.
    """
    if hasattr(pipe, "restore"):
        return pipe.restore
    if hasattr(pipe, "reconstruct"):
        return lambda images, sigma, output_type: BaseOutput(images=pipe.reconstruct(images.clamp(0, 1)))
    if "images" in inspect.signature(pipe.__call__).parameters:
        return lambda images, sigma, output_type: pipe(images, output_type=output_type)
    raise UserError(
        f"{folder} is a {type(pipe).__name__}, which restores nothing. Give a denoiser, a VAE or a diffusion pipeline."
    )


def one_pass_restorer(pipe: DiffusionPipeline, restore: Callable) -> Restore:
    """A pipeline that restores in one pass as a restorer; one of a fixed :attr:`image_shape` takes only such images."""
    fixed = hasattr(pipe, "image_shape")
    return lambda noisy, sigma: list(restore(stack(noisy, pipe) if fixed else noisy, sigma, output_type="pt").images)


def stack(images: list[torch.Tensor], pipe: DiffusionPipeline) -> torch.Tensor:
    """Images (C, H, W) as a batch for `pipe`.

    Raises:
        UserError: one isn't of the size that it takes.
    """
    for image in images:
        if tuple(image.shape) != tuple(pipe.image_shape):
            raise UserError(
                f"A {type(pipe).__name__} restores images of {tuple(pipe.image_shape)}, not {tuple(image.shape)}. Set "
                f"data.image_size and data.channels, or leave it out of models."
            )
    return torch.stack(images)


def diffusion_restorer(
    pipe: DiffusionPipeline, num_inference_steps: int, seed: int, posterior_draws: int | None = None
) -> Restore:
    """A diffusion pipeline as a restorer: the reverse process from the step whose noise is as strong as the images'.

    Args:
        pipe: of class-conditional diffusion; it is told no class.
        num_inference_steps: steps back, at most.
        seed: what is drawn for an image depends on it, on the number of the draw, and on the image's own pixels, not on
            those restored beside it.
        posterior_draws: the mean of so many draws by DDPM; None = once, by the scheduler that the pipeline was saved
            with.

    Raises:
        UserError: the pipeline was saved before it could restore by DDPM.
    """
    pipe.set_progress_bar_config(disable=True)
    restore = inspect.signature(pipe.restore).parameters
    if posterior_draws is not None and "scheduler" not in restore:
        raise UserError("posterior_draws: the pipeline's code is older than its restore by DDPM. Save it anew.")

    def reverse(noisy: list[torch.Tensor], sigma: float | None) -> list[torch.Tensor]:
        if sigma is None:
            raise UserError("A diffusion pipeline restores Gaussian noise of one known sigma, nothing else.")
        arguments = {"num_inference_steps": num_inference_steps, "output_type": "pt"}
        if posterior_draws is None and "scheduler" in restore:  # folders with older code know no other
            arguments["scheduler"] = pipe.scheduler
        done: list[torch.Tensor] = []
        for batch in stack(noisy, pipe).split(100):
            own = [zlib.crc32(image.numpy().tobytes()) for image in batch]
            drawn = (
                pipe.restore(batch, sigma, generator=[keyed_generator("restore", seed, k, i) for i in own], **arguments)
                for k in range(posterior_draws or 1)
            )
            done += torch.stack([output.images for output in drawn]).mean(dim=0)
        return done

    return reverse


def load_any_images(data: DataConfig, any_size: bool, paired: bool) -> ImageSet:
    """Images of one size, or of any sizes, or pairs of a clean and a noisy image."""
    return load_photos(data, paired=paired) if any_size or paired else load_images(data)


def make_levels(sigmas: list[float] | None, noise: NoiseConfig | None, paired: bool) -> dict[str, NoiseConfig | None]:
    """The degradations to measure, by title: Gaussian noise of given levels, another noise, or that of pairs of images.

    Raises:
        UserError: two of them are given, or a sigma is out of range.
    """
    if sum((sigmas is not None, noise is not None, paired)) > 1:
        raise UserError("Give sigmas, noise or paired, not two of them.")
    if paired:
        return {"pairs": None}
    if noise is not None:
        return {noise.describe(): noise}
    try:
        return {f"sigma {sigma:g}": NoiseConfig(sigma=(sigma, sigma)) for sigma in sigmas or (15, 25, 50)}
    except ValueError as error:
        raise UserError(f"sigmas: {error}") from None
