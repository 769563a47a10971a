"""A VAE against a plain autoencoder on the same plane: where images land, what the plane decodes to, samples.

    python scripts/studies/autoencoder.py pretrained/vae-mnist-z2 runs/autoencoder_mnist_z2/pipeline \\
        --data.path ylecun/mnist --output runs/vae_against_autoencoder.png

Both need two latent variables. The autoencoder is trained with `--model.variational false`.
"""

from __future__ import annotations

from triptych.cli import command

from pathlib import Path

import torch

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.latents import decode_grid, encode_means, prior_plane, sample_images
from triptych.evaluation.work_sharing import require_one_process
from triptych.figures.latents import save_latent_planes
from triptych.outputs import PICTURES, claim_file
from triptych.pipelines.store import load_pipeline
from triptych.seeds import keyed_generator


def main(
    vae: str,
    autoencoder: str,
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    output: Path = Path("runs/vae_against_autoencoder.png"),
    num_images: int = 3000,
    plane_side: int = 16,
    samples_side: int = 10,
    device: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Compare a VAE with a plain autoencoder.

    Args:
        vae: folder of the VAE's pipeline.
        autoencoder: folder of the plain autoencoder's.
        data: where the images come from.
        output: the picture to write, .png, .svg or .pdf.
        num_images: size of the random sample of images that are encoded (all, if there are fewer).
        plane_side: the plane is decoded at plane_side x plane_side quantiles of the prior.
        samples_side: samples_side x samples_side images are decoded from the prior.
        device: cpu, cuda, mps; the best there is if not given.
        seed: of the sample and of the prior's draws, which both models share.
        overwrite: replace an output file that is there already.
    """
    claim_file(output, overwrite, *PICTURES)
    require_one_process()
    folders = {f"VAE: {vae}": vae, f"autoencoder: {autoencoder}": autoencoder}
    pipes = {name: load_pipeline(folder, "vae").to(find_device(device)) for name, folder in folders.items()}
    for (name, pipe), variational in zip(pipes.items(), (True, False), strict=True):
        if pipe.vae.config.latent_dim != 2:
            raise UserError(f"{name} has {pipe.vae.config.latent_dim} latent variables; a plane needs two.")
        if pipe.vae.config.variational != variational:
            kind = "plain autoencoder" if variational else "VAE"
            raise UserError(f"{name} is a {kind}. Give the VAE first, then the plain autoencoder.")
    images = load_images(data, need_labels=True)
    pixels, labels = sample_images(images, num_images, seed)
    z = torch.randn(samples_side**2, 2, generator=keyed_generator("prior", seed))

    models = {}
    for name, pipe in pipes.items():
        points = encode_means(pipe, pixels, name)
        kind = "plain autoencoder" if not pipe.vae.config.variational else "VAE"
        plane = decode_grid(pipe, prior_plane(plane_side), plane_side)
        models[kind] = (points, plane, decode_grid(pipe, z, samples_side))
    print(save_latent_planes(models, labels.numpy(), images.class_names, output))


if __name__ == "__main__":
    command(main)
