"""What the diffusion training loop costs beside the mathematics, on this machine, in one run.

    accelerate launch --config_file accelerate_config.yaml benchmarks/training.py \\
        --config configs/diffusion_cifar10_cpu.yaml [--data.path FOLDER]

Runs scripts/train_diffusion.py as users run it and compares (a) its loop - data, noise, forward, backward, clipping,
optimizers, averages, log - with (b) forward, backward and optimizer step alone, on one fixed batch, in the same
precision. Machines drift by tens of percent within minutes, so the two take turns, a few steps each (turns.py). Also
printed: (b)'s GFLOP/s beside what this machine's matrix product reaches, and the peak memory of training. Nothing else
should be running.
"""

from __future__ import annotations

from triptych.cli import command

import torch
from diffusers import UNet2DModel
from turns import loop_against_bare

from triptych.config.diffusion import DiffusionConfig
from triptych.data.image_set import ImageSet
from triptych.training.optimizers import make_optimizers
from triptych.training.run import Run


class Bare:
    """(b): the network, its optimizers and one fixed batch."""

    def __init__(self, run: Run, images: ImageSet, config: DiffusionConfig):
        shape = config.unet.arguments(images.image_size, images.channels, config.pixel_unshuffle)
        self.device, self.enabled = run.device, run.accelerator.mixed_precision == "bf16"
        self.unet = UNet2DModel(**shape, num_class_embeds=len(images.class_names) + 1).to(self.device)
        self.num_parameters = sum(p.numel() for p in self.unet.parameters())
        ends = ("conv_in", "conv_out", "time_embed", "class_embed")
        self.optimizers = make_optimizers(self.unet, config.optimizer, ends)
        size = (config.batch_size, shape["in_channels"], shape["sample_size"], shape["sample_size"])
        self.x_t, self.target = torch.randn(2, *size, device=self.device)
        self.t = torch.randint(config.schedule.num_train_timesteps, size[:1], device=self.device)
        self.labels = torch.randint(len(images.class_names), size[:1], device=self.device)

    def gradients(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.enabled):
            output = self.unet(self.x_t, self.t, class_labels=self.labels).sample
        (output.float() - self.target).square().mean().backward()

    def step(self) -> None:
        self.gradients()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()


def main(config: DiffusionConfig) -> None:
    loop_against_bare("train_diffusion.py", config, lambda run, images: Bare(run, images, config))


if __name__ == "__main__":
    command(main, DiffusionConfig)
