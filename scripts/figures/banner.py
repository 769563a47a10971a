"""Draw what the three shipped pipelines do, side by side: the picture at the top of the README.

    python scripts/figures/banner.py --data.path uoft-cs/cifar10 --output runs/triptych.png

Nothing is picked: the VAE's plane is a grid of quantiles, the images to restore are the first of the data, and the
diffusion samples are those that scripts/generate.py numbers 0.
"""

from __future__ import annotations

from triptych.cli import command

from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.latents import decode_grid, prior_plane
from triptych.evaluation.restorers import DegradedImages, make_levels
from triptych.figures.images import save_panels
from triptych.outputs import claim_file
from triptych.pipelines.sampling import chosen_classes
from triptych.pipelines.store import load_pipeline
from triptych.seeds import image_generators

# Images on a side of each square: with 28 and 32 pixels all three come out as high to the pixel.
PLANE, RESTORED, EMERGING = 9, 3, 5
LEAST_STEPS = 6


def main(
    vae: str = "pretrained/vae-mnist-z2",
    denoiser: str = "pretrained/denoiser-cifar10",
    diffusion: str = "pretrained/cifar10-class-conditional",
    data: DataConfig = DataConfig("uoft-cs/cifar10", split="test"),  # noqa: B008 - frozen
    output: Path = Path("runs/triptych.png"),
    sigma: float = 50.0,
    classes: list[str | int] | str | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    device: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Draw the triptych.

    Args:
        vae: folder of a saved VAE with two latent variables, or a Hub id.
        denoiser: folder of a saved denoiser, or a Hub id.
        diffusion: folder of a saved class-conditional diffusion pipeline, or a Hub id.
        data: where the images to restore come from; the first three are taken.
        output: the PNG to write.
        sigma: Gaussian noise on them, of 255.
        classes: five names or ids, separated by commas; the first five if not given.
        num_inference_steps: steps of diffusion; the pipeline's own default if not given.
        guidance_scale: 1 = no guidance; the pipeline's own default if not given.
        device: cpu, cuda, mps; the best there is if not given.
        seed: of the noise, both on images and before diffusion.
        overwrite: replace an output file that is there already.
    """
    claim_file(output, overwrite, ".png")
    ((_, noise),) = make_levels([sigma], None, False).items()
    parts = ((vae, "vae"), (denoiser, "denoiser"), (diffusion, "unet"))
    decoder, restorer, sampler = (load_pipeline(folder, part).to(find_device(device)) for folder, part in parts)
    sampler.set_progress_bar_config(disable=True)
    if decoder.vae.config.latent_dim != 2:
        raise UserError(f"{vae} has {decoder.vae.config.latent_dim} latent variables; a plane needs a VAE with two.")
    ids = chosen_classes(sampler, classes)
    ids = ids[:EMERGING] if classes is None else ids
    if len(ids) != EMERGING:
        raise UserError(f"classes must be {EMERGING}, to fill the square; there are {len(ids)}.")
    steps = sampler.config.num_inference_steps if num_inference_steps is None else num_inference_steps
    if steps < LEAST_STEPS:
        raise UserError(f"num_inference_steps {steps} must be at least {LEAST_STEPS}, or columns would be alike.")
    images = load_images(data)
    if len(images) < RESTORED or images.channels != restorer.denoiser.config.in_channels:
        raise UserError(
            f"data.path {data.path!r} has {len(images)} images of {images.channels} channels; {denoiser} needs "
            f"{RESTORED} of {restorer.denoiser.config.in_channels} (data.channels converts them)."
        )

    panels = {
        "VAE": ("a plane of two latent variables, decoded", decode_grid(decoder, prior_plane(PLANE), PLANE)),
        "denoising GAN": ("noisy, restored, clean", restorations(restorer, DegradedImages(images, noise, seed))),
        "diffusion": ("classes emerging from noise, step by step", emerging(sampler, ids, steps, guidance_scale, seed)),
    }
    try:
        print(save_panels(panels, output))
    except ValueError as error:
        raise UserError(f"{error} data.image_size makes the images to restore smaller.") from None


def restorations(pipe: DiffusionPipeline, images: DegradedImages) -> np.ndarray:
    """In each row an image with noise, restored, and as it was: (rows, columns, H, W, C)."""
    ((clean, noisy),) = images.chunks(RESTORED, RESTORED)
    rows = torch.stack([torch.stack(column) for column in (noisy, pipe(noisy, output_type="pt").images, clean)], 1)
    return rows.permute(0, 1, 3, 4, 2).numpy()


def emerging(pipe: DiffusionPipeline, ids: list[int], steps: int, guidance: float | None, seed: int) -> np.ndarray:
    """In each row x_t of a class at evenly spaced steps, and the finished image: (rows, columns, H, W, C)."""
    result = pipe(
        ids,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=image_generators(seed, [(i, 0) for i in ids]),
        output_type="np",
        return_intermediates=True,
    )
    # Closer together towards the end: in the first half of the steps nothing but noise can be seen.
    shown = (len(result.timesteps) * np.sqrt(np.linspace(0, 1, EMERGING)))[:-1].round().astype(int)
    noisy = result.noisy_images[shown] / 2 + 0.5  # (columns, rows, C, H, W)
    return np.concatenate([noisy.permute(1, 0, 3, 4, 2).numpy(), result.images[:, None]], axis=1)


if __name__ == "__main__":
    command(main)
