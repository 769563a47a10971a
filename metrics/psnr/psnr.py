"""Peak signal-to-noise ratio of images against their originals, computed by scikit-image."""

from __future__ import annotations

import warnings
from typing import Any

import datasets
import evaluate
import numpy as np
from skimage.metrics import peak_signal_noise_ratio

DESCRIPTION = """
Peak signal-to-noise ratio, 10 log10(data_range^2 / mean squared error) in dB, of each image against its original, and
the mean over the images. Larger is better; infinite where the two are equal.
"""

KWARGS_DESCRIPTION = """
Args:
    predictions: the images, (N, C, H, W), or a list of (C, H, W) of different sizes.
    references: their originals, in the same order; the two of a pair have one size.
    data_range: 1 for images in [0, 1], 255 for uint8.

Returns:
    psnr (mean over the images, infinite if one equals its original), each (the list), num_identical, n and data_range.
"""


class PSNR(evaluate.Metric):
    """See DESCRIPTION."""

    def _info(self) -> evaluate.MetricInfo:
        image = datasets.Sequence(datasets.Sequence(datasets.Sequence(datasets.Value("float32"))))
        info = evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": image, "references": image}),
        )
        info.format = "numpy"  # the constructor refuses it for images, which are read as arrays all the same
        return info

    def _compute(self, predictions: Any, references: Any, data_range: float = 1.0) -> dict[str, Any]:
        with np.errstate(divide="ignore"):
            each = [
                float(peak_signal_noise_ratio(original, image, data_range=data_range))
                for image, original in pairs(predictions, references, data_range)
            ]
        identical = int(np.isinf(each).sum())
        if identical:
            warnings.warn(
                f"{identical} of {len(each)} images equal their originals: the mean is infinite.", stacklevel=3
            )
        return {
            "psnr": float(np.mean(each)),
            "each": each,
            "num_identical": identical,
            "n": len(each),
            "data_range": data_range,
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
