"""Distil a class-conditional diffusion pipeline into one that draws in fewer steps (Salimans & Ho 2022, algorithm 2).

    accelerate launch --config_file accelerate_config.yaml scripts/distill_diffusion.py \\
        --config configs/distill_cifar10.yaml --num_inference_steps 8

One round: where the teacher goes from x_t to x_s in several guided DDIM steps, the student learns to go in one, without
guidance. The student of a round is the teacher of the next, with fewer steps: --teacher runs/<name>/pipeline.
"""

from __future__ import annotations

from triptych.cli import command

import copy

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler

from models.pipeline_class_conditional import ClassConditionalPipeline
from triptych.config.diffusion import DistillationConfig
from triptych.data.augmentation import flip_horizontally
from triptych.data.sources import load_images
from triptych.devices import memory_format
from triptych.errors import UserError
from triptych.figures.images import save_image_grid
from triptych.losses.diffusion import ddim_step, denoising_loss, diffuse, distilled_x0, predicted_x0, prediction_for
from triptych.pipelines.sampling import class_grid
from triptych.pipelines.store import load_pipeline
from triptych.publishing.cards import model_card
from triptych.training.averages import averaged_weights
from triptych.training.networks import compiled_like_trained, unwrapped
from triptych.training.optimizers import make_ema, make_lr_schedulers, make_optimizers
from triptych.training.run import Run
from triptych.training.steps import save_and_finish, take_step


def main(config: DistillationConfig) -> None:
    teacher = load_pipeline(config.teacher, "unet")
    scheduler = DDIMScheduler.from_config(teacher.scheduler.config, clip_sample=False, thresholding=False)
    if scheduler.config.prediction_type != "v_prediction":  # at the noisiest step eps says nothing about x_0
        raise UserError(f"teacher {config.teacher} predicts {scheduler.config.prediction_type}, not v_prediction.")
    guidance = {key: getattr(config, key) for key in ("guidance_scale", "guidance_interval")}
    guidance = {key: teacher.config.get(key) if value is None else value for key, value in guidance.items()}
    low, high = guidance["guidance_interval"] or (0, float("inf"))
    if getattr(teacher, "guide", None) is not None:
        raise UserError(f"teacher {config.teacher} is guided by a second network, which this does not distil.")
    run = Run(config)
    images = load_images(config.data, need_labels=True, tell=False)
    if images.class_names != teacher.class_names or images.channels != teacher.image_shape[0]:
        raise UserError(f"data.path {config.data.path} has other classes or channels than the teacher was trained on.")
    teacher.unet.to(run.device, memory_format=memory_format(run.device))

    torch.manual_seed(config.seed)
    student = copy.deepcopy(teacher.unet)
    optimizers = make_optimizers(student, config.optimizer)
    lr_schedulers = make_lr_schedulers(optimizers, config.optimizer, config.num_updates)
    ema = make_ema(student, config.ema)
    student, *optimizers = run.prepare([ema, *lr_schedulers], student, *optimizers)
    weights = list(student.parameters())

    # t_0 > t_1 > ... of the teacher's steps, and alpha_bar at each and at the image itself, which ends them.
    k, data_std, shuffle = config.num_teacher_steps, teacher.config.data_std, teacher.config.pixel_unshuffle
    scheduler.set_timesteps(config.num_inference_steps * k)
    timesteps = scheduler.timesteps.to(run.device)
    alpha_bars = torch.cat([scheduler.alphas_cumprod[scheduler.timesteps], torch.ones(1)]).to(run.device)
    sigmas = data_std * ((1 - alpha_bars) / alpha_bars).sqrt()

    teacher_unet = compiled_like_trained(run.accelerator, teacher.unet)

    @torch.no_grad()
    @run.accelerator.autocast()
    def teachers_x0(x: torch.Tensor, at: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What the guided teacher takes for the image at its steps `at`: (B, C, H, W), (B,), (B,) -> (B, C, H, W)."""
        output = teacher_unet(x, timesteps[at], class_labels=labels).sample.float()
        if guidance["guidance_scale"] != 1:
            null = torch.full_like(labels, len(teacher.class_names))
            uncond = teacher_unet(x, timesteps[at], class_labels=null).sample.float()
            inside = (low <= sigmas[at]) & (sigmas[at] <= high)
            scale = torch.where(inside, guidance["guidance_scale"], 1.0)[:, None, None, None]
            output = uncond + scale * (output - uncond)
        return predicted_x0(output, x, alpha_bars[at], "v_prediction")

    def make_pipeline() -> ClassConditionalPipeline:
        return ClassConditionalPipeline(
            unet=unwrapped(run.accelerator, student),
            scheduler=scheduler,
            id2label=teacher.config.id2label,
            pixel_unshuffle=shuffle,
            data_std=data_std,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=1.0,
        )

    for x0, labels in run.batches(images):  # (B, C, H, W) in [-1, 1], (B,)
        with run.accumulate(student):
            size = len(x0)
            if config.horizontal_flip:
                x0 = flip_horizontally(x0, run.rand(size) < 0.5)
            x0 = F.pixel_unshuffle(x0 / data_std, shuffle)
            start = k * run.randint(config.num_inference_steps, size)  # the teacher's step at which one of ours begins
            alpha_bar, alpha_bar_s = alpha_bars[start], alpha_bars[start + k]
            x_t = diffuse(x0, run.randn(*x0.shape), alpha_bar)
            x_s = x_t
            for at in (start + j for j in range(k)):
                x_s = ddim_step(x_s, teachers_x0(x_s, at, labels), alpha_bars[at], alpha_bars[at + 1])
            x0_of_teacher = distilled_x0(x_t, x_s, alpha_bar, alpha_bar_s)
            target = prediction_for(x0_of_teacher, x_t, alpha_bar, "v_prediction")

            output = student(x_t, timesteps[start], class_labels=labels).sample
            loss = denoising_loss(output, target, torch.ones_like(alpha_bar))  # in x_0: SNR + 1 (section 4)

            run.accelerator.backward(loss)
            run.log(loss=loss, lr=optimizers[0].param_groups[0]["lr"])
            take_step(run, weights, optimizers, config.optimizer.max_grad_norm)
        if run.updated:
            for lr_scheduler in lr_schedulers:
                lr_scheduler.step()
            ema.step(weights)
        if run.due(config.run.sample_every) and run.is_main:
            with averaged_weights(ema, unwrapped(run.accelerator, student)):
                path = run.folder / "samples" / f"update_{run.update + 1:08d}.png"
                grid = class_grid(make_pipeline(), config.num_per_class, config.seed)
                save_image_grid(grid, path, row_labels=teacher.class_names)

    facts = {"teacher": config.teacher, "the teacher's steps for each": k} | guidance
    facts |= {"data": config.data.path, "default sampler": f"DDIM, {config.num_inference_steps} steps"}
    card = model_card("ClassConditionalPipeline", config.name, facts | run.facts(student))
    save_and_finish(run, ema, student, make_pipeline, card)


if __name__ == "__main__":
    command(main, DistillationConfig)
