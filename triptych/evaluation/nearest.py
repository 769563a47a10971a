"""Whether drawn images are copies: how near the nearest training image is, by pixels or by features.

An image that is a copy has one training image far nearer than all others, and nearer than images that the training
never saw have theirs (Carlini et al. 2023, "Extracting Training Data from Diffusion Models", section 4).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neighbors import NearestNeighbors

from triptych.evaluation.statistics import mean_and_interval


def nearest_two(views: list[np.ndarray], training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distances to the nearest two of the training images, and which they are.

    Args:
        views: (N, D) of the same N images, as they are, mirrored, ...: the view that lies nearest counts.
        training: (M, D), M of at least 2.

    Returns:
        Distances and indices, (N, 2) each; the second nearest is another image than the nearest.
    """
    index = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(training)
    found = [index.kneighbors(view) for view in views]
    distances, indices = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    order = distances.argsort(axis=1, kind="stable")
    distances, indices = (np.take_along_axis(each, order, axis=1) for each in (distances, indices))
    other = (indices != indices[:, :1]).argmax(axis=1)  # the first that isn't the nearest once more
    rows = np.arange(len(indices))
    return tuple(np.stack([each[:, 0], each[rows, other]], axis=1) for each in (distances, indices))


def compare_nearness(drawn: np.ndarray, unseen: np.ndarray) -> dict[str, Any]:
    """How near drawn images are to the training images, beside how near unseen real ones are.

    Args:
        drawn, unseen: distances of :func:`nearest_two`, (N, 2) and (M, 2).

    Returns:
        By group the mean distance to the nearest, the mean ratio of the nearest to the second nearest (1: no image
        stands out; 0: a copy), each with a 95 % interval, and the smallest of both; and "nearer_than_most", the share
        of drawn images that are nearer than all but 1 % of the unseen ones, which is 1 % where nothing is copied.
    """
    scores: dict[str, Any] = {}
    for group, distances in (("drawn", drawn), ("unseen", unseen)):
        ratio = distances[:, 0] / np.maximum(distances[:, 1], 1e-12)
        for name, values in (("distance", distances[:, 0]), ("ratio", ratio)):
            scores[f"{group}_{name}"], scores[f"{group}_{name}_interval"] = mean_and_interval(values)
            scores[f"{group}_smallest_{name}"] = float(values.min())
    near = drawn[:, 0] < np.quantile(unseen[:, 0], 0.01)
    scores["nearer_than_most"], scores["nearer_than_most_interval"] = mean_and_interval(near)
    return scores
