"""What several tests need: random numbers, images on disk, small untrained pipelines, flags of tiny trainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from conftest import TINY
from diffusers import DDPMScheduler, UNet2DModel
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from models.gan import DenoisingUNet
from models.pipeline_class_conditional import ClassConditionalPipeline
from models.pipeline_denoiser import DenoiserPipeline
from models.pipeline_vae import VAEPipeline
from models.vae import VAE

SMALL = {
    "generator.block_out_channels": "[8, 16]",
    "generator.layers_per_block": "1",
    "discriminator.block_out_channels": "[8, 16]",
    "discriminator_optimizer.num_warmup_updates": "2",
    "feature_matching_weight": "0.1",
    "r1_weight": "0.1",
    "r1_every": "4",
    "num_discriminator_warmup_updates": "4",
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def write_images(folder: Path, count: int = 6, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> list[np.ndarray]:
    """Two classes of noise images as PNGs; returns the pixels in the order datasets reads them."""
    rng = np.random.default_rng(0)
    pixels = []
    for i in range(count):
        name = folder / ("cat" if i < count // 2 else "dog") / f"{i}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
        pixels.append(rng.integers(0, 256, shape, dtype=np.uint8))
        Image.fromarray(pixels[-1], mode).save(name)
    return pixels


def make_diffusion(
    channels: int = 3,
    unshuffle: int = 2,
    prediction_type: str = "v_prediction",
    class_names: Sequence[str] = ("cat", "ship", "frog"),
) -> ClassConditionalPipeline:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=4,
        in_channels=channels * unshuffle**2,
        out_channels=channels * unshuffle**2,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
        num_class_embeds=len(class_names) + 1,
    )
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type=prediction_type, timestep_spacing="trailing"
    )
    pipeline = ClassConditionalPipeline(
        unet, scheduler, dict(enumerate(class_names)), unshuffle, num_inference_steps=3, guidance_scale=2.0
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_vae() -> VAEPipeline:
    torch.manual_seed(0)
    return VAEPipeline(VAE(8, 1, 3, hidden_channels=(8, 16), hidden_dim=16))


def make_judge(
    names: dict[int, str] | None = None, size: int = 16, channels: int = 3
) -> tuple[ResNetForImageClassification, ViTImageProcessor]:
    """An untrained classifier of images, and what prepares them for it; of the classes of :func:`make_diffusion`."""
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    names = names or {0: "cat", 1: "ship", 2: "frog"}
    model = ResNetForImageClassification(ResNetConfig(num_channels=channels, **sizes, id2label=names))
    mean = [0.5] * channels
    return model, ViTImageProcessor(size={"height": size, "width": size}, image_mean=mean, image_std=mean)


def make_denoiser(channels: int = 3) -> DenoiserPipeline:
    torch.manual_seed(0)
    return DenoiserPipeline(DenoisingUNet(channels, (8, 16), 1, 2).eval())


def gan_flags(**changes: str) -> list[str]:
    keep = {k: v for k, v in TINY.items() if k.startswith(("data.", "run.", "batch", "num_", "grad", "opt", "hor"))}
    settings = keep | SMALL | {key.replace("__", "."): str(value) for key, value in changes.items()}
    return [part for key, value in settings.items() for part in (f"--{key}", value)]


def vae_flags(**changes: str) -> list[str]:
    keep = {
        key: value for key, value in TINY.items() if key.startswith(("data.", "run.", "batch", "num_", "grad", "opt"))
    }
    small = {"model.hidden_channels": "[8, 16]", "model.hidden_dim": "16"}
    settings = keep | small | {key.replace("__", "."): str(value) for key, value in changes.items()}
    return [part for key, value in settings.items() for part in (f"--{key}", value)]


def classifier_flags(**changes: str) -> list[str]:
    keep = {key: value for key, value in TINY.items() if key.startswith(("data.", "run.", "batch", "num_", "grad"))}
    small = {
        "model.embedding_size": "8",
        "model.hidden_sizes": "[8, 16]",
        "model.depths": "[1, 1]",
        "whitened_stem": "true",
        "optimizer.num_warmup_updates": "2",
        "horizontal_flip": "true",
        "cutout": "3",
        "max_shift": "1",
    }
    settings = keep | small | {key.replace("__", "."): str(value) for key, value in changes.items()}
    return [part for key, value in settings.items() for part in (f"--{key}", value)]
