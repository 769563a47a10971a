"""How far a VAE's bound lies below log p(x), and why: the Gaussian family, or one encoder for all images.

    python scripts/studies/inference_gap.py \\
        --models z2=pretrained/vae-mnist-z2,z4=pretrained/vae-mnist-z4,z16=pretrained/vae-mnist-z16 \\
        --data.path ylecun/mnist --output runs/inference_gap

For each test image the best Gaussian is searched for by itself (Cremer et al. 2018). log p(x) is integrated over the
plane where there are two latent variables; for more it is a lower bound, by importance sampling (Burda et al. 2016), so
that the approximation gap is "at least". A row is kept for each model, so the command can be interrupted. Ends in
table.md and a chart.
"""

from __future__ import annotations

from triptych.cli import command, named_folders

import dataclasses
from pathlib import Path
from typing import Any

import torch

from triptych.config.base import DataConfig
from triptych.data.image_set import to_unit_interval
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.inference_gap import split_gap
from triptych.evaluation.statistics import with_intervals
from triptych.evaluation.work_sharing import require_one_process
from triptych.figures.charts import save_bars
from triptych.figures.tables import markdown, percent_with_interval, with_interval
from triptych.jsonl import Rows
from triptych.outputs import claim_study
from triptych.pipelines.store import load_pipeline, weights_hash

PARTS = {"gap": "whole gap", "approximation": "approximation", "amortisation": "amortisation"}


def main(
    models: str = "",
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    train_split: str = "train",
    num_images: int = 500,
    num_elsewhere: int = 5000,
    num_updates: int = 150,
    num_samples: int = 300,
    device: str | None = None,
    seed: int = 0,
    output: Path = Path("runs/inference_gap"),
    overwrite: bool = False,
) -> None:
    """Split the gap.

    Args:
        models: saved VAEs by name, name=folder, separated by commas.
        data: the images; the first are taken.
        train_split: images whose places in the latent space the search may begin from, where they fit better.
        num_images: how many images.
        num_elsewhere: how many of those other places.
        num_updates: of the search for the best Gaussian of each image.
        num_samples: draws of z for log p(x).
        device: cpu, cuda, mps; the best there is if not given.
        seed: of all draws.
        output: folder of rows.jsonl, table.md and gap.png.
        overwrite: write into an output folder that holds other things than this command's own work.
    """
    claim_study(output, overwrite)
    folders = named_folders(models, "models")
    if min(num_images, num_elsewhere, num_updates, num_samples) < 1 or not folders:
        raise UserError(
            "models must name one at least; num_images, num_elsewhere, num_updates and num_samples must be at least 1."
        )
    require_one_process()
    place = find_device(device)
    test, train = load_images(data), load_images(dataclasses.replace(data, split=train_split))
    if len(test) < num_images or len(train) < num_elsewhere:
        raise UserError(f"num_images {num_images} or num_elsewhere {num_elsewhere} is more than there are images.")
    both = ((test, num_images), (train, num_elsewhere))
    pixels, others = (to_unit_interval(images.__getitems__(range(count))["pixels"]) for images, count in both)
    rows, found = Rows(output / "rows.jsonl"), {}
    for name, folder in folders.items():
        key = {"weights": weights_hash(folder), "data": data.path, "split": data.split, "n": num_images, "seed": seed}
        key |= {"num_elsewhere": num_elsewhere, "num_updates": num_updates, "num_samples": num_samples}
        if not rows.find(**key):
            pipe = load_pipeline(folder, "vae").to(place)
            if not pipe.vae.config.variational or pipe.config.likelihood == "binarized_bernoulli":
                raise UserError(f"{folder}: the gap is measured of VAEs, with pixels as they are.")
            if tuple(pixels.shape[1:]) != pipe.image_shape:
                raise UserError(f"{folder} takes images of {pipe.image_shape}; the data has {tuple(pixels.shape[1:])}.")
            print(name)
            elsewhere = [torch.cat(parts) for parts in zip(*map(pipe.encode, others.split(500)), strict=True)]
            parts = split_gap(pipe, pixels, tuple(elsewhere), num_updates, num_samples, seed)
            rows.add(key | {"model": name, "latent_dim": pipe.vae.config.latent_dim} | summarize(parts))
        found[name] = rows.find(**key)
    text = table(found)
    (output / "table.md").write_text(text)
    bars = {
        f"{title}, nats": {name: (row[part], row[f"{part}_interval"]) for name, row in found.items()}
        for part, title in PARTS.items()
    }
    print(f"\n{text}", output / "table.md", save_bars(bars, "What the bound loses", output / "gap.png"), sep="\n")


def summarize(parts: dict[str, torch.Tensor]) -> dict[str, float]:
    """Means over the images with half their 95 % intervals, and by how much the bound of log p(x) misses it."""
    return with_intervals(parts | {"missed": parts["evidence"] - parts["bound"]})


def table(found: dict[str, dict[str, Any]]) -> str:
    titles = ["model", "-ELBO", "-ELBO of the best Gaussians", "-log p(x)", *PARTS.values(), "found elsewhere"]
    lines = (
        [
            name,
            *(f"{-row[part]:.2f}" for part in ("elbo", "best_elbo", "evidence")),
            *(with_interval(row, part, 2) for part in PARTS),
            percent_with_interval(row["moved"], row["moved_interval"]),
        ]
        for name, row in found.items()
    )
    first = next(iter(found.values()))
    note = (
        f"In nats; n = {first['n']:,} images of {first['data']}, {first['split']}; {first['num_updates']} updates, "
        f"{first['num_samples']} draws for log p(x), seed {first['seed']}; ± half the 95 % interval over the images. "
        "With two latent variables log p(x) is integrated over the plane, with more it is a lower bound."
    )
    return f"{markdown(titles, lines)}\n\n{note}\n"


if __name__ == "__main__":
    command(main)
