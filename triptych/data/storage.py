"""Where the pixels of a set of images lie: in memory, or in files that are decoded at each access."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from triptych.data.decoding import DecodingError
from triptych.data.records import Records
from triptych.errors import UserError


class Storage(Protocol):
    """Images that can be read by their indices."""

    def __len__(self) -> int: ...

    def read(self, indices: np.ndarray) -> tuple[Sequence[np.ndarray], np.ndarray]:
        """Images, uint8 (C, H, W) each, and the index of each: another one's where that stands in for it."""

    def every_other(self, first: int) -> Storage:
        """Half of the images: the even ones for `first` 0, the odd ones for 1."""


@dataclass(frozen=True)
class InMemory:
    """Decoded images: one array (N, C, H, W), or a list of arrays where their sizes differ."""

    pixels: np.ndarray | list[np.ndarray]

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: np.ndarray) -> tuple[Sequence[np.ndarray], np.ndarray]:
        if isinstance(self.pixels, np.ndarray):
            return self.pixels[indices], indices
        return [self.pixels[index] for index in indices], indices

    def every_other(self, first: int) -> InMemory:
        return InMemory(self.pixels[first::2])


@dataclass(frozen=True)
class Stream:
    """Images that are decoded at each access; the set keeps its length and its order whatever turns out corrupt.

    Attributes:
        records: the undecoded images.
        rows: which of them, by index.
        partners: of pairs, the rows of the noisy versions: a pair is read as one image of twice the channels.
        image_size: the side that images are resized and centre-cropped to; None = they keep their sizes.
    """

    records: Records
    rows: np.ndarray
    partners: np.ndarray | None = None
    image_size: int | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, indices: np.ndarray) -> tuple[Sequence[np.ndarray], np.ndarray]:
        images, places = zip(*(self._read_or_replace(int(index)) for index in indices), strict=True)
        return list(images), np.array(places)

    def every_other(self, first: int) -> Stream:
        partners = None if self.partners is None else self.partners[first::2]
        return replace(self, rows=self.rows[first::2], partners=partners)

    def _read_or_replace(self, index: int) -> tuple[np.ndarray, int]:
        """Image `index`, or the next one that can be decoded, and the index of that one."""
        for offset in range(len(self)):
            place = (index + offset) % len(self)
            parts = [int(part[place]) for part in (self.rows, self.partners) if part is not None]
            if not self.records.corrupt.keys().isdisjoint(parts):
                continue
            decoded = [pixels for row in parts if (pixels := self._decode(row)) is not None]
            if len(decoded) == len(parts):
                return (decoded[0] if len(parts) == 1 else np.concatenate(decoded)), place
        raise UserError(f"data.path {self.records.config.path!r}: no image could be decoded.")

    def _decode(self, row: int) -> np.ndarray | None:
        """A row's pixels; None, once it is refused or noted as the settings say, if it cannot be decoded."""
        try:
            return self.records.decode(row, self.image_size)
        except DecodingError as error:
            self.records.give_up(row, error)
            self.records.report(row)
            return None
