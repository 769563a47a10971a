"""Distance of images from their originals as a network sees them: LPIPS's formula without its learned weights."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
import torch.nn.functional as F

DESCRIPTION = """
Mean squared distance of a network's feature maps, each position's feature vector scaled to length 1, summed over the
maps and averaged over positions and images (Zhang et al. 2018, eq. 1 with all weights 1). Smaller is better, 0 where
the two are equal. It is not LPIPS, whose networks and learned weights come from the network: values compare only among
results of the same feature maps.
"""

KWARGS_DESCRIPTION = """
Args:
    predictions: the images, (N, C, H, W) in [0, 1].
    references: their originals, in the same order and of the same size.
    feature_maps: function of images, float tensors (B, C, H, W) in [0, 1], to a list of feature maps (B, ...).
    features: what the maps are, such as the name of their extractor; part of the result's name.
    batch_size: images shown to `feature_maps` at once.

Returns:
    perceptual_distance (mean over the images), each (the list), name, features, num_maps and n.
"""


class PerceptualDistance(evaluate.Metric):
    """See DESCRIPTION."""

    def _info(self) -> evaluate.MetricInfo:
        image = datasets.Sequence(datasets.Sequence(datasets.Sequence(datasets.Value("float32"))))
        info = evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="Zhang et al. 2018, arXiv:1801.03924",
            inputs_description=KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": image, "references": image}),
        )
        info.format = "numpy"  # the constructor refuses it for images, which are read as arrays all the same
        return info

    def _compute(
        self,
        predictions: Any,
        references: Any,
        feature_maps: Callable[[torch.Tensor], list[torch.Tensor]] | None = None,
        features: str = "unnamed feature maps",
        batch_size: int = 100,
    ) -> dict[str, Any]:
        if feature_maps is None:
            raise ValueError(
                "Pass feature_maps, a function of images (B, C, H, W) in [0, 1] to a list of feature maps."
            )
        batch_size = whole("batch_size", batch_size)
        if not len(predictions):
            raise ValueError("There are no images.")
        shapes = {np.shape(image) for image in (*predictions, *references)}
        if len(shapes) != 1:
            raise ValueError(f"The images must be of one size, not {sorted(shapes)}. Compute each size on its own.")
        images, originals = (torch.from_numpy(np.stack(list(x)).astype(np.float32)) for x in (predictions, references))
        if not all(x.min() >= 0 and x.max() <= 1 for x in (images, originals)):
            raise ValueError("The images must lie in [0, 1]; divide uint8 images by 255.")
        each, num_maps = [], 0
        for batch, batch_originals in zip(images.split(batch_size), originals.split(batch_size), strict=True):
            with torch.no_grad():
                maps = list(zip(feature_maps(batch), feature_maps(batch_originals), strict=True))
            num_maps = len(maps)
            if not maps:
                raise ValueError("feature_maps gave no feature maps.")
            each.append(sum(distance(a, b) for a, b in maps).cpu())
        each = torch.cat(each)
        if not each.isfinite().all():
            raise ValueError("feature_maps gave NaN or infinite features.")
        return {
            "perceptual_distance": float(each.double().mean()),
            "each": each.tolist(),
            "name": f"Perceptual distance, {features}",
            "features": features,
            "num_maps": num_maps,
            "n": len(each),
        }


def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """One map's part of Zhang et al. 2018, eq. 1: (B, C, H, W) twice -> (B,)."""
    difference = F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)
    return difference.square().sum(1).flatten(1).mean(1)


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int of at least `least`; or a ValueError that names it."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return operator.index(value)
