"""Distillation: its target against diffusers' own steps of a teacher that is exact, and a real round on the digits."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import ROOT, launch_command, launched
from diffusers import DDIMScheduler, DiffusionPipeline

from triptych.config.diffusion import DistillationConfig
from triptych.losses.diffusion import ddim_step, diffuse, distilled_x0, predicted_x0, prediction_for, prediction_target

QUIET = ["--run.tracker", "null", "--run.progress", "false", "--run.sample_every", "0", "--run.num_threads", "1"]
TYPES = ["epsilon", "v_prediction", "sample"]


@pytest.mark.parametrize("kind", TYPES)
def test_the_prediction_for_an_image(kind):
    x0, eps = torch.randn(2, 6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    alpha_bar = torch.tensor([0.99, 0.9, 0.5, 0.3, 0.1, 0.01])
    x_t = diffuse(x0, eps, alpha_bar)
    ours = prediction_for(x0, x_t, alpha_bar, kind)
    torch.testing.assert_close(ours, prediction_target(x0, eps, alpha_bar, kind), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(predicted_x0(ours, x_t, alpha_bar, kind), x0, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("num_teacher_steps", [2, 4])
def test_one_step_to_the_target_is_the_exact_teachers_several_steps_by_diffusers(num_teacher_steps):
    """Pixels are N(0.2, 0.5^2), so E[x_0 | x_t] is known: diffusers' DDIM takes the teacher's steps, and one DDIM step
    of diffusers with the student's target for its answer must end at the same place."""
    mean, spread, num_steps = 0.2, 0.5, 5
    settings = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "clip_sample": False}
    teachers, students = (DDIMScheduler(**settings, timestep_spacing="trailing") for _ in range(2))
    teachers.set_timesteps(num_steps * num_teacher_steps)
    students.set_timesteps(num_steps)
    alphas_cumprod = teachers.alphas_cumprod.double()
    for i, t in enumerate(students.timesteps):
        x_t = torch.randn(40, 1, 2, 2, generator=torch.Generator().manual_seed(i)).double()
        x, ours = x_t, x_t
        for step in teachers.timesteps[i * num_teacher_steps : (i + 1) * num_teacher_steps]:
            a = alphas_cumprod[step]
            s = step - 1000 // (num_steps * num_teacher_steps)
            a_s = alphas_cumprod[s] if s >= 0 else torch.tensor(1.0).double()
            x0 = mean + a.sqrt() * spread**2 / (a * spread**2 + 1 - a) * (x - a.sqrt() * mean)
            answer = prediction_for(x0, x, a.expand(40), "v_prediction")
            x = teachers.step(answer, step, x, return_dict=False)[0]
            ours = ddim_step(ours, x0, a.expand(40), a_s.expand(40))
            torch.testing.assert_close(ours, x, atol=1e-6, rtol=1e-6)
        a = alphas_cumprod[t].expand(40)
        target = prediction_for(distilled_x0(x_t, x, a, a_s.expand(40)), x_t, a, "v_prediction")
        there = students.step(target, t, x_t, return_dict=False)[0]
        torch.testing.assert_close(there, x, atol=1e-5, rtol=1e-5)


def test_what_a_distillation_refuses():
    for settings, message in (
        ({}, "teacher is missing"),
        ({"teacher": "x", "num_inference_steps": 0}, "num_inference_steps"),
        ({"teacher": "x", "num_teacher_steps": 1}, "num_teacher_steps must be at least 2"),
        ({"teacher": "x", "guidance_interval": (2, 1)}, "guidance_interval"),
    ):
        with pytest.raises(ValueError, match=message):
            DistillationConfig(**settings)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A small network that has begun to tell the digits apart."""
    folder = tmp_path_factory.mktemp("teacher")
    config = ["--config", str(ROOT / "configs/demo/diffusion_digits.yaml"), "--num_updates", "200"]
    small = ["--unet.block_out_channels", "[32,64]", "--batch_size", "32", "--ema.decay", "0.98"]
    command = [*launch_command(), *config, *small, *QUIET]
    done = launched(command, folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs/demo_diffusion_digits/pipeline"


def drawn(folder, **how) -> torch.Tensor:
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipeline(range(10), 10, generator=generator, output_type="pt", **how).images


def test_a_student_draws_in_four_steps_what_its_teacher_draws_in_twenty(tmp_path, teacher):
    """From the same noise the student is nearer to the teacher's twenty guided DDIM steps than the teacher in four; and
    a killed and resumed distillation ends the same."""
    demo = ["--config", str(ROOT / "configs/demo/distill_digits.yaml"), "--teacher", str(teacher)]
    short = ["--num_updates", "80", "--batch_size", "32"]

    def distil(*more: str) -> None:
        command = [
            *launch_command(script=ROOT / "scripts/distill_diffusion.py"),
            *demo,
            *short,
            *QUIET,
            "--name",
            "whole",
            *more,
        ]
        done = launched(command, tmp_path)
        assert done.returncode == 0, done.stderr

    distil("--run.checkpoint_every", "40")
    student = tmp_path / "runs/whole/pipeline"
    pipeline = DiffusionPipeline.from_pretrained(teacher, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)

    def by_teacher(steps: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return pipeline(range(10), 10, generator=generator, output_type="pt", num_inference_steps=steps).images

    goal, at_first, at_last = by_teacher(20), by_teacher(4), drawn(student)
    assert (at_last - goal).square().mean() < 0.5 * (at_first - goal).square().mean()
    assert torch.equal(at_last, drawn(student, num_inference_steps=4, guidance_scale=1.0)), "four steps, unguided"

    log = (tmp_path / "runs/whole/log.jsonl").read_bytes()
    checkpoint = tmp_path / "runs/whole/checkpoints/update_00000080"
    for file in checkpoint.iterdir():
        file.unlink()
    distil("--run.checkpoint_every", "40", "--resume", "latest")
    assert (tmp_path / "runs/whole/log.jsonl").read_bytes() == log
    assert torch.equal(drawn(student), at_last)
    assert json.loads((student / "scheduler/scheduler_config.json").read_text())["_class_name"] == "DDIMScheduler"


def test_a_teacher_of_something_else_is_refused(tmp_path):
    script = ROOT / "scripts/distill_diffusion.py"
    for folder, message in (("judge-cifar10", "holds no pipeline"), ("vae-mnist-z2", "needs a pipeline with a unet")):
        command = [*launch_command(script=script), "--teacher", str(ROOT / "pretrained" / folder), "--name", "x"]
        done = launched(command, tmp_path)
        assert done.returncode != 0 and message in done.stderr and not (tmp_path / "runs").exists(), done.stderr
