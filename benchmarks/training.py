"""What the training loop costs beside the mathematics, on this machine, in one run.

    accelerate launch --config_file accelerate_config.yaml benchmarks/training.py \\
        --config configs/diffusion_cifar10_cpu.yaml [--data.path FOLDER]

Runs scripts/train_diffusion.py as users run it and compares (a) its loop - data, noise, forward, backward, clipping,
optimizers, averages, log - with (b) forward, backward and optimizer step alone, on one fixed batch, in the same
precision. Machines drift by tens of percent within minutes, so the two take turns, a few steps each, and what is
reported is the median over the turns of their ratio. Also printed: (b)'s GFLOP/s beside what this machine's matrix
product reaches, and the peak memory of training. Nothing else should be running.
"""

from __future__ import annotations

import dataclasses
import runpy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch.utils.flop_counter import FlopCounterMode

from triptych import machine
from triptych.config import DiffusionConfig, command
from triptych.optimizers import make_optimizers
from triptych.run import Run

ROOT = Path(__file__).resolve().parents[1]
TURNS, STEPS, WARM_UP = 12, 10, 10  # turns of each, steps in a turn, steps of each before anything is timed


class Bare:
    """(b): the network, its optimizers and one fixed batch."""

    def __init__(self, run: Run, config: DiffusionConfig, shape: dict, num_classes: int):
        self.device, self.enabled = run.device, run.accelerator.mixed_precision == "bf16"
        self.unet = UNet2DModel(**shape, num_class_embeds=num_classes + 1).to(self.device)
        ends = ("conv_in", "conv_out", "time_embed", "class_embed")
        self.optimizers = make_optimizers(self.unet, config.optimizer, ends)
        size = (config.batch_size, shape["in_channels"], shape["sample_size"], shape["sample_size"])
        self.x_t, self.target = torch.randn(2, *size, device=self.device)
        self.t = torch.randint(config.schedule.num_train_timesteps, size[:1], device=self.device)
        self.labels = torch.randint(num_classes, size[:1], device=self.device)

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
    loop_times: list[float] = []
    bare_times: list[float] = []
    facts: dict[str, float] = {}
    original = Run.batches

    def take_turns(run: Run) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The run's own batches; after every few steps the bare step has its turn."""
        batches, bare = original(run), None
        for turn in range(TURNS + 1):
            start = now(run.device)
            for _ in range(STEPS if turn else WARM_UP):
                batch = next(batches)  # closes the last step: counting, log
                yield batch
            if turn:
                loop_times.append((now(run.device) - start) / STEPS)
            else:
                facts["memory"] = machine.peak_memory_mb()
                images = run._images
                shape = config.unet.arguments(images.image_size, images.channels, config.pixel_unshuffle)
                bare = Bare(run, config, shape, len(images.class_names))
                facts["parameters"] = sum(p.numel() for p in bare.unet.parameters())
                with FlopCounterMode(display=False) as counter:
                    bare.gradients()
                facts["gflop"] = counter.get_total_flops() / config.batch_size / 1e9
                facts["rate"] = multiplication_rate(run)
            start = now(run.device)
            for _ in range(STEPS if turn else WARM_UP):
                bare.step()
            if turn:
                bare_times.append((now(run.device) - start) / STEPS)
        batches.close()
        report(run, config, loop_times, bare_times, facts)
        sys.exit(0)

    Run.batches = take_turns
    with tempfile.TemporaryDirectory() as folder:
        settings = dataclasses.replace(
            config.run, output_dir=folder, log_every=STEPS, checkpoint_every=10**9, sample_every=0, progress=False
        )
        short = dataclasses.replace(config, name="benchmark", run=settings)
        runpy.run_path(str(ROOT / "scripts/train_diffusion.py"))["main"](short)


def report(
    run: Run, config: DiffusionConfig, loop_times: list[float], bare_times: list[float], facts: dict[str, float]
) -> None:
    ratios = sorted(b / a for a, b in zip(loop_times, bare_times, strict=True))
    a, b = (config.batch_size / statistics.median(times) for times in (loop_times, bare_times))
    print(
        f"{config.name}: {facts['parameters']:,} parameters, batch {config.batch_size}, {config.optimizer.name}, "
        f"precision {run.accelerator.mixed_precision}, {run.device_name}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )
    print(f"(a) training loop   {a:8.1f} images/s")
    print(f"(b) bare step       {b:8.1f} images/s")
    quartiles = f"{ratios[TURNS // 4]:.1%} and {ratios[-1 - TURNS // 4]:.1%}"
    print(f"speed (a) / (b)     {statistics.median(ratios):8.1%}   median of {TURNS} turns, quartiles {quartiles}")
    reached = b * facts["gflop"]
    print(f"(b) mathematics     {reached:8.0f} GFLOP/s   {facts['gflop']:.2f} GFLOP/image, both directions")
    print(f"matrix products     {facts['rate']:8.0f} GFLOP/s   of which (b) reaches {reached / facts['rate']:.0%}")
    print(f"peak memory of (a)  {facts['memory']:8.0f} MB")


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def multiplication_rate(run: Run, side: int = 2048) -> float:
    """GFLOP/s of a square matrix product in the run's precision, the best of ten."""
    dtype = torch.bfloat16 if run.accelerator.mixed_precision == "bf16" else torch.float32
    a, b = torch.randn(2, side, side, device=run.device).to(dtype)

    def seconds(product: Callable[[], torch.Tensor]) -> float:
        start = now(run.device)
        product()
        return now(run.device) - start

    return 2 * side**3 / min(seconds(lambda: a @ b) for _ in range(10)) / 1e9


if __name__ == "__main__":
    command(main, DiffusionConfig)
