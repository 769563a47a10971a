"""Undecoded images and what is known of them: sizes, kinds, what cannot be read."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from triptych.config.base import DataConfig
from triptych.data.decoding import DecodingError, decode, read_header, resize, to_channels
from triptych.errors import UserError


class Rows(Protocol):
    """The images of a split, undecoded."""

    def __len__(self) -> int: ...

    def content(self, row: int) -> bytes | str | Path:
        """A file's content, or where it lies. Raises :class:`DecodingError`."""

    def path(self, row: int) -> str | None:
        """Its name, with the folders it lies in, if it has one."""


@dataclass
class Files:
    """Images that are files of their own, or were in a zip; one that could not be unpacked is the reason why."""

    names: list[str]
    contents: list[bytes | Path | DecodingError]

    def __len__(self) -> int:
        return len(self.names)

    def content(self, row: int) -> bytes | Path:
        if isinstance(self.contents[row], DecodingError):
            raise self.contents[row]
        return self.contents[row]

    def path(self, row: int) -> str:
        return self.names[row]


def say(text: str) -> None:
    """Print to stderr, once however many processes train together."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr)


@dataclass
class Records:
    """Undecoded images, and what is known of them."""

    rows: Rows
    config: DataConfig
    passed_over: str = ""
    without_labels: str = ""
    splits: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.corrupt: dict[int, str] = {}
        self.sizes: dict[int, tuple[int, int]] = {}  # upright width and height of what can be opened
        self.channels = 0
        self.image_size = 0
        self.indices = np.arange(len(self.rows))
        self._num_grey = 0
        self._deep: set[int] = set()  # rows of integers of more than 8 bits
        self._brightest = 0  # of these, so far

    def path(self, index: int) -> str | None:
        """What row `index` is called, with its folders, if it is a file."""
        return self.rows.path(index)

    def name(self, index: int) -> str:
        """What to call row `index` in a message."""
        path = self.path(index)
        return f"image {index} ({path})" if path else f"image {index}"

    def survey(self) -> np.ndarray:
        """Read every header: size, kind and what cannot be opened. Returns the row numbers that remain."""
        for index in range(len(self.rows)):
            try:
                header = read_header(self.rows.content(index))
            except DecodingError as error:
                self.give_up(index, error)
                continue
            self.sizes[index] = header.size
            self._num_grey += header.grey
            if header.deep:
                self._deep.add(index)
        self.indices = np.array(list(self.sizes))
        if not self.sizes:
            raise UserError(
                f"data.path {self.config.path!r}: none of {len(self.rows)} images could be read (the first: "
                f"{next(iter(self.corrupt.values()))})."
            )
        self.channels = self.config.channels or (1 if self._num_grey == len(self.sizes) else 3)
        return self.indices

    def remark(self, class_names: list[str] | None) -> str:
        """The end of a sentence that tells how many images there are: their classes, or why there are none, and what is
        passed over."""
        reason = f" without classes ({self.without_labels})" if self.without_labels else ""
        classes = f" in {len(class_names)} classes" if class_names else reason
        return classes + (f"; passed over: {self.passed_over}" if self.passed_over else "")

    def announce(self, count: str, class_names: list[str] | None, tell: bool = True) -> None:
        """Say what there is ("15 images"), if `tell`, and what may not be as it was meant, in any case."""
        source = f"data.path {self.config.path!r}, split {self.config.split!r}"
        if tell:
            say(f"{source}: {count}{self.remark(class_names)}")
        if self.config.channels is None and self.channels == 3 and self._num_grey:
            say(
                f"{source}: {self._num_grey} of {len(self.sizes)} images are grey and become colour; data.channels 1 "
                f"makes all of them grey."
            )
        if 0 < self._brightest <= 16:
            say(
                f"warning: {source}: the images of 16 bits are nearly black. If they hold 12 bits or fewer, multiply "
                f"them before: the files don't tell."
            )

    def require_squares(self) -> None:
        """Settle the side that all images have, or are resized to."""
        usual = Counter(self.sizes.values()).most_common(1)[0][0][0]
        self.image_size = self.config.image_size or usual
        for index, (width, height) in self.sizes.items():
            if self.config.image_size is None and (width, height) != (usual, usual):
                raise UserError(
                    f"data.path {self.config.path!r}: {self.name(index)} is {width}x{height} pixels; the images "
                    f"must all be square and of one size. Set data.image_size to resize and centre-crop them all."
                )

    def decode(self, index: int, image_size: int | None = None) -> np.ndarray:
        """Row `index` as uint8 (C, H, W); with `image_size` resized and centre-cropped to that side.

        Raises:
            DecodingError: it cannot be.
        """
        pixels = to_channels(decode(self.rows.content(index)), self.channels)
        if index in self._deep:
            self._brightest = max(self._brightest, int(pixels.max()))
        if image_size is not None:
            pixels = resize(pixels, image_size)
        return pixels.transpose(2, 0, 1)

    def decode_all(self) -> tuple[np.ndarray, np.ndarray]:
        """All images, uint8 (N, C, H, W), and which of the surveyed rows they are."""
        pixels = np.empty((len(self.indices), self.channels, self.image_size, self.image_size), np.uint8)
        kept = np.ones(len(self.indices), bool)

        def fill(position: int) -> None:
            index = int(self.indices[position])
            try:
                pixels[position] = self.decode(index, self.image_size)
            except DecodingError as error:
                self.give_up(index, error)
                kept[position] = False

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(fill, range(len(self.indices)), chunksize=256):
                pass
        if not kept.any():
            raise UserError(
                f"data.path {self.config.path!r}: none of {len(kept)} images could be decoded (the first: "
                f"{next(iter(self.corrupt.values()))})."
            )
        return (pixels if kept.all() else pixels[kept]), kept

    def give_up(self, index: int, error: Exception) -> None:
        """Row `index` cannot be decoded: refuse it or note it, as `config` says."""
        if self.config.on_corrupt == "refuse":
            raise UserError(
                f"data.path {self.config.path!r}: {self.name(index)} cannot be decoded ({error}). Mend or remove it, "
                f"or set data.on_corrupt to skip to go on without it."
            ) from None
        self.corrupt[index] = str(error)

    def report(self, only: int | None = None) -> None:
        named = list(self.corrupt) if only is None else [only]
        if named:
            names = ", ".join(self.name(index) for index in named[:5]) + (", ..." if len(named) > 5 else "")
            print(f"warning: skipped {len(named)} images that cannot be decoded: {names}", file=sys.stderr)
