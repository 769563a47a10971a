"""Train a variational autoencoder (Kingma & Welling 2014), or a plain autoencoder (--model.variational false).

    accelerate launch --config_file accelerate_config.yaml scripts/train_vae.py --config configs/demo/vae_digits.yaml

Add --resume latest to continue, --data.path FOLDER for a local copy, --print_config to see every setting.
Writes runs/<name>/: log.jsonl (every part of the loss, in nats per image), checkpoints/, samples/, and pipeline/.
"""

from __future__ import annotations

from triptych.cli import command

import dataclasses
import math

import numpy as np
import torch

from models.pipeline_vae import VAEPipeline
from models.vae import VAE
from triptych.config.vae import VaeConfig
from triptych.data.image_set import ImageSet, to_unit_interval
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.evaluation.validation import validate_vae
from triptych.figures.images import save_image_grid
from triptych.losses.vae import free_bits, kl_to_standard_normal, negative_log_likelihood
from triptych.publishing.cards import model_card
from triptych.training.averages import averaged_weights
from triptych.training.networks import unwrapped
from triptych.training.optimizers import make_ema, make_lr_schedulers, make_optimizers
from triptych.training.run import Run
from triptych.training.steps import save_and_finish, take_step

COLUMNS = 12  # of the grids drawn while training


def main(config: VaeConfig) -> None:
    run = Run(config)
    images = load_images(config.data, tell=False)
    split, held_out = config.validation_split, None
    if split:
        held_out = load_images(dataclasses.replace(config.data, split=split), False, "validation_split", tell=False)
    if held_out is not None and (held_out.channels, held_out.image_size) != (images.channels, images.image_size):
        raise UserError(
            f"validation_split {split!r} has {held_out.channels} channels of {held_out.image_size} pixels a side, the "
            f"training images {images.channels} of {images.image_size}. Set data.channels and data.image_size."
        )

    torch.manual_seed(config.seed)
    vae = make_model(config, images).to(run.device)
    optimizers = make_optimizers(vae, config.optimizer)
    lr_schedulers = make_lr_schedulers(optimizers, config.optimizer, config.num_updates)
    ema = make_ema(vae, config.ema)
    vae, *optimizers = run.prepare([ema, *lr_schedulers], vae, *optimizers)
    weights = list(vae.parameters())

    def make_pipeline() -> VAEPipeline:
        return VAEPipeline(unwrapped(run.accelerator, vae), config.likelihood, config.sigma)

    fixed_log_sigma = torch.tensor(math.log(config.sigma or 1.0), device=run.device)
    # Kingma & Welling 2014, algorithm 1.
    for x, _ in run.batches(images, held_out):  # (B, C, H, W) in [-1, 1]
        with run.accumulate(vae):
            pixels = (x + 1) / 2  # what p(x | z) describes, in [0, 1]
            if config.likelihood == "binarized_bernoulli":
                pixels = (run.rand(*pixels.shape) < pixels).float()
                x = 2 * pixels - 1
            eps = run.randn(len(x), config.model.latent_dim)  # eps ~ N(0, I)
            logits, posterior = vae(x, eps)  # z = mu + sigma eps ~ q(z | x), then p(x | z)

            log_sigma = fixed_log_sigma if config.sigma else unwrapped(run.accelerator, vae).log_sigma
            reconstruction = negative_log_likelihood(config.likelihood, logits, pixels, log_sigma).mean()
            loss = reconstruction
            if config.model.variational:  # -ELBO = E_q[-log p(x | z)] + KL(q(z | x) || p(z)), eq. 3
                kl = kl_to_standard_normal(posterior.mean, posterior.logvar)  # (B, D)
                kl_weight = config.kl_weight * min(1.0, (run.update + 1) / max(1, config.num_kl_warmup_updates))
                loss = reconstruction + kl_weight * free_bits(kl, config.free_bits)
                run.log(kl=kl.sum(1).mean(), neg_elbo=reconstruction + kl.sum(1).mean(), kl_weight=kl_weight)

            run.accelerator.backward(loss)
            run.log(loss=loss, reconstruction=reconstruction, lr=optimizers[0].param_groups[0]["lr"])
            take_step(run, weights, optimizers, config.optimizer.max_grad_norm)
        if run.updated:
            for lr_scheduler in lr_schedulers:
                lr_scheduler.step()
            ema.step(weights)
        if held_out is not None and run.due(config.validate_every):  # every process measures the same
            model = unwrapped(run.accelerator, vae)
            with run.expendable("the validation"), averaged_weights(ema, model) as averaged:
                run.log(**validate_vae(averaged, held_out, config, log_sigma))
        if run.due(config.run.sample_every) and run.is_main:
            model = unwrapped(run.accelerator, vae)
            with run.expendable("drawing samples"), averaged_weights(ema, model):
                draw_samples(make_pipeline(), images, run)

    save_and_finish(run, ema, vae, make_pipeline, describe(config, run, vae))


def make_model(config: VaeConfig, images: ImageSet) -> VAE:
    learn_sigma = config.likelihood == "gaussian" and config.sigma is None
    settings = dataclasses.asdict(config.model)
    try:
        return VAE(images.image_size, images.channels, learn_sigma=learn_sigma, **settings)
    except ValueError as error:
        raise UserError(f"model: {error} Set data.image_size, or another model.architecture.") from None


def draw_samples(pipeline: VAEPipeline, images: ImageSet, run: Run) -> None:
    """A row of images, a row of their reconstructions, two rows drawn from the prior; the same ones every time."""
    columns = min(COLUMNS, len(images))
    originals = to_unit_interval(images.__getitems__(range(columns))["pixels"])
    drawn = pipeline(2 * columns, generator=torch.Generator().manual_seed(run.config.seed), output_type="np").images
    rows = [
        originals.permute(0, 2, 3, 1).numpy(),
        pipeline.reconstruct(originals, "np"),
        drawn[:columns],
        drawn[columns:],
    ]
    labels = ["image", "reconstruction", "prior", "prior"]
    save_image_grid(np.stack(rows), run.folder / "samples" / f"update_{run.update + 1:08d}.png", row_labels=labels)


def describe(config: VaeConfig, run: Run, vae: VAE) -> str:
    facts = {
        "data": config.data.path,
        "latent dimensions": config.model.latent_dim,
        "architecture": config.model.architecture + ("" if config.model.variational else ", plain autoencoder"),
        "likelihood": config.likelihood,
    }
    return model_card("VAEPipeline", config.name, facts | run.facts(vae))


if __name__ == "__main__":
    command(main, VaeConfig)
