"""How fast a saved denoiser restores: small images by the hundreds, and one photograph of a megapixel.

    python benchmarks/restoring.py runs/regression_cifar10/pipeline

The small images go through the pipeline and through its bare network in turn, so the ratio tells what tensors, tiles
and copies cost; the photograph goes through in tiles, and the peak memory is the process's. Nothing else should be
running.
"""

from __future__ import annotations

from triptych.cli import command

import statistics
import time

import torch

from triptych.devices import device_name
from triptych.pipelines.store import load_pipeline
from triptych.training import machine

TURNS = 9


def main(pipeline: str, count: int = 500, image_size: int = 32, height: int = 1000, width: int = 1000) -> None:
    """Time a denoiser.

    Args:
        pipeline: folder of a saved denoiser.
        count: small images in a turn.
        image_size: their side.
        height: of the photograph.
        width: of the photograph.
    """
    machine.use_all_cores(None, 1)
    pipe = load_pipeline(pipeline, "denoiser")
    channels = pipe.denoiser.config.in_channels
    images = torch.rand(count, channels, image_size, image_size)
    photograph = torch.rand(channels, height, width)

    def through_network() -> None:
        with torch.no_grad():
            for some in images.split(64):
                pipe.denoiser(some * 2 - 1)

    def seconds(work) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    through_pipeline = lambda: pipe(images, output_type="pt")  # noqa: E731
    for work in (through_pipeline, through_network):
        work()
    whole, bare = zip(*((seconds(through_pipeline), seconds(through_network)) for _ in range(TURNS)), strict=True)
    ratios = sorted(b / w for b, w in zip(bare, whole, strict=True))
    name, threads = device_name(torch.device("cpu")), torch.get_num_threads()
    print(f"{name}, torch {torch.__version__}, {threads} threads, fp32")
    print(f"pipeline            {count / statistics.median(whole):8.0f} images/s of {image_size}x{image_size}")
    print(f"bare network        {count / statistics.median(bare):8.0f} images/s")
    print(f"pipeline / network  {statistics.median(ratios):8.1%}   median of {TURNS} turns")
    took = statistics.median(seconds(lambda: pipe(photograph, output_type="pt")) for _ in range(3))
    print(f"photograph          {took:8.1f} s for {height}x{width}, median of 3")
    print(f"peak memory         {machine.peak_memory_mb():8.0f} MB")


if __name__ == "__main__":
    command(main)
