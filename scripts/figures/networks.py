"""Draw the networks of the three families from what flows through them: pictures of which size, of how many channels.

    python scripts/figures/networks.py --output runs/networks.png

The VAE, the denoising GAN's generator and its discriminator, and the U-Net of the diffusion model.
"""

from __future__ import annotations

from triptych.cli import command

from dataclasses import asdict
from pathlib import Path

import torch

from models.gan import PatchDiscriminator
from triptych.config.gan import DiscriminatorConfig
from triptych.figures.networks import save_networks, trace
from triptych.outputs import PICTURES, claim_file
from triptych.pipelines.store import load_pipeline


def main(
    vae: str = "pretrained/vae-mnist-z16",
    denoiser: str = "pretrained/denoiser-cifar10",
    diffusion: str = "pretrained/cifar10-class-conditional",
    output: Path = Path("runs/networks.png"),
    overwrite: bool = False,
) -> None:
    """Draw networks.

    Args:
        vae: folder of a saved VAE, or a Hub id.
        denoiser: folder of a saved denoiser, or a Hub id.
        diffusion: folder of a saved class-conditional diffusion pipeline, or a Hub id.
        output: the picture to write, .png, .svg or .pdf.
        overwrite: replace an output file that is there already.
    """
    claim_file(output, overwrite, *PICTURES)
    autoencoder, restorer, drawer = (
        load_pipeline(folder, part) for folder, part in ((vae, "vae"), (denoiser, "denoiser"), (diffusion, "unet"))
    )
    channels, side = restorer.denoiser.config.in_channels, 32
    judge = PatchDiscriminator(channels, **asdict(DiscriminatorConfig()))
    picture = torch.zeros(1, channels, side, side)
    coder, unet = autoencoder.vae, drawer.unet
    folded = torch.zeros(1, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    eps = torch.zeros(1, coder.config.latent_dim)
    label = {"class_labels": torch.zeros(1, dtype=torch.long)}
    networks = {
        "VAE": (trace(coder, torch.zeros(1, *autoencoder.image_shape), eps), False),
        "denoising GAN, generator": (trace(restorer.denoiser, picture, vectors=False), True),
        "denoising GAN, discriminator": (trace(judge, picture, picture, vectors=False), False),
        "diffusion": (trace(unet, folded, 0, vectors=False, **label), True),
    }
    print(save_networks(networks, output))


if __name__ == "__main__":
    command(main)
