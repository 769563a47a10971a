"""Measure a saved VAE on a test set: the parts of the ELBO, the likelihood, reconstructions, the latent space.

    python scripts/score_vae.py runs/demo_vae_digits/pipeline --data.path digits

Writes scores.json beside the pipeline's folder. All likelihoods in nats per image, mean over the images.
"""

from __future__ import annotations

from triptych.cli import command

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline
from sklearn.neighbors import KNeighborsClassifier
from tqdm.auto import tqdm

from triptych.config.base import DataConfig
from triptych.data.image_set import ImageSet, to_unit_interval
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.similarity import psnr, ssim
from triptych.losses.vae import importance_weighted_bound, kl_to_standard_normal, negative_log_likelihood
from triptych.pipelines.store import load_pipeline, weights_hash
from triptych.seeds import keyed_generator

DECODES = 500  # images decoded at once: bounds the memory whatever k is, and stays in the cache of a CPU


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
        output: the JSON file to write; scores.json beside the pipeline's folder if not given.
    """
    if num_importance_samples < 1 or num_neighbors < 1 or batch_size < 1:
        raise UserError("num_importance_samples, num_neighbors and batch_size must be at least 1.")
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
        again = pipe.decode(mean)
        measured = {
            "mean": mean.cpu(),
            "mse": (again - pixels).square().flatten(1).mean(1),
            "psnr": psnr(pixels, again),
            "ssim": ssim(pixels, again),
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
    path = output or Path(pipeline).parent / "scores.json"
    path.write_text(json.dumps(scores, indent=2) + "\n")
    for key, value in scores.items():
        print(f"{key:40} {value:.4f}" if isinstance(value, float) else f"{key:40} {value}")
    print(path)


def make_decoder(vae: torch.nn.Module, dtype: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """z -> logits, the network in `dtype`, but for its first layer: bfloat16's 8 bits are too few for z."""
    if dtype == "float32":
        return vae.decode
    layers = copy.deepcopy(vae.decoder).to(torch.bfloat16)  # a third faster than autocast, which casts at every layer
    return lambda z: layers(vae.from_latents(z).to(torch.bfloat16)).float()


@torch.no_grad()
def elbo_parts(
    pipe: DiffusionPipeline,
    decode: Callable[[torch.Tensor], torch.Tensor],
    pixels: torch.Tensor,
    mean: torch.Tensor,
    logvar: torch.Tensor,
    num_samples: int,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Of each image: -log p(x | z), mean over the samples, (B,); KL, (B, D); importance-weighted bound, (B,)."""
    eps = torch.randn(num_samples, *mean.shape, generator=generator).to(mean.device)
    pixels = pixels.to(mean.device)
    z = mean + (0.5 * logvar).exp() * eps  # (K, B, D)
    log_sigma = pipe.vae.log_sigma
    if log_sigma is None and pipe.config.sigma is not None:
        log_sigma = torch.tensor(math.log(pipe.config.sigma), device=mean.device)
    log_likelihood = []
    for some in z.split(max(1, DECODES // len(pixels))):  # (k, B, D)
        logits = decode(some.flatten(0, 1))
        repeated = pixels.repeat(len(some), 1, 1, 1)
        nll = negative_log_likelihood(pipe.config.likelihood, logits, repeated, log_sigma)
        log_likelihood.append(-nll.view(len(some), -1))
    log_likelihood = torch.cat(log_likelihood)  # (K, B)
    parts = {
        "reconstruction": -log_likelihood.mean(0),
        "kl": kl_to_standard_normal(mean, logvar),
        "bound": importance_weighted_bound(log_likelihood, z, mean, logvar),
    }
    return {key: part.cpu() for key, part in parts.items()}


def summarize_elbo(measured: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Means over the images, in nats, and what the latent dimensions are used for."""
    reconstruction, kl, bound = (measured[key].double() for key in ("reconstruction", "kl", "bound"))
    return {
        "reconstruction": float(reconstruction.mean()),
        "kl": float(kl.sum(1).mean()),
        "neg_elbo": float((reconstruction + kl.sum(1)).mean()),
        "importance_weighted_nll": -float(bound.mean()),
        "importance_weighted_nll_standard_error": float(bound.std()) / math.sqrt(len(bound)),
        "kl_per_dimension": kl.mean(0).tolist(),
        # Burda et al. 2016, section 5.2: a dimension is active when its mean varies with the image.
        "active_units": int((measured["mean"].var(0) > 0.01).sum()),
    }


def knn_accuracy(
    pipe: DiffusionPipeline, train: ImageSet, test: ImageSet, means: torch.Tensor, num_neighbors: int
) -> float:
    """Accuracy on the test images of nearest neighbours among the latent means of the training images."""
    batches = [train.__getitems__(range(i, min(i + 1000, len(train)))) for i in range(0, len(train), 1000)]
    known = torch.cat([pipe.encode(to_unit_interval(b["pixels"]))[0].cpu() for b in batches])
    labels = torch.cat([b["labels"] for b in batches])
    classifier = KNeighborsClassifier(num_neighbors).fit(known.numpy(), labels.numpy())
    return float(classifier.score(means.numpy(), test.__getitems__(range(len(test)))["labels"].numpy()))


if __name__ == "__main__":
    command(main)
