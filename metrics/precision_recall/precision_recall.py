"""Improved precision and recall of a set of generated images, computed by torch-fidelity."""

from __future__ import annotations

import operator
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

DESCRIPTION = """
Improved precision and recall (Kynkaanniemi et al. 2019, eqs. 1 and 2). Each set is described by balls around its
features that reach to the k-th nearest neighbour in the same set. Precision: the fraction of generated images inside
the real images' balls; recall: the fraction of real images inside the generated images'. The first falls when images
are poor, the second when they lack variety. Both change with n, so compare at the same n and reference_n only.
"""

KWARGS_DESCRIPTION = """
Args:
    predictions: features of the generated images, (N, D).
    reference: features of the real images, (M, D).
    features: what the features are, such as the name of their extractor; part of the result's name.
    num_neighbors: k, the paper's 3.
    batch_size: rows of the distance matrix computed at once.

Returns:
    precision, recall, name, features, num_neighbors, n and reference_n.
"""


class PrecisionRecall(evaluate.Metric):
    """See DESCRIPTION."""

    def _info(self) -> evaluate.MetricInfo:
        info = evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="Kynkaanniemi et al. 2019, arXiv:1904.06991",
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
        num_neighbors: int = 3,
        batch_size: int = 1000,
    ) -> dict[str, Any]:
        generated, real = as_features(predictions, "predictions"), as_features(reference, "reference")
        if generated.shape[1] != real.shape[1]:
            raise ValueError(
                f"predictions have {generated.shape[1]} features an image, the reference {real.shape[1]}: they come "
                f"from different extractors or layers. Compute both with the same one."
            )
        least = min(len(generated), len(real))
        batch_size, num_neighbors = whole("batch_size", batch_size), whole("num_neighbors", num_neighbors)
        if not 1 <= num_neighbors < least:
            raise ValueError(
                f"num_neighbors {num_neighbors} must lie between 1 and {least - 1}: no image has more neighbours in "
                f"sets of {len(generated)} and {len(real)}."
            )
        # by rows: the whole distance matrix of 50,000 images would take 20 GB
        settings = {"prc_neighborhood": num_neighbors, "prc_batch_size": batch_size, "save_cpu_ram": True}
        found = prc_features_to_metric(generated, real, **settings, verbose=False)
        return {
            "precision": found[KEY_METRIC_PRECISION],
            "recall": found[KEY_METRIC_RECALL],
            "name": f"Improved precision and recall, {features}",
            "features": features,
            "num_neighbors": num_neighbors,
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


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int of at least `least`; or a ValueError that names it."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return operator.index(value)
