"""Kernel distance between two sets of features, computed by torch-fidelity."""

from __future__ import annotations

import operator
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

INCEPTION = "inception-v3-compat"  # torch-fidelity's name of the network with the 2015 weights: only this gives a KID

DESCRIPTION = """
Squared maximum mean discrepancy between two sets of features under the polynomial kernel (x.y / D + 1)^3, unbiased,
mean and standard deviation over random subsets (Binkowski et al. 2018). Around 0 for equal distributions, below it by
chance. Unlike the Frechet distance it has no bias with few images. It is called KID only on Inception's features.
"""

KWARGS_DESCRIPTION = """
Args:
    predictions: features of the generated images, (N, D).
    reference: features of the real images, (M, D); M need not be N.
    features: what the features are, such as the name of their extractor; part of the result's name.
    num_subsets, subset_size: how many subsets are drawn, and how many images each has, without replacement.
    degree: of the polynomial.
    seed: of the subsets.

Returns:
    kernel_distance, standard_deviation (over the subsets), name, features, n, reference_n and the settings.
"""


class KernelDistance(evaluate.Metric):
    """See DESCRIPTION."""

    def _info(self) -> evaluate.MetricInfo:
        info = evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="Binkowski et al. 2018, arXiv:1801.01401",
            inputs_description=KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("float32"))}),
        )
        info.format = "numpy"  # the constructor refuses it for rows, which are read as arrays all the same
        return info

    def _compute(
        self,
        predictions: Any,
        reference: Any = None,
        features: str = "unnamed features",
        num_subsets: int = 100,
        subset_size: int = 1000,
        degree: int = 3,
        seed: int = 0,
    ) -> dict[str, Any]:
        generated, real = as_features(predictions, "predictions"), as_features(reference, "reference")
        if generated.shape[1] != real.shape[1]:
            raise ValueError(
                f"predictions have {generated.shape[1]} features an image, the reference {real.shape[1]}: they come "
                f"from different extractors or layers. Compute both with the same one."
            )
        least = min(len(generated), len(real))
        num_subsets, degree = whole("num_subsets", num_subsets), whole("degree", degree)
        subset_size = whole("subset_size", subset_size)
        if not 2 <= subset_size <= least:
            raise ValueError(
                f"subset_size {subset_size} does not fit sets of {len(generated)} and {len(real)} images: choose it "
                f"between 2 and {least}, the same for all results that are to be compared."
            )
        settings = {"kid_subsets": num_subsets, "kid_subset_size": subset_size, "kid_kernel_poly_degree": degree}
        found = kid_features_to_metric(generated, real, **settings, rng_seed=seed, verbose=False)
        return {
            "kernel_distance": found[KEY_METRIC_KID_MEAN],
            "standard_deviation": found[KEY_METRIC_KID_STD],
            "name": "KID" if features == INCEPTION else f"Kernel distance, {features}",
            "features": features,
            "n": len(generated),
            "reference_n": len(real),
            "num_subsets": num_subsets,
            "subset_size": subset_size,
            "degree": degree,
            "seed": seed,
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


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int of at least `least`; or a ValueError that names it."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return operator.index(value)
