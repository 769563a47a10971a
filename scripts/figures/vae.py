"""Look inside a saved VAE: reconstructions, latent space, latent plane, interpolations, prior samples, curves.

python scripts/figures/vae.py runs/demo_vae_digits/pipeline --data.path digits --data.split test --output runs/vae
"""

from __future__ import annotations

from triptych.cli import command

from pathlib import Path

import numpy as np
import torch

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.latents import decode_grid, encode_means, prior_plane, project, sample_images
from triptych.figures.charts import save_curves
from triptych.figures.images import save_image_grid
from triptych.figures.latents import save_latent_space
from triptych.jsonl import read_rows
from triptych.outputs import claim_folder
from triptych.pipelines.store import load_pipeline
from triptych.seeds import keyed_generator

PARTS = ("neg_elbo", "reconstruction", "kl")


def main(
    pipeline: str,
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    output: Path = Path("runs/vae"),
    num_images: int = 3000,
    perplexity: float = 30.0,
    plane_side: int = 20,
    columns: int = 10,
    device: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Draw what a VAE has learned.

    Args:
        pipeline: folder of a saved pipeline.
        data: where the images come from.
        output: folder for the figures.
        num_images: size of the random sample in the picture of the latent space (all, if there are fewer).
        perplexity: of t-SNE (van der Maaten & Hinton 2008), which is used for more than two dimensions.
        plane_side: the plane of two latent dimensions is decoded at plane_side x plane_side quantiles of the prior.
        columns: pictures in a row of the other figures.
        device: cpu, cuda, mps; the best there is if not given.
        seed: of the samples.
        overwrite: write into an output folder that already holds something.
    """
    claim_folder(output, overwrite)
    pipe = load_pipeline(pipeline, "vae").to(find_device(device))
    images = load_images(data, need_labels=True)
    count, latent_dim = min(num_images, len(images)), pipe.vae.config.latent_dim
    if latent_dim > 2 and not 0 < perplexity < count:
        raise UserError(f"perplexity {perplexity:g} must be smaller than the sample ({count} images) and positive.")
    if count < 2 * columns:
        raise UserError(f"columns {columns} needs {2 * columns} images; the sample has {count}.")

    pixels, labels = sample_images(images, count, seed)
    means = encode_means(pipe, pixels, pipeline)
    points, axes, method = project(means, perplexity, seed)
    title = f"{count:,} {data.split} images, latent size {latent_dim}{method}"
    made = [save_latent_space(points, labels.numpy(), images.class_names, axes, title, output / "latent_space.png")]

    first = pixels[:columns]
    rows = np.stack([as_arrays(first), as_arrays(pipe.reconstruct(first))])
    made.append(save_image_grid(rows, output / "reconstructions.png", row_labels=["image", "reconstruction"]))
    lines = torch.stack([pipe.interpolate(pixels[2 * k], pixels[2 * k + 1], columns) for k in range(min(6, columns))])
    made.append(save_image_grid(np.stack([as_arrays(line) for line in lines]), output / "interpolations.png"))
    drawn = pipe(6 * columns, generator=keyed_generator("prior", seed), output_type="np").images
    made.append(save_image_grid(drawn.reshape(6, columns, *drawn.shape[1:]), output / "prior_samples.png"))
    if latent_dim == 2:
        plane = decode_grid(pipe, prior_plane(plane_side), plane_side)
        made.append(save_image_grid(plane, output / "latent_plane.png"))
    logged = read_rows(Path(pipeline).parent / "log.jsonl")
    if logged:
        curves = {part: learning_curves(logged, part) for part in PARTS if part in logged[0]}
        made.append(save_curves(curves, "images seen", output / "learning_curves.png", "nats per image"))
    print(*made, sep="\n")


def learning_curves(logged: list[dict], part: str) -> dict[str, tuple[list[float], list[float]]]:
    """One part of the loss in training and, where it was measured, on held-out images."""
    curves = {}
    for name, key in (("training", part), ("held out, averaged weights", f"validation_{part}")):
        rows = [row for row in logged if key in row]
        if rows:
            curves[name] = ([row["images_seen"] for row in rows], [row[key] for row in rows])
    return curves


def as_arrays(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()  # (B, C, H, W) -> (B, H, W, C)


if __name__ == "__main__":
    command(main)
