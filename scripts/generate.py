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
from diffusers import DiffusionPipeline
from tqdm.auto import tqdm

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.reconstruction import first_of_each_class
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
    real: str | None = None,
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
        real: training images to compare with, named as data.path names them ("digits"): the first two of each class
            stand at the left of the grid.
        overwrite: write into an output folder that already holds something.
    """
    claim_folder(output, overwrite)
    if num_images_per_class < 1 or batch_size < 1:
        raise UserError("num_images_per_class and batch_size must be at least 1.")
    require_one_process()
    pipe = load_pipeline(pipeline, "unet", dtype=dtype).to(find_device(device))
    pipe.set_progress_bar_config(disable=True)
    if scheduler is not None:
        pipe.scheduler = scheduler_class(scheduler).from_config(pipe.scheduler.config)
    ids = chosen_classes(pipe, classes)
    beside = None if real is None else real_images(real, pipe, ids)

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
        titles = None
        if beside is not None:
            grid = np.concatenate([beside[shown], np.ones_like(grid[:, :1]), grid], axis=1)  # apart by a white column
            titles = ["real", *[""] * beside.shape[1], "drawn", *[""] * (columns - 1)]
        save_image_grid(grid, output / "grid.png", [pipe.class_names[ids[c]] for c in shown], column_labels=titles)
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


def real_images(path: str, pipe: DiffusionPipeline, ids: list[int], count: int = 2) -> np.ndarray:
    """The first `count` real images of each of the classes `ids`, (classes, count, H, W, C) in [0, 1].

    Raises:
        UserError: the images cannot be read, a class of the pipeline's isn't among theirs, or one of theirs has fewer.
    """
    channels, side, _ = pipe.image_shape
    images = load_images(DataConfig(path, channels=channels, image_size=side), need_labels=True, split_setting="real")
    if missing := [pipe.class_names[i] for i in ids if pipe.class_names[i] not in images.class_names]:
        raise UserError(f"real {path!r} has no class {missing[0]!r}. There are: {', '.join(images.class_names)}.")
    indices = first_of_each_class(images, count, f"real {path!r}: images of each class to show")
    pixels = images.__getitems__(indices)["pixels"].permute(0, 2, 3, 1).numpy() / 255
    pixels = pixels.reshape(len(images.class_names), count, *pixels.shape[1:])
    return pixels[[images.class_names.index(pipe.class_names[i]) for i in ids]].astype(np.float32)


def file_stem(class_id: int, name: str) -> str:
    return f"{class_id:02d}_{re.sub(r'[^A-Za-z0-9-]+', '_', name)}"


if __name__ == "__main__":
    command(main)
