"""Latent spaces in the plane: a sample of images, quantiles of the prior, the projection of more dimensions."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import DiffusionPipeline
from sklearn.manifold import TSNE
from sklearn.neighbors import KNeighborsClassifier

from triptych.data.image_set import ImageSet, to_unit_interval
from triptych.errors import UserError
from triptych.seeds import keyed_generator


def sample_images(images: ImageSet, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A random sample without replacement: (count, C, H, W) in [0, 1] and labels (count,); all, if there are fewer."""
    chosen = torch.randperm(len(images), generator=keyed_generator("sample", seed))[:count]
    batch = images.__getitems__(chosen.tolist())
    return to_unit_interval(batch["pixels"]), batch["labels"]


def encode_means(pipe: DiffusionPipeline, pixels: torch.Tensor, name: str) -> np.ndarray:
    """Where a VAE puts images: the means of q(z | x), (N, C, H, W) in [0, 1] -> (N, D).

    Raises:
        UserError: the images are not such as the VAE, which the message calls `name`, takes.
    """
    try:
        return torch.cat([pipe.encode(part)[0].cpu() for part in pixels.split(500)]).numpy()
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None


def prior_plane(side: int) -> torch.Tensor:
    """Points of two latent variables at quantiles of N(0, I), a row of pictures after the other: (side^2, 2).

    z1 grows to the right and z2 upwards, and each of the side^2 cells holds the same share of the prior (Kingma &
    Welling 2014, appendix A).
    """
    quantiles = (torch.arange(side) + 0.5) / side
    z = torch.distributions.Normal(0.0, 1.0).icdf(quantiles)
    return torch.stack(torch.meshgrid(z, z.flip(0), indexing="xy"), dim=-1).reshape(-1, 2)


def decode_grid(pipe: DiffusionPipeline, z: torch.Tensor, rows: int) -> np.ndarray:
    """What latent variables decode to, for a figure: (rows * columns, D) -> (rows, columns, H, W, C) in [0, 1]."""
    images = pipe.decode(z, "np")
    return images.reshape(rows, -1, *images.shape[1:])


def project(means: np.ndarray, perplexity: float, seed: int) -> tuple[np.ndarray, tuple[str, str], str]:
    """Latent means in the plane, (N, D) -> (N, 2), names of the axes, and the method in words.

    One dimension is spread at random, two are shown as they are, more go through t-SNE (van der Maaten & Hinton 2008).
    """
    if means.shape[1] == 1:
        height = np.random.default_rng(seed).uniform(size=len(means))
        return np.column_stack([means[:, 0], height]), ("z1", "(spread at random)"), ""
    if means.shape[1] == 2:
        return means, ("z1", "z2"), ""
    points = TSNE(perplexity=perplexity, random_state=seed).fit_transform(means)
    return points, ("t-SNE 1", "t-SNE 2"), f", t-SNE at perplexity {perplexity:g}"


def knn_accuracy(
    pipe: DiffusionPipeline, train: ImageSet, test: ImageSet, means: torch.Tensor, num_neighbors: int
) -> float:
    """Accuracy on the test images of nearest neighbours among the latent means of the training images."""
    batches = [train.__getitems__(range(i, min(i + 1000, len(train)))) for i in range(0, len(train), 1000)]
    known = torch.cat([pipe.encode(to_unit_interval(b["pixels"]))[0].cpu() for b in batches])
    labels = torch.cat([b["labels"] for b in batches])
    classifier = KNeighborsClassifier(num_neighbors).fit(known.numpy(), labels.numpy())
    return float(classifier.score(means.numpy(), test.__getitems__(range(len(test)))["labels"].numpy()))
