"""Measure a saved VAE on a test set: the parts of the ELBO, the likelihood, reconstructions, the latent space.

    python scripts/score_vae.py runs/demo_vae_digits/pipeline --data.path digits

Writes scores.json beside the pipeline's folder. All likelihoods in nats per image, mean over the images.
"""

from __future__ import annotations

from triptych.cli import command

import dataclasses
import json
from pathlib import Path
from typing import Literal

import torch
from tqdm.auto import tqdm

from triptych.config.base import DataConfig
from triptych.data.image_set import to_unit_interval
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.latents import knn_accuracy
from triptych.evaluation.likelihoods import elbo_parts, make_decoder, summarize_elbo
from triptych.evaluation.similarity import psnr, ssim
from triptych.evaluation.work_sharing import require_one_process
from triptych.outputs import claim_file
from triptych.pipelines.store import load_pipeline, weights_hash
from triptych.seeds import keyed_generator


def main(
    pipeline: str,
    data: DataConfig = DataConfig(),  # noqa: B008 - frozen
    train_split: str = "train",
    test_split: str = "test",
    num_importance_samples: int = 500,
    dtype: Literal["float32", "bfloat16"] = "float32",
    device: str | None = None,
    num_neighbors: int = 5,
    batch_size: int = 100,
    seed: int = 0,
    output: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Measure a VAE.

    Args:
        pipeline: folder of a saved pipeline.
        data: where the images come from; its split is set by the two next.
        train_split: the latent means the nearest neighbours are looked for among.
        test_split: what is measured, whole.
        num_importance_samples: k of the importance-weighted bound (Burda et al. 2016); also averages the ELBO.
        dtype: precision in which the samples of z are decoded; where bfloat16 is native it takes half the time.
        device: cpu, cuda, mps; the best there is if not given.
        num_neighbors: of the k-NN classifier on latent means.
        batch_size: images at once.
        seed: of the latent samples, and of the pixels drawn black or white for that likelihood.
        output: the JSON file to write; scores.json beside the pipeline's folder, or in runs if that is on the Hub,
            if not given.
        overwrite: replace an output file that is there already.
    """
    path = output or (Path(pipeline).parent if Path(pipeline).exists() else Path("runs")) / "scores.json"
    claim_file(path, overwrite, ".json")
    if num_importance_samples < 1 or num_neighbors < 1 or batch_size < 1:
        raise UserError("num_importance_samples, num_neighbors and batch_size must be at least 1.")
    require_one_process()
    pipe = load_pipeline(pipeline, "vae").to(find_device(device))
    train, test = (
        load_images(dataclasses.replace(data, split=split), split_setting=setting)
        for split, setting in ((train_split, "train_split"), (test_split, "test_split"))
    )
    if (test.channels, test.image_size, test.image_size) != pipe.image_shape:
        raise UserError(
            f"{pipeline} takes images of {pipe.image_shape}; the data has {test.channels, test.image_size}."
        )

    if num_neighbors > len(train):
        raise UserError(
            f"num_neighbors {num_neighbors} is more than the {len(train)} images of the split {train_split!r}."
        )

    decode = make_decoder(pipe.vae, dtype)
    parts: dict[str, list[torch.Tensor]] = {}  # of each batch
    for first in tqdm(range(0, len(test), batch_size), unit="batch"):
        pixels = to_unit_interval(test.__getitems__(range(first, min(first + batch_size, len(test))))["pixels"])
        if pipe.config.likelihood == "binarized_bernoulli":
            pixels = (torch.rand(pixels.shape, generator=keyed_generator("pixels", seed, first)) < pixels).float()
        mean, logvar = pipe.encode(pixels)
        reconstruction = pipe.decode(mean)
        measured = {
            "mean": mean.cpu(),
            "mse": (reconstruction - pixels).square().flatten(1).mean(1),
            "psnr": psnr(pixels, reconstruction),
            "ssim": ssim(pixels, reconstruction),
        }
        if pipe.vae.config.variational:
            generator = keyed_generator("posterior", seed, first)
            measured |= elbo_parts(pipe, decode, pixels, mean, logvar, num_importance_samples, generator)
        for key, value in measured.items():
            parts.setdefault(key, []).append(value)
    measured = {key: torch.cat(values) for key, values in parts.items()}  # (N,) or (N, latent_dim)

    scores = {
        "n": len(test),
        "split": test_split,
        "data": data.path,
        "seed": seed,
        "weights": weights_hash(pipeline),
        "likelihood": pipe.config.likelihood,
        "latent_dim": pipe.vae.config.latent_dim,
        "parameters": sum(p.numel() for p in pipe.vae.parameters()),
        **{key: float(measured[key].double().mean()) for key in ("mse", "psnr", "ssim")},
    }
    if pipe.vae.config.variational:
        scores |= {"num_importance_samples": num_importance_samples, "dtype": dtype, **summarize_elbo(measured)}
    if test.has_labels and train.has_labels:
        accuracy = knn_accuracy(pipe, train, test, measured["mean"], num_neighbors)
        scores |= {"num_neighbors": num_neighbors, "knn_accuracy": accuracy}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(scores, indent=2) + "\n")
    for key, value in scores.items():
        print(f"{key:40} {value:.4f}" if isinstance(value, float) else f"{key:40} {value}")
    print(path)


if __name__ == "__main__":
    command(main)
