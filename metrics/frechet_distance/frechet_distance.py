"""Frechet distance between two sets of features, computed by torch-fidelity."""

from __future__ import annotations

import warnings
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

INCEPTION = "inception-v3-compat"  # torch-fidelity's name of the network with the 2015 weights: only this gives an FID

DESCRIPTION = """
Frechet distance between the Gaussians that have the mean and covariance of two sets of features (Dowson & Landau 1982;
Heusel et al. 2017, eq. 6). Smaller is better, 0 for equal sets. It is called FID only on Inception's features.
"""

KWARGS_DESCRIPTION = """
Args:
    predictions: features of the generated images, (N, D).
    reference: features of the real images, (M, D); M need not be N.
    features: what the features are, such as the name of their extractor; part of the result's name.

Returns:
    frechet_distance, name, features, dimensions, n, reference_n, and covers_dimensions: whether each set has more
    images than features have dimensions. Otherwise the distance is biased upwards, and a warning says so.
"""


class FrechetDistance(evaluate.Metric):
    """See DESCRIPTION."""

    def _info(self) -> evaluate.MetricInfo:
        info = evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="Heusel et al. 2017, arXiv:1706.08500",
            inputs_description=KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("float32"))}),
        )
        info.format = "numpy"  # the constructor refuses it for rows, which are read as arrays all the same
        return info

    def _compute(self, predictions: Any, reference: Any = None, features: str = "unnamed features") -> dict[str, Any]:
        generated, real = as_features(predictions, "predictions"), as_features(reference, "reference")
        if generated.shape[1] != real.shape[1]:
            raise ValueError(
                f"predictions have {generated.shape[1]} features an image, the reference {real.shape[1]}: they come "
                f"from different extractors or layers. Compute both with the same one."
            )
        dimensions, least = generated.shape[1], min(len(generated), len(real))
        if least <= dimensions:
            warnings.warn(
                f"{least} images for {dimensions} feature dimensions: the covariance is singular and the Frechet "
                f"distance biased upwards, the more so the fewer the images. Compare it only with distances at the "
                f"same n, or use more than {dimensions} images in both sets.",
                stacklevel=3,
            )
        statistics = [fid_features_to_statistics(each) for each in (generated, real)]
        return {
            # a distance: rounding alone takes it below 0
            "frechet_distance": max(0.0, fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]),
            "name": "FID" if features == INCEPTION else f"Frechet distance, {features}",
            "features": features,
            "dimensions": dimensions,
            "covers_dimensions": least > dimensions,
            "n": len(generated),
            "reference_n": len(real),
        }


def as_features(array: Any, name: str) -> torch.Tensor:
    """(N, D), N >= 2, finite, in double precision; or a ValueError that says what `name` lacks."""
    if array is None:
        raise ValueError(
            "There is no reference: pass the features of the real images, (M, D), as `reference` (not `references`, "
            "of which evaluate wants as many as there are predictions)."
        )
    if torch.is_tensor(array):
        array = array.detach().cpu().double()  # in double precision: NumPy has no bfloat16
    rows = [np.asarray(row.detach().cpu().double() if torch.is_tensor(row) else row) for row in array]
    if len({row.shape for row in rows}) > 1:
        raise ValueError(f"{name} hold rows of different sizes, {sorted({row.shape for row in rows})}.")
    if len(rows) < 2 or rows[0].ndim != 1:
        raise ValueError(f"{name} must be (N, D) with N of at least 2, not {len(rows)} rows.")
    features = torch.from_numpy(np.stack(rows).astype(np.float64))
    if not features.isfinite().all():
        raise ValueError(f"{name} hold NaN or infinite features.")
    return features
