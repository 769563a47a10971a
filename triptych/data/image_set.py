"""Images of one shape, and the ranges of their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from triptych.data.records import Records


class ImageSet(torch.utils.data.Dataset):
    """Images of one shape, with labels where there are any.

    Indexed by a list (``__getitems__``): returns ``pixels``, uint8 (B, C, H, W), and ``labels``, int64 (B,),
    all -1 where the data has none. Held in memory or decoded at each access; the caller sees no difference.

    Attributes:
        channels: 1 or 3.
        image_size: side in pixels.
        class_names: names by label id, or None.
        num_skipped: images left out because they could not be decoded.
        by_visit: whether the loader asks for visits (:class:`BatchOrder`) instead of indices.
    """

    by_visit = False

    def __init__(
        self,
        source: np.ndarray | Records,
        labels: np.ndarray | None,
        class_names: list[str] | None,
        channels: int,
        image_size: int,
        num_skipped: int = 0,
    ):
        self._source = source
        self._labels = None if labels is None else torch.from_numpy(labels.astype(np.int64))
        self.class_names = class_names
        self.channels = channels
        self.image_size = image_size
        self.num_skipped = num_skipped

    @property
    def has_labels(self) -> bool:
        return self._labels is not None

    @property
    def in_memory(self) -> bool:
        return isinstance(self._source, np.ndarray)

    def __len__(self) -> int:
        return len(self._source)

    def every_other(self, first: int) -> ImageSet:
        """Half of the images: the even ones for `first` 0, the odd ones for 1."""
        labels = None if self._labels is None else self._labels[first::2].numpy()
        source = self._source[first::2]
        return ImageSet(source, labels, self.class_names, self.channels, self.image_size, self.num_skipped)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        index = np.asarray(indices, dtype=np.int64)
        if isinstance(self._source, np.ndarray):
            pixels = self._source[index]
        else:
            some, places = zip(*(self._source.replacement(int(i)) for i in index), strict=True)
            pixels, index = np.stack(some), np.array(places)  # whatever stands in brings its own label
        labels = torch.full((len(index),), -1) if self._labels is None else self._labels[torch.from_numpy(index)]
        return {"pixels": torch.from_numpy(pixels), "labels": labels}

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def whole(self, index: int) -> torch.Tensor:
        """Image `index`, uint8 (C, H, W)."""
        return self[index]["pixels"]

    def label(self, index: int) -> int:
        """Class of image `index`, -1 where there are none."""
        return int(self[index]["labels"])


def to_images(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 in 0..255 -> float in [-1, 1], any shape."""
    return pixels.float().div_(127.5).sub_(1)


def to_unit_interval(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 in 0..255 -> float in [0, 1], any shape."""
    return pixels.float().div_(255)


def describe(images: ImageSet) -> dict[str, Any]:
    """What a run records of its data."""
    return {
        "num_images": len(images),
        "channels": images.channels,
        "image_size": images.image_size,
        "class_names": images.class_names,
        "num_skipped": images.num_skipped,
    }
