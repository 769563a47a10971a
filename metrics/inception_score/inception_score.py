"""Inception score of a set of generated images, computed by torch-fidelity."""

from __future__ import annotations

import operator
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

INCEPTION = "inception-v3-compat"  # torch-fidelity's name of the network with the 2015 weights

DESCRIPTION = """
exp E_x KL(p(y | x) || p(y)), with p(y | x) a classifier's answer to a generated image (Salimans et al. 2016), mean and
standard deviation over disjoint parts of the set. Between 1 and the number of classes; high when each image is
recognised firmly and all classes occur. It sees no reference. It is called Inception score only with the logits of
Inception.
"""

KWARGS_DESCRIPTION = """
Args:
    predictions: logits of a classifier, (N, K).
    features: whose logits they are; part of the result's name.
    num_splits: parts of the set; each has its own p(y).
    seed: of the shuffling before the set is split.

Returns:
    inception_score, standard_deviation (over the parts), name, features, num_classes, n, num_splits and seed.
"""


class InceptionScore(evaluate.Metric):
    """See DESCRIPTION."""

    def _info(self) -> evaluate.MetricInfo:
        info = evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="Salimans et al. 2016, arXiv:1606.03498",
            inputs_description=KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("float32"))}),
        )
        info.format = "numpy"  # the constructor refuses it for rows, which are read as arrays all the same
        return info

    def _compute(
        self, predictions: Any, features: str = "unnamed classifier", num_splits: int = 10, seed: int = 0
    ) -> dict[str, Any]:
        shapes = {np.shape(row) for row in predictions}
        if len(shapes) != 1:
            raise ValueError(f"predictions must be logits, (N, K); they hold rows of {sorted(shapes) or 'nothing'}.")
        logits = torch.from_numpy(np.stack([np.asarray(row, np.float64) for row in predictions]))
        if not logits.isfinite().all():
            raise ValueError("predictions hold NaN or infinite logits.")
        num_splits = whole("num_splits", num_splits, 0)
        if not 1 <= num_splits <= len(logits):
            raise ValueError(f"num_splits {num_splits} must lie between 1 and the number of images, {len(logits)}.")
        found = isc_features_to_metric(logits, splits=num_splits, shuffle=True, rng_seed=seed)
        return {
            "inception_score": found[KEY_METRIC_ISC_MEAN],
            "standard_deviation": found[KEY_METRIC_ISC_STD],
            "name": "Inception score" if features == INCEPTION else f"Classifier score, {features}",
            "features": features,
            "num_classes": logits.shape[1],
            "n": len(logits),
            "num_splits": num_splits,
            "seed": seed,
        }


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int of at least `least`; or a ValueError that names it."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return operator.index(value)
