"""Measure a saved VAE on a test set: the parts of the ELBO, the likelihood, reconstructions, the latent space.

    python scripts/score_vae.py runs/demo_vae_digits/pipeline --data.path digits

Writes scores.json beside the pipeline's folder. All likelihoods in nats per image, mean over the images.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.neighbors import KNeighborsClassifier
from tqdm.auto import tqdm

from triptych.config import DataConfig, UserError, command
from triptych.data import ImageSet, load_images, to_images
from triptych.export import load_pipeline
from triptych.losses import importance_weighted_bound, kl_to_standard_normal, negative_log_likelihood
from triptych.seeds import keyed_generator

DECODES = 2000  # images decoded at once: bounds the memory whatever the number of importance samples


def main(
    pipeline: str,
    data: DataConfig = DataConfig(),  # noqa: B008 - frozen
    train_split: str = "train",
    test_split: str = "test",
    num_importance_samples: int = 500,
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
        num_neighbors: of the k-NN classifier on latent means.
        batch_size: images at once.
        seed: of the latent samples, and of the pixels drawn black or white for that likelihood.
        output: the JSON file to write; scores.json beside the pipeline's folder if not given.
    """
    if num_importance_samples < 1 or num_neighbors < 1 or batch_size < 1:
        raise UserError("num_importance_samples, num_neighbors and batch_size must be at least 1.")
    pipe = load_pipeline(pipeline)
    if not hasattr(pipe, "vae"):
        raise UserError(f"{pipeline} is a {type(pipe).__name__}, not a VAE.")
    train, test = (load_images(DataConfig(**{**vars(data), "split": s})) for s in (train_split, test_split))
    if (test.channels, test.image_size, test.image_size) != pipe.image_shape:
        raise UserError(
            f"{pipeline} takes images of {pipe.image_shape}; the data has {test.channels, test.image_size}."
        )

    variational = pipe.vae.config.variational
    parts = {"reconstruction": [], "kl": [], "importance_weighted_log_likelihood": []}
    means, psnr, ssim, mse = [], [], [], []
    for first in tqdm(range(0, len(test), batch_size), unit="batch"):
        index = range(first, min(first + batch_size, len(test)))
        pixels = to_images(test.__getitems__(index)["pixels"]) / 2 + 0.5  # (B, C, H, W) in [0, 1]
        if pipe.config.likelihood == "binarized_bernoulli":
            pixels = (torch.rand(pixels.shape, generator=keyed_generator("pixels", seed, first)) < pixels).float()
        mean, logvar = pipe.encode(pixels)
        means.append(mean)
        if variational:
            z, log_likelihood = sample_posterior(pipe, pixels, mean, logvar, num_importance_samples, seed, first)
            parts["reconstruction"].append(-log_likelihood.mean(0))
            parts["kl"].append(kl_to_standard_normal(mean, logvar))
            parts["importance_weighted_log_likelihood"].append(
                importance_weighted_bound(log_likelihood, z, mean, logvar)
            )
        again = pipe.decode(mean)
        mse.append((again - pixels).square().flatten(1).mean(1))
        for a, b in zip(pixels.permute(0, 2, 3, 1).numpy(), again.permute(0, 2, 3, 1).numpy(), strict=True):
            psnr.append(peak_signal_noise_ratio(a, b, data_range=1.0))
            window = min(7, a.shape[0] - 1 + a.shape[0] % 2)
            ssim.append(structural_similarity(a, b, data_range=1.0, channel_axis=2, win_size=window))

    means = torch.cat(means)
    scores = {
        "n": len(test),
        "split": test_split,
        "data": data.path,
        "seed": seed,
        "likelihood": pipe.config.likelihood,
        "latent_dim": pipe.vae.config.latent_dim,
        "mse": float(torch.cat(mse).mean()),
        "psnr": float(np.mean(psnr)),
        "ssim": float(np.mean(ssim)),
    }
    if variational:
        kl = torch.cat(parts["kl"])  # (N, D)
        reconstruction = float(torch.cat(parts["reconstruction"]).mean())
        bound = torch.cat(parts["importance_weighted_log_likelihood"])
        scores |= {
            "num_importance_samples": num_importance_samples,
            "reconstruction": reconstruction,
            "kl": float(kl.sum(1).mean()),
            "neg_elbo": reconstruction + float(kl.sum(1).mean()),
            "importance_weighted_nll": -float(bound.mean()),
            "importance_weighted_nll_standard_error": float(bound.std()) / math.sqrt(len(bound)),
            "kl_per_dimension": kl.mean(0).tolist(),
            # Burda et al. 2016, section 2: a dimension is active when its mean varies with the image.
            "active_units": int((means.var(0) > 0.01).sum()),
        }
    if test.has_labels and train.has_labels:
        scores |= {
            "num_neighbors": num_neighbors,
            "knn_accuracy": knn_accuracy(pipe, train, test, means, num_neighbors),
        }
    path = output or Path(pipeline).parent / "scores.json"
    path.write_text(json.dumps(scores, indent=2) + "\n")
    for key, value in scores.items():
        print(f"{key:40} {value:.4f}" if isinstance(value, float) else f"{key:40} {value}")
    print(path)


@torch.no_grad()
def sample_posterior(
    pipe, pixels: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor, k: int, seed: int, first: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """k samples of q(z | x) and their log p(x | z): (K, B, D), (K, B)."""
    eps = torch.randn(k, *mean.shape, generator=keyed_generator("posterior", seed, first))
    z = mean + (0.5 * logvar).exp() * eps
    log_sigma = pipe.vae.log_sigma
    if log_sigma is None and pipe.config.sigma is not None:
        log_sigma = torch.tensor(math.log(pipe.config.sigma))
    rows = max(1, DECODES // len(pixels))
    log_likelihood = []
    for some in z.split(rows):  # (k', B, D)
        logits = pipe.vae.decode(some.flatten(0, 1))
        repeated = pixels.repeat(len(some), 1, 1, 1)
        nll = negative_log_likelihood(pipe.config.likelihood, logits, repeated, log_sigma)
        log_likelihood.append(-nll.view(len(some), -1))
    return z, torch.cat(log_likelihood)


def knn_accuracy(pipe, train: ImageSet, test: ImageSet, means: torch.Tensor, num_neighbors: int) -> float:
    """Accuracy on the test images of nearest neighbours among the latent means of the training images."""
    batches = [train.__getitems__(range(i, min(i + 1000, len(train)))) for i in range(0, len(train), 1000)]
    known = torch.cat([pipe.encode(to_images(b["pixels"]) / 2 + 0.5)[0] for b in batches])
    labels = torch.cat([b["labels"] for b in batches])
    classifier = KNeighborsClassifier(num_neighbors).fit(known.numpy(), labels.numpy())
    return float(classifier.score(means.numpy(), test.__getitems__(range(len(test)))["labels"].numpy()))


if __name__ == "__main__":
    command(main)
