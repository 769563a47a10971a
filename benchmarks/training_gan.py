"""What the GAN's training loop costs beside the mathematics, as benchmarks/training.py tells for diffusion.

    accelerate launch --config_file accelerate_config.yaml benchmarks/training_gan.py \\
        --config configs/gan_cifar10.yaml --generator_init null [--data.path FOLDER]

(b) is a step of both players on one fixed batch: the discriminator on real and restored images, the generator on its
reconstruction and on the discriminator's answer; with --adversarial_weight 0 the generator's reconstruction alone.
"""

from __future__ import annotations

from triptych.cli import command

import dataclasses

import torch
from turns import loop_against_bare

from models.gan import DenoisingUNet, PatchDiscriminator
from triptych.config.gan import GanConfig
from triptych.data.image_set import ImageSet
from triptych.losses.gan import discriminator_loss, generator_loss, restoration_loss
from triptych.training.optimizers import make_optimizers
from triptych.training.run import Run


class Bare:
    """(b): both networks, their optimizers and one fixed batch."""

    def __init__(self, run: Run, images: ImageSet, config: GanConfig):
        self.config, self.device = config, run.device
        self.enabled = run.accelerator.mixed_precision == "bf16"
        channels, side = images.channels, images.image_size
        self.generator = DenoisingUNet(channels, **dataclasses.asdict(config.generator)).to(self.device)
        self.judge = PatchDiscriminator(channels, **dataclasses.asdict(config.discriminator)).to(self.device)
        self.num_parameters = sum(p.numel() for p in self.generator.parameters())
        self.optimizers = make_optimizers(self.generator, config.optimizer, ("head", "tail"))
        if config.adversarial_weight:
            self.optimizers += make_optimizers(self.judge, config.discriminator_optimizer, ("blocks.0", "to_logits"))
        self.clean, self.noisy = torch.randn(2, config.batch_size, channels, side, side, device=self.device)

    def gradients(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.enabled):
            restored = self.generator(self.noisy)
            loss = restoration_loss(self.config.reconstruction, restored, self.clean)
            if self.config.adversarial_weight:
                pairs = torch.cat([self.clean, restored.detach()]), torch.cat([self.noisy, self.noisy])
                real, fake = self.judge(*pairs)[0].chunk(2)
                discriminator_loss(self.config.adversarial, real, fake).backward()
                self.judge.requires_grad_(False)
                real, fake = self.judge(self.clean, self.noisy)[0], self.judge(restored, self.noisy)[0]
                self.judge.requires_grad_(True)
                loss = loss + self.config.adversarial_weight * generator_loss(self.config.adversarial, real, fake)
        loss.backward()

    def step(self) -> None:
        self.gradients()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()


def main(config: GanConfig) -> None:
    config = dataclasses.replace(config, num_discriminator_warmup_updates=0)  # in which there is no game yet
    loop_against_bare("train_gan.py", config, lambda run, images: Bare(run, images, config))


if __name__ == "__main__":
    command(main, GanConfig)
