"""Images noised to a step t of the diffusion and brought back by the network: what of them survives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from tqdm.auto import tqdm

from triptych.data.image_set import ImageSet, to_images, to_unit_interval
from triptych.errors import UserError
from triptych.evaluation.judges import Judge
from triptych.evaluation.scores import load_metric
from triptych.evaluation.similarity import psnr, ssim
from triptych.evaluation.statistics import with_intervals
from triptych.losses.diffusion import diffuse, signal_to_noise
from triptych.measures import MEASURES
from triptych.seeds import keyed_generator

QUANTITIES = {key: MEASURES[key].column for key in ("psnr", "ssim", "perceptual_distance")} | {"kept": "class kept"}


@dataclass
class PartialDiffusion:
    """The forward process up to a step t, and back by the scheduler of a pipeline (SDEdit, Meng et al. 2022).

    Attributes:
        pipe: a class-conditional pipeline, on its device.
        images: what is noised; the network is told their classes.
        num_inference_steps: steps back from the last training step; from an earlier t in proportion.
        guidance_scale: 1 = no guidance.
        seed: of the noise; an image's is a function of (seed, its index) alone, the same at every t.
    """

    pipe: DiffusionPipeline
    images: ImageSet
    num_inference_steps: int
    guidance_scale: float
    seed: int

    def snr_db(self, t: int) -> float:
        """The signal-to-noise ratio at t, in decibels."""
        return float(10 * signal_to_noise(self.pipe.scheduler.alphas_cumprod[t]).clamp(min=1e-12).log10())

    def noise_and_denoise(self, indices: list[int], t: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x_0 in [0, 1], x_t in about [-1, 1], and what x_t is denoised to, in [0, 1]: (B, C, H, W) each."""
        batch, scheduler = self.images.__getitems__(indices), self.pipe.scheduler
        x0 = to_images(batch["pixels"])
        eps = [torch.randn(x0.shape[1:], generator=keyed_generator("eps", self.seed, index)) for index in indices]
        x_t = diffuse(
            x0 / self.pipe.config.data_std, torch.stack(eps), scheduler.alphas_cumprod[torch.full((len(x0),), t)].to(x0)
        )
        steps = max(1, round(self.num_inference_steps * (t + 1) / scheduler.config.num_train_timesteps))
        denoised = self.pipe(
            batch["labels"].tolist(),
            guidance_scale=self.guidance_scale,
            timesteps=np.unique(np.linspace(t, 0, steps + 1)[:-1].round().astype(int))[::-1].tolist(),
            latents=x_t,
            generator=[keyed_generator("back", self.seed, index) for index in indices],
            output_type="pt",
        ).images
        return to_unit_interval(batch["pixels"]), x_t, denoised


def first_of_each_class(images: ImageSet, count: int, setting: str = "num_images_per_class") -> list[int]:
    """Indices of the first `count` images of each class, class by class.

    Args:
        images: with classes.
        count: of each.
        setting: what asked for them, for the message that there are too few.

    Raises:
        UserError: a class has fewer.
    """
    labels = images.__getitems__(range(len(images)))["labels"]
    found = [torch.nonzero(labels == k).flatten()[:count].tolist() for k in range(len(images.class_names))]
    if min(map(len, found)) < count:
        raise UserError(f"{setting} {count}: a class has only {min(map(len, found))} images.")
    return [index for of_class in found for index in of_class]


def measure_reconstruction(
    diffusion: PartialDiffusion, critic: Judge, indices: list[int], t: int, batch_size: int
) -> dict[str, Any]:
    """QUANTITIES of the images at `indices` after noising to `t` and back: means with 95 % intervals, also by class.

    "kept" is the share of images that the judge still puts into their class.
    """
    perceptual = load_metric("perceptual_distance")
    class_names = diffusion.images.class_names
    judged = torch.tensor([critic.class_names.index(name) for name in class_names])
    each: dict[str, list[float]] = {key: [] for key in QUANTITIES}
    labels: list[int] = []
    for first in tqdm(range(0, len(indices), batch_size), desc=f"t = {t}", unit="batch"):
        batch = indices[first : first + batch_size]
        of_batch = diffusion.images.__getitems__(batch)["labels"]
        x0, _, denoised = diffusion.noise_and_denoise(batch, t)
        pair = {"predictions": denoised.numpy(), "references": x0.numpy()}
        distance = perceptual.compute(**pair, feature_maps=critic.feature_maps, features=critic.name)
        each["psnr"] += psnr(x0, denoised).tolist()
        each["ssim"] += ssim(x0, denoised).tolist()
        each["perceptual_distance"] += distance["each"]
        each["kept"] += (critic(denoised)["logits"].argmax(1) == judged[of_batch]).double().tolist()
        labels += of_batch.tolist()
    row: dict[str, Any] = with_intervals(each)
    by_class = np.array(labels)
    row["per_class"] = {name: {"n": int((by_class == k).sum())} for k, name in enumerate(class_names)}
    for k, of_class in enumerate(row["per_class"].values()):
        of_class |= with_intervals({key: np.array(values)[by_class == k] for key, values in each.items()})
    return row
