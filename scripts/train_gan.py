"""Train a generator to restore noisy images against a discriminator that compares them with clean ones.

    accelerate launch --config_file accelerate_config.yaml scripts/train_gan.py --config configs/demo/gan_digits.yaml

Goodfellow et al. 2014; conditioned on the noisy image, Isola et al. 2017. With --adversarial_weight 0 it is plain
regression: the baseline. Add --resume latest to continue, --print_config to see every setting.
Writes runs/<name>/: log.jsonl (every part of both losses), checkpoints/, samples/, and pipeline/.
"""

from __future__ import annotations

from triptych.cli import command

import dataclasses

import torch

from models.gan import DenoisingUNet, PatchDiscriminator
from models.pipeline_denoiser import DenoiserPipeline
from triptych.config.gan import GanConfig
from triptych.data.augmentation import flip_horizontally
from triptych.data.degradations import degrade_by_index
from triptych.data.image_set import ImageSet, to_images
from triptych.data.photos import load_training_images
from triptych.figures.images import save_image_grid
from triptych.losses.gan import (
    discriminator_accuracies,
    discriminator_loss,
    feature_matching,
    generator_loss,
    psnr,
    r1_penalty,
    restoration_loss,
)
from triptych.pipelines.store import start_from
from triptych.publishing.cards import model_card
from triptych.training.averages import averaged_weights
from triptych.training.networks import unwrapped
from triptych.training.optimizers import make_ema, make_lr_schedulers, make_optimizers
from triptych.training.run import Run
from triptych.training.steps import save_and_finish, take_step


def main(config: GanConfig) -> None:
    run = Run(config)
    images = load_training_images(config.data, config.crop_size, config.paired, config.seed)
    game = config.adversarial_weight > 0

    torch.manual_seed(config.seed)
    generator = DenoisingUNet(images.channels, **dataclasses.asdict(config.generator)).to(run.device)
    if config.generator_init:
        start_from(generator, config.generator_init, "denoiser")
    discriminator = PatchDiscriminator(images.channels, **dataclasses.asdict(config.discriminator)).to(run.device)
    g_optimizers = make_optimizers(generator, config.optimizer, ends=("head", "tail"))
    d_optimizers = make_optimizers(discriminator, config.discriminator_optimizer, ends=("blocks.0", "to_logits"))
    lr_schedulers = make_lr_schedulers(g_optimizers, config.optimizer, config.num_updates)
    if game:  # without one the discriminator takes no steps, and torch warns of schedules that do
        lr_schedulers += make_lr_schedulers(d_optimizers, config.discriminator_optimizer, config.num_updates)
    ema = make_ema(generator, config.ema)
    generator, discriminator, *optimizers = run.prepare(
        [ema, *lr_schedulers], generator, discriminator, *g_optimizers, *d_optimizers
    )
    g_optimizers, d_optimizers = optimizers[: len(g_optimizers)], optimizers[len(g_optimizers) :]
    g_weights, d_weights = list(generator.parameters()), list(discriminator.parameters())
    model = unwrapped(run.accelerator, generator)
    judge = run.accelerator.unwrap_model(discriminator)  # the same network, when the generator learns from it

    for clean, _ in run.batches(images):  # (B, C, H, W) in [-1, 1]; of pairs (B, 2 C, H, W)
        with run.accumulate(generator, discriminator):
            if config.horizontal_flip:
                clean = flip_horizontally(clean, run.rand(len(clean)) < 0.5)
            if config.paired:
                clean, noisy = clean.chunk(2, dim=1)
            else:
                noisy = degrade_by_index(clean, run.positions(len(clean)), config.noise, config.seed, "training noise")
            restored = generator(noisy)

            # The discriminator: clean images are real, restored ones are not (Goodfellow et al. 2014, algorithm 1).
            if game:
                penalized = config.r1_weight > 0 and run.step % config.r1_every == 0
                shown = clean.detach().requires_grad_(penalized)
                real, fake = discriminator(torch.cat([shown, restored.detach()]), torch.cat([noisy, noisy]))[0].chunk(2)
                d_loss = discriminator_loss(config.adversarial, real, fake)
                run.log(loss_discriminator=d_loss)
                if penalized:
                    r1 = r1_penalty(real, shown)
                    d_loss = d_loss + config.r1_weight * config.r1_every * r1
                    run.log(r1=r1)
                run.accelerator.backward(d_loss)
                # Both at 1: the generator deceives nobody; both near 0.5: the discriminator sees no difference.
                accuracies = discriminator_accuracies(config.adversarial, real, fake)
                run.log(accuracy_real=accuracies[0], accuracy_restored=accuracies[1])
                take_step(run, d_weights, d_optimizers, config.discriminator_optimizer.max_grad_norm, "discriminator")

            # The generator: near the clean image, and real to the discriminator.
            reconstruction = restoration_loss(config.reconstruction, restored, clean)
            g_loss = config.reconstruction_weight * reconstruction
            run.log(reconstruction=reconstruction, psnr=psnr(restored.detach(), clean))
            if game and run.update >= config.num_discriminator_warmup_updates:
                judge.requires_grad_(False)  # it judges, and learns nothing from this
                real, real_features = judge(clean, noisy)
                fake, fake_features = judge(restored, noisy)
                judge.requires_grad_(True)
                adversarial = generator_loss(config.adversarial, real, fake)
                g_loss = g_loss + config.adversarial_weight * adversarial
                run.log(adversarial=adversarial)
                if config.feature_matching_weight:
                    matching = feature_matching(real_features, fake_features)
                    g_loss = g_loss + config.feature_matching_weight * matching
                    run.log(feature_matching=matching)
            run.accelerator.backward(g_loss)
            run.log(loss_generator=g_loss, lr=g_optimizers[0].param_groups[0]["lr"])
            take_step(run, g_weights, g_optimizers, config.optimizer.max_grad_norm, "generator")
        if run.updated:
            for lr_scheduler in lr_schedulers:
                lr_scheduler.step()
            ema.step(g_weights)
        if run.due(config.run.sample_every) and run.is_main:
            with run.expendable("drawing samples"), averaged_weights(ema, model) as averaged:
                draw_samples(averaged, images, run, config)

    save_and_finish(run, ema, generator, lambda: DenoiserPipeline(model), describe(config, run, generator))


@torch.no_grad()
def draw_samples(generator: DenoisingUNet, images: ImageSet, run: Run, config: GanConfig) -> None:
    """Clean, noisy, restored: the same images and the same noise every time."""
    count = min(config.num_samples, len(images))
    clean = to_images(images.__getitems__(range(count))["pixels"]).to(run.device)
    if config.paired:
        clean, noisy = clean.chunk(2, dim=1)
    else:
        noisy = degrade_by_index(clean, range(count), config.noise, config.seed)
    rows = torch.stack([clean, noisy, generator(noisy)]) / 2 + 0.5
    path = run.folder / "samples" / f"update_{run.update + 1:08d}.png"
    save_image_grid(rows.permute(0, 1, 3, 4, 2).cpu().numpy(), path, row_labels=["clean", "noisy", "restored"])


def describe(config: GanConfig, run: Run, generator: DenoisingUNet) -> str:
    game = f"{config.adversarial}, weight {config.adversarial_weight:g}"
    facts = {
        "data": config.data.path,
        "noise": "of the pairs" if config.paired else config.noise.describe(),
        "reconstruction loss": f"{config.reconstruction}, weight {config.reconstruction_weight:g}",
        "adversarial loss": game if config.adversarial_weight else "none: regression",
    }
    return model_card("DenoiserPipeline", config.name, facts | run.facts(generator))


if __name__ == "__main__":
    command(main, GanConfig)
