"""Images of any sizes: random squares of them to train on, whole ones to test on; alone, or in pairs."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
import torch

from triptych.config.base import DataConfig
from triptych.data.decoding import DecodingError
from triptych.data.records import Records
from triptych.data.sources import open_records
from triptych.errors import UserError
from triptych.seeds import keyed_generator


class PhotoSet(torch.utils.data.Dataset):
    """Images of any sizes, cut to one size at each access.

    Indexed by a list of visits (``__getitems__``), epoch * len + index: where a square is cut is a function of (seed,
    visit), so every epoch shows other parts of an image and a resumed run the same ones. Returns ``pixels``, uint8
    (B, C, crop_size, crop_size), and ``labels``, int64 (B,), all -1 where there are none. A pair is one picture of
    twice the channels, clean first and then noisy, so that whatever is cut or mirrored is cut and mirrored in both.

    Attributes:
        channels: 1 or 3, of an image (not of a pair). Grey images of a colour set become colour, colour ones of a grey
            set grey; transparency is laid on white.
        image_size: side of the squares; 0 without a `crop_size`, when there are only whole images.
        paired: whether each image comes with its noisy version.
        class_names: names by label id, or None.
        num_skipped: images left out because they could not be decoded.
    """

    by_visit = True

    def __init__(
        self,
        records: Records,
        rows: np.ndarray,
        partners: np.ndarray | None,
        labels: np.ndarray | None,
        class_names: list[str] | None,
        crop_size: int | None,
        seed: int,
    ):
        self._records, self._rows, self._partners = records, rows, partners
        self._labels = None if labels is None else torch.from_numpy(labels.astype(np.int64))
        self._seed = seed
        self.class_names, self.channels, self.image_size = class_names, records.channels, crop_size or 0
        self.paired = partners is not None
        self._held: list[tuple[np.ndarray, int]] | None = None
        num_bytes = sum(np.prod(records.sizes[row]) for row in rows) * records.channels * (2 if self.paired else 1)
        if num_bytes <= records.config.memory_limit_mb * 2**20:
            self._held = [self._decode(index) for index in range(len(rows))]
        self.num_skipped = len(records.corrupt)

    @property
    def has_labels(self) -> bool:
        return self._labels is not None

    def __len__(self) -> int:
        return len(self._rows)

    def whole(self, index: int) -> torch.Tensor:
        """Image `index` uncut, uint8 (C, H, W); of a pair (2 C, H, W)."""
        return torch.from_numpy(self._find(index)[0].copy())

    def label(self, index: int) -> int:
        """Class of image `index`, -1 where there are none."""
        return -1 if self._labels is None else int(self._labels[self._find(index)[1]])

    def __getitems__(self, visits: Sequence[int]) -> dict[str, torch.Tensor]:
        found, places = zip(*(self._find(visit % len(self)) for visit in visits), strict=True)
        pixels = np.stack([self._cut(image, visit) for image, visit in zip(found, visits, strict=True)])
        # Whatever stands in for an image that cannot be decoded brings its own label.
        labels = torch.full((len(visits),), -1) if self._labels is None else self._labels[list(places)]
        return {"pixels": torch.from_numpy(pixels), "labels": labels}

    def __getitem__(self, visit: int) -> dict[str, torch.Tensor]:
        return {key: value[0] for key, value in self.__getitems__([visit]).items()}

    def _cut(self, pixels: np.ndarray, visit: int) -> np.ndarray:
        generator = keyed_generator("crop", self._seed, visit)
        y, x = (
            int(torch.randint(length - self.image_size + 1, (), generator=generator)) for length in pixels.shape[1:]
        )
        return pixels[:, y : y + self.image_size, x : x + self.image_size]

    def _find(self, index: int) -> tuple[np.ndarray, int]:
        return self._decode(index) if self._held is None else self._held[index]

    def _decode(self, index: int) -> tuple[np.ndarray, int]:
        """Image `index`, or the next one that can be decoded, and its place: the set keeps its length and order."""
        for offset in range(len(self)):
            place = (index + offset) % len(self)
            row = int(self._rows[place])
            try:
                clean = self._records.decode(row)
                if self._partners is None:
                    return clean, place
                row = int(self._partners[place])
                noisy = self._records.decode(row)
            except DecodingError as error:
                if row not in self._records.corrupt:
                    self._records.give_up(row, error)
                    self._records.report(row)
                continue
            return np.concatenate([clean, noisy]), place
        raise UserError(f"data.path {self._records.config.path!r}: no image could be decoded.")


def load_photos(
    config: DataConfig,
    crop_size: int | None = None,
    paired: bool = False,
    num_channels: int | None = None,
    seed: int = 0,
) -> PhotoSet:
    """Read the images that `config` names, of whatever sizes.

    Args:
        config: a folder, a zip or a Hub id; ``image_size`` must not be set.
        crop_size: side of the squares to cut; None = only whole images are asked for.
        paired: the images lie in folders ``noisy`` and ``clean``, under the same names.
        num_channels: what the images are converted to where `config` doesn't say (a trained network's channels).
        seed: of the places at which squares are cut.

    Raises:
        UserError: as :func:`triptych.data.sources.load_images`; an image is smaller than the squares; a pair is
            incomplete or its two sizes differ.
    """
    if config.path == "digits":
        raise UserError("The embedded digits are 8x8 pixels, all alike: leave crop_size and paired unset for them.")
    if config.image_size is not None:
        raise UserError("data.image_size resizes, crop_size cuts: set one of the two.")
    records, labels, class_names = open_records(config)
    rows = records.survey()
    if config.channels is None and num_channels is not None:
        records.channels = num_channels
    partners = None
    if paired:
        rows, partners = match_pairs(records)
        labels = class_names = None  # the folders are halves of pairs, not classes
    if crop_size is not None:
        small = [row for row in rows if min(records.sizes[row]) < crop_size]
        if small:
            width, height = records.sizes[small[0]]
            raise UserError(
                f"data.path {config.path!r}: {len(small)} of {len(rows)} images are smaller than crop_size "
                f"{crop_size}, such as {records.name(small[0])} ({width}x{height}). Lower crop_size, or take them out."
            )
    records.report()
    images = PhotoSet(records, rows, partners, None if labels is None else labels[rows], class_names, crop_size, seed)
    records.announce(f"{len(images)} {'pairs' if paired else 'images'}", class_names)
    return images


def match_pairs(records: Records) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the clean images and of their noisy versions, matched by their paths below ``clean`` and ``noisy``.

    The file's suffix doesn't matter: ``noisy/a.jpg`` belongs to ``clean/a.png``. Nor does it whether an accent is
    stored as part of its letter or behind it. Without an image that cannot be opened its pair is left out.

    Raises:
        UserError: an image lies in neither folder, has no counterpart, two, or one of another size.
    """
    source = f"data.path {records.config.path!r}"
    halves: dict[str, dict[str, int]] = {"clean": {}, "noisy": {}}
    for row in sorted([*records.indices.tolist(), *records.corrupt]):
        parts = PurePath(unicodedata.normalize("NFC", records.path(row) or "")).parts
        folder = next((place for place in reversed(range(len(parts) - 1)) if parts[place] in halves), None)
        if folder is None:
            raise UserError(
                f"{source}: {records.name(row)} lies neither in a folder 'clean' nor in one called 'noisy', and paired "
                f"images must."
            )
        key = str(PurePath(*parts[folder + 1 :]).with_suffix(""))
        if key in halves[parts[folder]]:
            raise UserError(f"{source}: there are two images {parts[folder]}/{key}. Keep one.")
        halves[parts[folder]][key] = row
    lonely = sorted(f"{half}/{key}" for half, other in (("clean", "noisy"), ("noisy", "clean"))
                    for key in halves[half].keys() - halves[other].keys())  # fmt: skip
    if lonely:
        named = ", ".join(lonely[:5]) + (", ..." if len(lonely) > 5 else "")
        raise UserError(
            f"{source}: {len(lonely)} images have no counterpart: {named}. Every image needs one of the same name in "
            f"the other folder."
        )
    names = sorted(
        name for name in halves["clean"] if not {half[name] for half in halves.values()} & records.corrupt.keys()
    )
    for name in names:
        sizes = [records.sizes[halves[half][name]] for half in ("clean", "noisy")]
        if sizes[0] != sizes[1]:
            (a, b), (c, d) = sizes
            raise UserError(
                f"{source}: clean/{name} is {a}x{b} pixels and noisy/{name} {c}x{d}; a pair must be of one size."
            )
    return tuple(np.array([halves[half][name] for name in names]) for half in ("clean", "noisy"))
