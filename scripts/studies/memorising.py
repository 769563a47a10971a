"""Whether a trained diffusion pipeline repeats its training images: the nearest of them to each image it draws.

    python scripts/studies/memorising.py pretrained/cifar10-class-conditional --judge pretrained/judge-cifar10 \\
        --data.path uoft-cs/cifar10 --output runs/memorising

Nearness is measured in pixels and in a judge's features, and beside it that of real images which the training never
saw. Training images count mirrored too. The picture shows the most suspicious: those of the drawn images whose nearest
training image stands out most from the second nearest.
"""

from __future__ import annotations

from triptych.cli import command

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.extraction import extract
from triptych.evaluation.judges import load_critic
from triptych.evaluation.nearest import compare_nearness, nearest_two
from triptych.evaluation.reconstruction import first_of_each_class
from triptych.evaluation.scores import decides_drawing, draw, key_of
from triptych.evaluation.work_sharing import require_one_process
from triptych.figures.images import save_image_grid
from triptych.figures.tables import markdown, with_interval
from triptych.jsonl import Rows
from triptych.outputs import claim_study
from triptych.pipelines.store import load_pipeline


def main(
    pipeline: str,
    judge: str | None = None,
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    train_split: str = "train",
    num_images_per_class: int = 100,
    num_shown: int = 10,
    batch_size: int = 100,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    device: str | None = None,
    seed: int = 0,
    output: Path = Path("runs/memorising"),
    overwrite: bool = False,
) -> None:
    """Look for copies of training images.

    Args:
        pipeline: folder of a class-conditional pipeline, or a Hub id.
        judge: a classifier of scripts/train_classifier.py, or "inception"; if not given, the latter where its weights
            can be had, else the judge in pretrained/ that knows these classes.
        data: real images that the training did not see.
        train_split: the split that the pipeline was trained on.
        num_images_per_class: images of each class to draw, and unseen ones to compare them with.
        num_shown: of the drawn images, in the picture.
        batch_size: images drawn at once.
        dtype: precision of the drawing network.
        device: cpu, cuda, mps; the best there is if not given.
        seed: of the noise.
        output: folder of rows.jsonl, table.md and nearest.png.
        overwrite: write into an output folder that holds other things than this command's own work.
    """
    claim_study(output, overwrite)
    if train_split == data.split:
        raise UserError(f"train_split {train_split!r} is data.split too; there must be images that were not seen.")
    if not 1 <= num_shown <= 20:
        raise UserError(f"num_shown must lie between 1 and 20, not {num_shown}.")
    require_one_process()
    place = find_device(device)
    pipe = load_pipeline(pipeline, "unet", dtype=dtype).to(place)
    training = load_images(replace(data, split=train_split), split_setting="train_split")
    held_out = load_images(data, need_labels=True)
    if pipe.image_shape != (held_out.channels, held_out.image_size, held_out.image_size):
        raise UserError(f"{pipeline} draws images of {pipe.image_shape}; data.path {data.path} has others.")
    critic = load_critic(judge, held_out.class_names, held_out.image_size, place)
    unseen = held_out.__getitems__(first_of_each_class(held_out, num_images_per_class))["pixels"]
    drawn_by = decides_drawing(pipe, pipeline, {}, seed, dtype)  # at the pipeline's own settings
    kept = output / f"drawn_{key_of(drawn_by | {'batch_size': batch_size})}"
    drawn, _, _ = draw(pipe, {}, num_images_per_class, batch_size, seed, kept)
    seen = training.__getitems__(range(len(training)))["pixels"]

    def flat(images: torch.Tensor) -> np.ndarray:
        return images.flatten(1).numpy().astype(np.float32) / 255

    def features(images: torch.Tensor) -> np.ndarray:
        return extract(critic, images, cache=output / "features")["features"].numpy()

    rows, found, nearest = Rows(output / "rows.jsonl"), {}, {}
    for space, look in (("pixels", flat), ("features", features)):
        of_training = look(seen)
        (near, which), (near_unseen, _) = (
            nearest_two([look(images), look(images.flip(-1))], of_training) for images in (drawn, unseen)
        )
        key = drawn_by | {"space": space, "n": len(drawn), "training": len(seen), "judge": critic.fingerprint}
        found[space] = key | {"data": data.path} | compare_nearness(near, near_unseen)
        if rows.find(**key) is None:
            rows.add(found[space])
        nearest[space] = (near[:, 0] / near[:, 1], which[:, 0])

    titles = ["by", "nearest training image", "of unseen images", "nearest / second", "of unseen", "nearer than 99 %"]
    cells = (
        [
            space,
            *(with_interval(row, f"{group}_distance", 2) for group in ("drawn", "unseen")),
            *(with_interval(row, f"{group}_ratio", 3) for group in ("drawn", "unseen")),
            f"{round(row['nearer_than_most'] * len(drawn)):,} of {len(drawn):,}",  # an interval of none says nothing
        ]
        for space, row in found.items()
    )
    text = markdown(titles, cells)
    (output / "table.md").write_text(text)
    suspects = nearest["features"][0].argsort()[:num_shown]
    pictures = [drawn[suspects], *(seen[which[suspects]] for _, which in nearest.values())]
    grid = torch.stack(pictures).permute(0, 1, 3, 4, 2).numpy() / 255
    labels = ["drawn", *(f"nearest by {space}" for space in nearest)]
    print(text, output / "table.md", save_image_grid(grid, output / "nearest.png", labels), sep="\n")


if __name__ == "__main__":
    command(main)
