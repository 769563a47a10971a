"""Sets of images, and the ranges of their values."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from triptych.data.storage import InMemory, Storage
from triptych.seeds import keyed_generator


class ImageSet(torch.utils.data.Dataset):
    """Images, with labels where there are any: all of one size, or of any sizes and cut to squares at each access.

    Indexed by a list (``__getitems__``): returns ``pixels``, uint8 (B, C, H, W), and ``labels``, int64 (B,),
    all -1 where the data has none. Held in memory or decoded at each access; the caller sees no difference.

    Images that are cut are asked for by visits, epoch * len + index: where a square is cut is a function of
    (crop_seed, visit), so every epoch shows other parts of an image and a resumed run the same ones. A pair is one
    picture of twice the channels, clean first and then noisy, so that whatever is cut or mirrored is so in both.

    Args:
        storage: where the pixels lie.
        labels: class of each image, (N,), if there are any.
        class_names: names by label id, or None.
        channels: 1 or 3, of an image (not of a pair).
        image_size: side in pixels of what is returned; 0 where there are only whole images of any sizes.
        num_skipped: images left out because they could not be decoded.
        crop_seed: of the places at which squares of `image_size` are cut; None = nothing is cut.
        paired: whether each image comes with its noisy version.
        remark: what else a reader should know, as the end of a sentence (:meth:`Records.remark`).
        splits: names of all splits there are.
    """

    def __init__(
        self,
        storage: Storage,
        labels: np.ndarray | None,
        class_names: list[str] | None,
        channels: int,
        image_size: int,
        num_skipped: int = 0,
        crop_seed: int | None = None,
        paired: bool = False,
        remark: str = "",
        splits: Sequence[str] = (),
    ):
        self._storage = storage
        self._labels = None if labels is None else torch.from_numpy(labels.astype(np.int64))
        self.class_names = class_names
        self.channels = channels
        self.image_size = image_size
        self.num_skipped = num_skipped
        self._crop_seed = crop_seed
        self.paired = paired
        self.remark, self.splits = remark, tuple(splits)

    @property
    def has_labels(self) -> bool:
        return self._labels is not None

    @property
    def in_memory(self) -> bool:
        return isinstance(self._storage, InMemory)

    @property
    def by_visit(self) -> bool:
        """Whether the loader asks for visits (:class:`BatchOrder`) instead of indices."""
        return self._crop_seed is not None

    def __len__(self) -> int:
        return len(self._storage)

    def every_other(self, first: int) -> ImageSet:
        """Half of the images: the even ones for `first` 0, the odd ones for 1."""
        half = copy.copy(self)
        half._storage = self._storage.every_other(first)
        half._labels = None if self._labels is None else self._labels[first::2]
        return half

    def __getitems__(self, visits: Sequence[int]) -> dict[str, torch.Tensor]:
        index = np.asarray(visits, dtype=np.int64)
        pixels, places = self._storage.read(index % len(self) if self.by_visit else index)
        if self.by_visit:
            pixels = [self._cut(image, int(visit)) for image, visit in zip(pixels, index, strict=True)]
        pixels = pixels if isinstance(pixels, np.ndarray) else np.stack(pixels)
        return {"pixels": torch.from_numpy(pixels), "labels": self._labels_of(places)}

    def __getitem__(self, visit: int) -> dict[str, torch.Tensor]:
        return {key: value[0] for key, value in self.__getitems__([visit]).items()}

    def whole(self, index: int) -> torch.Tensor:
        """Image `index` uncut, uint8 (C, H, W); of a pair (2 C, H, W)."""
        return torch.from_numpy(self._storage.read(np.array([index]))[0][0].copy())

    def label(self, index: int) -> int:
        """Class of image `index`, -1 where there are none."""
        return -1 if self._labels is None else int(self._labels_of(self._storage.read(np.array([index]))[1]))

    def _labels_of(self, places: np.ndarray) -> torch.Tensor:
        """Labels of the images that were read: whatever stands in for a corrupt one brings its own."""
        return torch.full((len(places),), -1) if self._labels is None else self._labels[torch.from_numpy(places)]

    def _cut(self, pixels: np.ndarray, visit: int) -> np.ndarray:
        generator = keyed_generator("crop", self._crop_seed, visit)
        y, x = (
            int(torch.randint(length - self.image_size + 1, (), generator=generator)) for length in pixels.shape[1:]
        )
        return pixels[:, y : y + self.image_size, x : x + self.image_size]


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
