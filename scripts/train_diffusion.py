"""Train class-conditional diffusion (Ho et al. 2020; Ho & Salimans 2022).

    accelerate launch --config_file accelerate_config.yaml scripts/train_diffusion.py \\
        --config configs/diffusion_cifar10.yaml

Add --resume latest to continue, --data.path FOLDER for a local copy, --print_config to see every setting.
Writes runs/<name>/: log.jsonl, checkpoints/, samples/, and pipeline/ for DiffusionPipeline.from_pretrained.
"""

from __future__ import annotations

from triptych.cli import command

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel

from models.pipeline_class_conditional import ClassConditionalPipeline
from triptych.config.diffusion import DiffusionConfig
from triptych.data.augmentation import flip_horizontally
from triptych.data.sources import load_images
from triptych.devices import memory_format
from triptych.errors import UserError
from triptych.figures.images import save_image_grid
from triptych.losses.diffusion import (
    denoising_loss,
    diffuse,
    drop_labels,
    log_normal_steps,
    min_snr_weight,
    prediction_target,
    steps_of,
)
from triptych.pipelines.sampling import class_grid
from triptych.pipelines.schedulers import make_noise_scheduler, make_sampler
from triptych.pipelines.store import start_from
from triptych.publishing.cards import model_card
from triptych.training.averages import PowerAverages, averaged_weights
from triptych.training.networks import unwrapped
from triptych.training.optimizers import make_ema, make_lr_schedulers, make_optimizers
from triptych.training.run import Run
from triptych.training.steps import save_and_finish, take_step


def main(config: DiffusionConfig) -> None:
    scheduler = make_noise_scheduler(config.schedule, config.data_std)
    sampler = make_sampler(config.sampling, scheduler)
    run = Run(config)
    images = load_images(config.data, need_labels=True, tell=False)
    null_class = len(images.class_names)  # one embedding more than classes: "no class given"

    torch.manual_seed(config.seed)
    shape = config.unet.arguments(images.image_size, images.channels, config.pixel_unshuffle)
    unet = UNet2DModel(**shape, num_class_embeds=null_class + 1)
    unet.to(run.device, memory_format=memory_format(run.device))
    unet.class_embedding.weight.data *= config.class_embedding_scale
    if config.unet_init:
        go_on_from(unet, config)
    alphas_cumprod = scheduler.alphas_cumprod.to(run.device)  # alpha_bar_t, (T,)
    prediction_type = config.schedule.prediction_type
    weights_of_t = min_snr_weight(alphas_cumprod, prediction_type, config.min_snr_gamma)  # (T,)
    levels, chances_of_t = config.noise_levels, torch.ones_like(alphas_cumprod)
    if levels.distribution == "log_normal":
        chances_of_t = log_normal_steps(alphas_cumprod, levels.mean, levels.std, config.data_std)
    elif levels.distribution == "importance":  # E_uniform[w e] = E[w] E_importance[e]
        chances_of_t, weights_of_t = weights_of_t, weights_of_t.mean().expand_as(weights_of_t)

    optimizers = make_optimizers(unet, config.optimizer, ends=("conv_in", "conv_out", "time_embed", "class_embed"))
    lr_schedulers = make_lr_schedulers(optimizers, config.optimizer, config.num_updates)
    ema = make_ema(unet, config.ema)
    averages = [PowerAverages(unet, config.power_averages.widths)] if config.power_averages.widths else []
    unet, *optimizers = run.prepare([ema, *lr_schedulers, *averages], unet, *optimizers)
    weights = list(unet.parameters())

    def make_pipeline() -> ClassConditionalPipeline:
        return ClassConditionalPipeline(
            unet=unwrapped(run.accelerator, unet),
            scheduler=sampler,
            id2label=dict(enumerate(images.class_names)),
            pixel_unshuffle=config.pixel_unshuffle,
            data_std=config.data_std,
            num_inference_steps=config.sampling.num_inference_steps,
            guidance_scale=config.sampling.guidance_scale,
            guidance_interval=config.sampling.guidance_interval,
        )

    # Ho et al. 2020, algorithm 1, with the label dropped now and then (Ho & Salimans 2022, algorithm 1).
    for x0, labels in run.batches(images):  # (B, C, H, W) in [-1, 1], (B,)
        with run.accumulate(unet):
            size = len(x0)
            if config.horizontal_flip:
                x0 = flip_horizontally(x0, run.rand(size) < 0.5)
            x0 = F.pixel_unshuffle(x0 / config.data_std, config.pixel_unshuffle)  # (B, C p^2, H / p, W / p)
            labels = drop_labels(labels, run.rand(size) < config.label_dropout, null_class)

            if levels.distribution == "uniform" and not levels.stratified:
                t = run.randint(config.schedule.num_train_timesteps, size)  # t ~ Uniform{0, ..., T - 1}
            else:
                t = steps_of(run.spread(size) if levels.stratified else run.rand(size), chances_of_t)
            eps = run.randn(*x0.shape)  # eps ~ N(0, I)
            alpha_bar = alphas_cumprod[t]
            x_t = diffuse(x0, eps, alpha_bar)

            output = unet(x_t, t, class_labels=labels).sample
            target = prediction_target(x0, eps, alpha_bar, prediction_type)
            loss = denoising_loss(output, target, weights_of_t[t])

            run.accelerator.backward(loss)
            run.log(loss=loss, lr=optimizers[0].param_groups[0]["lr"])
            take_step(run, weights, optimizers, config.optimizer.max_grad_norm)
        if run.updated:
            for lr_scheduler in lr_schedulers:
                lr_scheduler.step()
            for average in (ema, *averages):
                average.step(weights)
        if averages and run.due(config.power_averages.snapshot_every) and run.is_main:
            with run.expendable("keeping the averages of this update"):
                averages[0].save(run.folder / "averages")
        if run.due(config.run.sample_every) and run.is_main:
            with run.expendable("drawing samples"), averaged_weights(ema, unwrapped(run.accelerator, unet)):
                draw_samples(make_pipeline(), run, config)

    save_and_finish(run, ema, unet, make_pipeline, describe(config, run, unet))


def go_on_from(unet: UNet2DModel, config: DiffusionConfig) -> None:
    """Start from the weights of a saved pipeline; what it predicts must be what is trained here."""
    saved = start_from(unet, config.unet_init, "unet").scheduler.config.prediction_type
    if saved != config.schedule.prediction_type:
        raise UserError(f"unet_init {config.unet_init} predicts {saved}; set schedule.prediction_type to that.")


def draw_samples(pipeline: ClassConditionalPipeline, run: Run, config: DiffusionConfig) -> None:
    path = run.folder / "samples" / f"update_{run.update + 1:08d}.png"
    grid = class_grid(pipeline, config.sampling.num_per_class, config.seed)
    save_image_grid(grid, path, row_labels=pipeline.class_names)


def describe(config: DiffusionConfig, run: Run, unet: torch.nn.Module) -> str:
    facts = {
        "data": config.data.path,
        "prediction, schedule": f"{config.schedule.prediction_type}, {config.schedule.beta_schedule}",
        "default sampler": f"{config.sampling.scheduler}, {config.sampling.num_inference_steps} steps, "
        f"guidance {config.sampling.guidance_scale:g}",
    }
    return model_card("ClassConditionalPipeline", config.name, facts | run.facts(unet))


if __name__ == "__main__":
    command(main, DiffusionConfig)
