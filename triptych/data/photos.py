"""Images of any sizes: random squares of them to train on, whole ones to test on; alone, or in pairs."""

from __future__ import annotations

import unicodedata
from pathlib import PurePath

import numpy as np

from triptych.config.base import DataConfig
from triptych.data.image_set import ImageSet
from triptych.data.records import Records
from triptych.data.sources import load_images, open_records
from triptych.data.storage import InMemory, Stream
from triptych.errors import UserError


def load_photos(
    config: DataConfig,
    crop_size: int | None = None,
    paired: bool = False,
    num_channels: int | None = None,
    seed: int = 0,
    tell: bool = True,
) -> ImageSet:
    """Read the images that `config` names, of whatever sizes.

    Args:
        config: a folder, a zip or a Hub id; ``image_size`` must not be set.
        crop_size: side of the squares to cut; None = only whole images are asked for.
        paired: the images lie in folders ``noisy`` and ``clean``, under the same names.
        num_channels: what the images are converted to where `config` doesn't say (a trained network's channels).
        seed: of the places at which squares are cut.
        tell: say how many images there are.

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
    labels = None if labels is None else labels[rows]
    storage = Stream(records, rows, partners)
    num_bytes = sum(np.prod(records.sizes[row]) for row in rows) * records.channels * (2 if paired else 1)
    if num_bytes <= config.memory_limit_mb * 2**20:
        pixels, places = storage.read(np.arange(len(rows)))
        storage, labels = InMemory(pixels), None if labels is None else labels[places]
    crop_seed = None if crop_size is None else seed
    num_skipped, side = len(records.corrupt), crop_size or 0
    about = {"remark": records.remark(class_names), "splits": records.splits}
    images = ImageSet(storage, labels, class_names, records.channels, side, num_skipped, crop_seed, paired, **about)
    records.announce(f"{len(images)} {'pairs' if paired else 'images'}", class_names, tell)
    return images


def load_training_images(config: DataConfig, crop_size: int | None, paired: bool, seed: int) -> ImageSet:
    """Images of one size as they are; with a `crop_size` images of any sizes, cut, or pairs of them."""
    if crop_size is None:
        return load_images(config, tell=False)
    return load_photos(config, crop_size, paired, seed=seed, tell=False)


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
