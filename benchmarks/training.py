"""What the training loop costs beside the mathematics, on this machine, in one run.

    python benchmarks/training.py --config configs/diffusion_cifar10_cpu.yaml [--data.path FOLDER]

Prints images/s of (a) training as users run it, `accelerate launch scripts/train_diffusion.py`: data, noise,
averages, log and all; and of (b) forward, backward and optimizer step on one fixed batch in the same precision,
measured before and after (a) because machines drift; (b)'s GFLOP/s beside what this machine's matrix
multiplication reaches; and (a)'s peak memory. Nothing else should be running.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch.utils.flop_counter import FlopCounterMode

from triptych import machine
from triptych.config import DiffusionConfig, command, write_yaml
from triptych.data import load_images
from triptych.optimizers import make_optimizers

ROOT = Path(__file__).resolve().parents[1]
WARM_UP, ROW, ROWS = 10, 20, 6  # updates; the loop is judged by its rows of the log after the first


def main(config: DiffusionConfig) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision, _ = machine.effective_precision("bf16", device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type == "cpu":
        machine.use_all_cores(config.run.num_threads, 1)
    images = load_images(config.data, need_labels=True)
    shape = config.unet.arguments(images.image_size, images.channels, config.pixel_unshuffle)
    num_classes = len(images.class_names)
    del images

    torch.manual_seed(0)
    unet = UNet2DModel(**shape, num_class_embeds=num_classes + 1).to(device)
    optimizers = make_optimizers(unet, config.optimizer, ends=("conv_in", "conv_out", "time_embed", "class_embed"))
    side, channels = shape["sample_size"], shape["in_channels"]
    x_t, target = torch.randn(2, config.batch_size, channels, side, side, device=device)
    t = torch.randint(config.schedule.num_train_timesteps, (config.batch_size,), device=device)
    labels = torch.randint(num_classes, (config.batch_size,), device=device)

    def gradients() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            output = unet(x_t, t, class_labels=labels).sample
        (output.float() - target).square().mean().backward()

    def step() -> None:
        gradients()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    with FlopCounterMode(display=False) as counter:
        gradients()
    gflop = counter.get_total_flops() / config.batch_size / 1e9

    def bare() -> float:
        times = [timed(step, device) for _ in range(WARM_UP + ROW)][WARM_UP:]
        return config.batch_size / statistics.median(times)

    before = bare()
    speeds, memory = loop(config)
    after = bare()
    rate = multiplication_rate(dtype, device)
    b, a = (before + after) / 2, statistics.median(speeds)
    parameters = sum(p.numel() for p in unet.parameters())
    print(f"{config.name}: {parameters:,} parameters, batch {config.batch_size}, {config.optimizer.name}, {dtype}, "
          f"{machine.device_name(device)}, torch {torch.__version__}, {torch.get_num_threads()} threads")  # fmt: skip
    print(f"(a) training loop   {a:8.1f} images/s   rows {', '.join(f'{s:.1f}' for s in speeds)}")
    print(f"(b) bare step       {b:8.1f} images/s   before {before:.1f}, after {after:.1f}")
    print(f"(a) / (b)           {a / b:8.1%}")
    print(f"(b) mathematics     {b * gflop:8.0f} GFLOP/s    {gflop:.2f} GFLOP/image forward and backward")
    print(f"matrix products     {rate:8.0f} GFLOP/s    of which (b) reaches {b * gflop / rate:.0%}")
    print(f"peak memory of (a)  {memory:8.0f} MB")


def timed(step, device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def loop(config: DiffusionConfig) -> tuple[list[float], float]:
    """Images/s of each row of the log but the first, and the peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = dataclasses.replace(
            config.run, output_dir=folder, log_every=ROW, checkpoint_every=10**9, sample_every=0, progress=False
        )
        data = Path(config.data.path).expanduser()
        path = str(data.resolve()) if data.exists() else config.data.path
        short = dataclasses.replace(
            config,
            name="benchmark",
            num_updates=ROW * (ROWS + 1) + 1,
            run=quiet,
            data=dataclasses.replace(config.data, path=path),
        )
        write_yaml(short, Path(folder) / "short.yaml")
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
        launch += ["--config_file", str(ROOT / "accelerate_config.yaml")]
        script = [str(ROOT / "scripts/train_diffusion.py"), "--config", f"{folder}/short.yaml"]
        subprocess.run([*launch, *script], check=True, stdout=subprocess.DEVNULL)
        lines = (Path(folder) / "benchmark/timing.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines][1 : ROWS + 1]
    return [row["images_per_second"] for row in rows], max(row["peak_memory_mb"] for row in rows)


def multiplication_rate(dtype: torch.dtype, device: torch.device, side: int = 2048) -> float:
    """GFLOP/s of a square matrix product, the best of ten."""
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    return 2 * side**3 / min(timed(lambda: a @ b, device) for _ in range(10)) / 1e9


if __name__ == "__main__":
    command(main, DiffusionConfig)
