"""Structural similarity of images and their originals, computed by scikit-image."""

from __future__ import annotations

import operator
from typing import Any

import datasets
import evaluate
import numpy as np
from skimage.metrics import structural_similarity

DESCRIPTION = """
Structural similarity (Wang et al. 2004) of each image and its original, mean over uniform windows, channels and images.
Larger is better, 1 where the two are equal.
"""

KWARGS_DESCRIPTION = """
Args:
    predictions: the images, (N, C, H, W), or a list of (C, H, W) of different sizes.
    references: their originals, in the same order; the two of a pair have one size.
    data_range: 1 for images in [0, 1], 255 for uint8.
    window_size: side of the windows, odd; where an image is smaller, the largest odd one that fits.

Returns:
    ssim (mean over the images), each (the list), n, data_range and window_size.
"""


class SSIM(evaluate.Metric):
    """See DESCRIPTION."""

    def _info(self) -> evaluate.MetricInfo:
        image = datasets.Sequence(datasets.Sequence(datasets.Sequence(datasets.Value("float32"))))
        info = evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="Wang et al. 2004, doi:10.1109/TIP.2003.819861",
            inputs_description=KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": image, "references": image}),
        )
        info.format = "numpy"  # the constructor refuses it for images, which are read as arrays all the same
        return info

    def _compute(
        self, predictions: Any, references: Any, data_range: float = 1.0, window_size: int = 7
    ) -> dict[str, Any]:
        window_size = whole("window_size", window_size)
        if window_size < 3 or window_size % 2 == 0:
            raise ValueError(f"window_size must be an odd number of at least 3, not {window_size}.")
        each = []
        for image, original in pairs(predictions, references, data_range):
            side = min(image.shape[1:])
            if side < 3:
                raise ValueError(f"An image of {image.shape[1:]} pixels is too small for a window of 3 pixels.")
            window = min(window_size, side - 1 + side % 2)
            settings = {"data_range": data_range, "channel_axis": 0, "win_size": window}
            each.append(float(structural_similarity(original, image, **settings)))
        return {
            "ssim": float(np.mean(each)),
            "each": each,
            "n": len(each),
            "data_range": data_range,
            "window_size": window_size,
        }


def pairs(predictions: Any, references: Any, data_range: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and their originals, (C, H, W) each; a ValueError where a pair differs in size or leaves the range."""
    if not isinstance(data_range, (int, float, np.number)) or not 0 < data_range < np.inf:
        raise ValueError(f"data_range must be positive: 1 for images in [0, 1], 255 for uint8; not {data_range!r}.")
    both = [
        (np.asarray(a, np.float32), np.asarray(b, np.float32)) for a, b in zip(predictions, references, strict=True)
    ]
    if not both:
        raise ValueError("There are no images.")
    for index, (image, original) in enumerate(both):
        if image.shape != original.shape:
            raise ValueError(
                f"Pair {index}: the image is {image.shape} and its reference {original.shape} (channels, height, "
                f"width). Resize or crop one of them; pairs may differ from each other, the two of a pair may not."
            )
        if not (min(image.min(), original.min()) >= 0 and max(image.max(), original.max()) <= data_range):
            raise ValueError(
                f"Pair {index} does not lie in [0, data_range] = [0, {data_range:g}]. Give data_range=255 for uint8 "
                f"images, 1 for images in [0, 1]."
            )
    return both


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int of at least `least`; or a ValueError that names it."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return operator.index(value)
