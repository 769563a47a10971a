"""Train class-conditional rectified flow (Liu et al. 2023; Lipman et al. 2023), with classifier-free guidance.

    accelerate launch --config_file accelerate_config.yaml scripts/train_flow.py --config configs/demo/flow_digits.yaml

Add --resume latest to continue, --data.path FOLDER for a local copy, --print_config to see every setting.
Writes runs/<name>/: log.jsonl, checkpoints/, samples/, and pipeline/ for DiffusionPipeline.from_pretrained.
"""

from __future__ import annotations

from triptych.cli import command

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DModel

from models.pipeline_flow import FlowPipeline
from triptych.config.flow import FlowConfig
from triptych.data.augmentation import flip_horizontally
from triptych.data.sources import load_images
from triptych.devices import memory_format
from triptych.figures.images import save_image_grid
from triptych.losses.diffusion import drop_labels
from triptych.losses.flow import flow_loss, interpolate, logit_normal, velocity
from triptych.pipelines.sampling import class_grid
from triptych.publishing.cards import model_card
from triptych.training.averages import averaged_weights
from triptych.training.networks import unwrapped
from triptych.training.optimizers import make_ema, make_lr_schedulers, make_optimizers
from triptych.training.run import Run
from triptych.training.steps import save_and_finish, take_step


def main(config: FlowConfig) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=config.sampling.shift)
    run = Run(config)
    images = load_images(config.data, need_labels=True, tell=False)
    null_class = len(images.class_names)  # one embedding more than classes: "no class given"

    torch.manual_seed(config.seed)
    shape = config.unet.arguments(images.image_size, images.channels, pixel_unshuffle=1)
    unet = UNet2DModel(**shape, num_class_embeds=null_class + 1)
    unet.to(run.device, memory_format=memory_format(run.device))
    optimizers = make_optimizers(unet, config.optimizer, ends=("conv_in", "conv_out", "time_embed", "class_embed"))
    lr_schedulers = make_lr_schedulers(optimizers, config.optimizer, config.num_updates)
    ema = make_ema(unet, config.ema)
    unet, *optimizers = run.prepare([ema, *lr_schedulers], unet, *optimizers)
    weights = list(unet.parameters())

    def make_pipeline() -> FlowPipeline:
        return FlowPipeline(
            unet=unwrapped(run.accelerator, unet),
            scheduler=scheduler,
            id2label=dict(enumerate(images.class_names)),
            num_inference_steps=config.sampling.num_inference_steps,
            guidance_scale=config.sampling.guidance_scale,
        )

    # Liu et al. 2023, algorithm 1, with the label dropped now and then (Ho & Salimans 2022, algorithm 1).
    for x0, labels in run.batches(images):  # (B, C, H, W) in [-1, 1], (B,)
        with run.accumulate(unet):
            size = len(x0)
            if config.horizontal_flip:
                x0 = flip_horizontally(x0, run.rand(size) < 0.5)
            labels = drop_labels(labels, run.rand(size) < config.label_dropout, null_class)

            if config.time.distribution == "uniform":
                t = run.rand(size)  # t ~ Uniform[0, 1)
            else:
                t = logit_normal(run.randn(size), config.time.mean, config.time.std)
            eps = run.randn(*x0.shape)  # eps ~ N(0, I)
            x_t = interpolate(x0, eps, t)

            # the scheduler counts time from 0 to its num_train_timesteps
            output = unet(x_t, t * scheduler.config.num_train_timesteps, class_labels=labels).sample
            loss = flow_loss(output, velocity(x0, eps))

            run.accelerator.backward(loss)
            run.log(loss=loss, lr=optimizers[0].param_groups[0]["lr"])
            take_step(run, weights, optimizers, config.optimizer.max_grad_norm)
        if run.updated:
            for lr_scheduler in lr_schedulers:
                lr_scheduler.step()
            ema.step(weights)
        if run.due(config.run.sample_every) and run.is_main:
            with run.expendable("drawing samples"), averaged_weights(ema, unwrapped(run.accelerator, unet)):
                draw_samples(make_pipeline(), run, config)

    save_and_finish(run, ema, unet, make_pipeline, describe(config, run, unet))


def draw_samples(pipeline: FlowPipeline, run: Run, config: FlowConfig) -> None:
    path = run.folder / "samples" / f"update_{run.update + 1:08d}.png"
    grid = class_grid(pipeline, config.sampling.num_per_class, config.seed)
    save_image_grid(grid, path, row_labels=pipeline.class_names)


def describe(config: FlowConfig, run: Run, unet: torch.nn.Module) -> str:
    time, sampling = config.time, config.sampling
    logit_normal = f"logit-normal, mean {time.mean:g}, standard deviation {time.std:g}"
    facts = {
        "data": config.data.path,
        "times": logit_normal if time.distribution == "logit_normal" else time.distribution,
        "default sampler": f"{sampling.num_inference_steps} Euler steps, guidance {sampling.guidance_scale:g}",
    }
    return model_card("FlowPipeline", config.name, facts | run.facts(unet))


if __name__ == "__main__":
    command(main, FlowConfig)
