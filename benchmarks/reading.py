"""How fast images are read: a table, and the same images as files in a folder and in a zip.

    python benchmarks/reading.py FOLDER_OF_CIFAR10

Each is opened, surveyed and decoded as a training does, in turn with bare Pillow, which opens the table's bytes one
after the other and checks nothing; so the ratio tells what finding, checking and scaling cost. The table must be in
the cache, so it is read once before. Nothing else should be running.
"""

from __future__ import annotations

from triptych.cli import command

import io
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from triptych.config.base import DataConfig
from triptych.data.decoding import as_picture
from triptych.data.sources import load_images, open_records
from triptych.devices import device_name
from triptych.training import machine

TURNS = 5


def main(path: str, split: str = "train", count: int = 10_000) -> None:
    """Time the reading of images.

    Args:
        path: a local data set in datasets format.
        split: of it.
        count: how many of its images are written as files, for the folder and the zip.
    """
    rows = open_records(DataConfig(path=path, split=split))[0].rows
    contents = [rows.content(row) for row in range(len(rows))]
    images = load_images(DataConfig(path=path, split=split))

    def bare(number: int) -> Callable[[], None]:
        def work() -> None:
            for content in contents[:number]:
                with Image.open(io.BytesIO(content)) as image:
                    np.asarray(image)

        return work

    with tempfile.TemporaryDirectory() as temporary:
        folder, archive = Path(temporary) / "set", Path(temporary) / "set.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for index in range(min(count, len(images))):
                name = f"{images.label(index)}/{index:06d}.png"
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                as_picture(images.whole(index).permute(1, 2, 0).numpy()).save(folder / name)
                file.write(folder / name, name)
        name, threads = device_name(torch.device("cpu")), torch.get_num_threads()
        print(f"{name}, {threads} threads, {images.image_size}x{images.image_size} pixels")
        for kind, config in (
            ("table", DataConfig(path=path, split=split)),
            ("folder", DataConfig(path=str(folder))),
            ("zip", DataConfig(path=str(archive))),
        ):
            number = len(load_images(config))
            ours, pillows = zip(
                *((seconds(lambda c=config: load_images(c)), seconds(bare(number))) for _ in range(TURNS)), strict=True
            )
            ratio = statistics.median(b / a for a, b in zip(ours, pillows, strict=True))
            rate = number / statistics.median(ours)
            print(
                f"{kind:7} {rate:8.0f} images/s   {ratio:6.0%} of bare Pillow, median of {TURNS} turns, n = {number:,}"
            )
    print(f"peak memory  {machine.peak_memory_mb():.0f} MB")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    command(main)
