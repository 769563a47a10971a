"""How many bits an image costs a diffusion model, step by step, and which noise levels a training objective is about.

    python scripts/studies/likelihood.py pretrained/cifar10-class-conditional --data.path uoft-cs/cifar10 \\
        --output runs/likelihood

The terms L_t of the variational bound (Ho et al. 2020, eq. 5) on test images, whose classes the network is told, in
bits per dimension, for both fixed variances of that paper; their sum, an upper bound of -log2 p(x); and how training
objectives share the same errors out among the noise levels. What is measured is kept batch by batch in measured_*/, so
the command can be interrupted. Ends in rows.jsonl, table.md and two charts.
"""

from __future__ import annotations

from triptych.cli import command

from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from triptych.config.base import DataConfig
from triptych.data.image_set import to_images
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.diffusion_bound import Measured, measure_images, strata
from triptych.evaluation.reconstruction import first_of_each_class
from triptych.evaluation.scores import key_of
from triptych.evaluation.work_sharing import require_one_process
from triptych.jsonl import Rows
from triptych.losses.bound import NoiseSteps
from triptych.outputs import claim_study, save_arrays
from triptych.pipelines.store import load_pipeline, weights_hash
from triptych.studies.likelihood import bound_rows, likelihood_charts, likelihood_table


def main(
    pipeline: str,
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    num_images_per_class: int = 100,
    num_strata: int = 100,
    batch_size: int = 50,
    device: str | None = None,
    seed: int = 0,
    output: Path = Path("runs/likelihood"),
    overwrite: bool = False,
) -> None:
    """Measure the variational bound.

    Args:
        pipeline: folder of a class-conditional pipeline, or a Hub id.
        data: the images; the first of each class are taken.
        num_images_per_class: images of each class.
        num_strata: parts the steps are cut into; every image gets one step of each at random.
        batch_size: images at once.
        device: cpu, cuda, mps; the best there is if not given.
        seed: of the steps and the noise; an image's are the same in any batch.
        output: folder of rows.jsonl, table.md and the charts.
        overwrite: write into an output folder that holds other things than this command's own work.
    """
    claim_study(output, overwrite)
    if num_images_per_class < 1 or num_strata < 2 or batch_size < 1:
        raise UserError("num_images_per_class and batch_size must be at least 1, num_strata 2.")
    require_one_process()
    pipe = load_pipeline(pipeline, "unet").to(find_device(device))
    images = load_images(data, need_labels=True)
    if (images.channels, images.image_size, images.image_size) != pipe.image_shape:
        raise UserError(f"{pipeline} draws {pipe.image_shape}; the data has {images.channels, images.image_size}.")
    if images.class_names != pipe.class_names:
        raise UserError(f"The classes of {pipeline}, {', '.join(pipe.class_names)}, are not the data's.")
    steps = NoiseSteps(pipe.scheduler.betas.cpu())
    if num_strata > len(steps.betas):
        raise UserError(f"num_strata {num_strata}: the network was trained on {len(steps.betas)} steps.")
    indices = first_of_each_class(images, num_images_per_class)
    key = {"weights": weights_hash(pipeline), "data": data.path, "split": data.split, "n": len(indices), "seed": seed}
    key |= {"num_strata": num_strata}

    folder = output / f"measured_{key_of(key)}"
    parts = []
    for first in tqdm(range(0, len(indices), batch_size), unit="batch"):
        batch = indices[first : first + batch_size]
        path = folder / f"{first:08d}_{len(batch)}.npz"
        if not path.exists():
            of_batch = images.__getitems__(batch)
            x0 = to_images(of_batch["pixels"])
            found = measure_images(pipe, x0, of_batch["labels"], batch, num_strata, seed)
            save_arrays(path, **{name: tensor.numpy() for name, tensor in vars(found).items()})
        with np.load(path) as kept:
            parts.append(Measured(**{name: torch.from_numpy(kept[name]) for name in kept.files}))
    measured = Measured.joined(parts)

    rows = Rows(output / "rows.jsonl")
    edges = strata(len(steps.betas), num_strata)
    found = bound_rows(measured, steps, edges, int(np.prod(pipe.image_shape)), pipe.config.data_std)
    for row in found:
        named = {name: row[name] for name in ("what", "variance", "weighting", "first") if name in row}
        if not rows.find(**key | named):
            rows.add(key | row)
    text = likelihood_table(found, key)
    (output / "table.md").write_text(text)
    print(f"\n{text}", output / "table.md", *likelihood_charts(found, output), sep="\n")


if __name__ == "__main__":
    command(main)
