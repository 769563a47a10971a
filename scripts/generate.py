"""Draw images of given classes from a saved pipeline: a folder of PNGs, a grid, and the settings used.

    python scripts/generate.py pretrained/cifar10-class-conditional --classes cat,ship --output runs/cats_and_ships

Image k of a class depends on (seed, class, k) alone, so a larger order begins with the images of a smaller one.
"""

from __future__ import annotations

from triptych.cli import command

import json
import re
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.work_sharing import require_one_process
from triptych.figures.images import save_image_grid
from triptych.outputs import claim_folder
from triptych.pipelines.sampling import chosen_classes
from triptych.pipelines.schedulers import scheduler_class
from triptych.pipelines.store import load_pipeline
from triptych.seeds import image_generators


def main(
    pipeline: str,
    output: Path = Path("runs/generated"),
    classes: list[str | int] | str | None = None,
    num_images_per_class: int = 10,
    seed: int = 0,
    batch_size: int = 50,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    scheduler: str | None = None,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    overwrite: bool = False,
) -> None:
    """Generate images.

    Args:
        pipeline: folder of a saved pipeline, or a Hub id.
        output: folder for the PNGs, grid.png and settings.json.
        classes: names or ids, separated by commas; all classes if not given.
        num_images_per_class: images of each class.
        seed: of the noise.
        batch_size: images drawn at once.
        num_inference_steps: steps of the scheduler; the pipeline's own default if not given.
        guidance_scale: 1 = no guidance; the pipeline's own default if not given.
        guidance_interval: guide only between these noise levels, [0.3,5]; the pipeline's own default if not given.
        scheduler: any diffusers scheduler by name; the pipeline's own if not given.
        device: cpu, cuda, mps; the best there is if not given.
        dtype: precision of the network.
        overwrite: write into an output folder that already holds something.
    """
    claim_folder(output, overwrite)
    if num_images_per_class < 1 or batch_size < 1:
        raise UserError("num_images_per_class and batch_size must be at least 1.")
    require_one_process()
    pipe = load_pipeline(pipeline, "unet").to(find_device(device), getattr(torch, dtype))
    pipe.set_progress_bar_config(disable=True)
    if scheduler is not None:
        pipe.scheduler = scheduler_class(scheduler).from_config(pipe.scheduler.config)
    ids = chosen_classes(pipe, classes)

    sampling = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
    sampling |= {"guidance_interval": guidance_interval}
    sampling = {key: pipe.config.get(key) if value is None else value for key, value in sampling.items()}

    order = [(class_id, k) for class_id in ids for k in range(num_images_per_class)]
    output.mkdir(parents=True, exist_ok=True)
    drawn, start = [], time.perf_counter()
    for first in tqdm(range(0, len(order), batch_size), unit="batch"):
        batch = order[first : first + batch_size]
        pixels = pipe(
            [class_id for class_id, _ in batch],
            generator=image_generators(seed, batch),
            output_type="np",
            **{key: value for key, value in sampling.items() if value is not None},
        ).images  # (B, H, W, C) in [0, 1]
        for (class_id, k), image in zip(batch, pipe.numpy_to_pil(pixels), strict=True):
            image.save(output / f"{file_stem(class_id, pipe.class_names[class_id])}_{k:05d}.png")
        if len(drawn) < 1000:  # a grid of more could not be read
            drawn.extend(pixels)
    seconds = time.perf_counter() - start

    columns = min(num_images_per_class, 20)
    shown = [c for c in range(len(ids)) if (c + 1) * num_images_per_class <= len(drawn)]
    if shown:
        grid = np.stack([drawn[c * num_images_per_class : c * num_images_per_class + columns] for c in shown])
        save_image_grid(grid, output / "grid.png", row_labels=[pipe.class_names[ids[c]] for c in shown])
    settings = {
        "pipeline": pipeline,
        "classes": [pipe.class_names[i] for i in ids],
        "num_images_per_class": num_images_per_class,
        "seed": seed,
        **sampling,
        "scheduler": type(pipe.scheduler).__name__,
        "dtype": dtype,
        "seconds": round(seconds, 2),
        "images_per_second": round(len(order) / seconds, 2),
    }
    (output / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    print(f"{len(order)} images in {seconds:.1f} s: {output}" + (f", grid: {output / 'grid.png'}" if shown else ""))


def file_stem(class_id: int, name: str) -> str:
    return f"{class_id:02d}_{re.sub(r'[^A-Za-z0-9-]+', '_', name)}"


if __name__ == "__main__":
    command(main)
