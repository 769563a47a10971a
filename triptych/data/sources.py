"""From what a config names - a folder, a zip, a Hub id, scikit-learn's digits - to a set of images."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from triptych.config.base import DataConfig
from triptych.data.decoding import DecodingError
from triptych.data.image_set import ImageSet
from triptych.data.listing import list_folder, list_zip
from triptych.data.records import Files, Records, Rows, say
from triptych.data.splits import MissingSplit, read_split
from triptych.data.storage import InMemory, Storage, Stream
from triptych.data.tables import WAY_OUT, is_of_tables, open_from_hub, open_table, read_table, saved_to_disk
from triptych.errors import UserError


def load_images(
    config: DataConfig, need_labels: bool = False, split_setting: str = "data.split", tell: bool = True
) -> ImageSet:
    """Read the data set that `config` names.

    Args:
        config: what to read.
        need_labels: whether images without classes are refused.
        split_setting: the setting that chose the split, for the message that there is none such.
        tell: say how many images there are; a training says it among other things.

    Raises:
        UserError: it cannot be found, reached or decoded, is not square, or lacks the labels that are needed.
    """
    if config.path == "digits":
        return _load_digits(config, split_setting)
    records, labels, class_names = open_records(config, need_labels, split_setting)
    good = records.survey()
    records.require_squares()
    there = None if labels is None else set(labels.tolist())
    if labels is not None:
        labels = labels[good]
        if labels.min() < 0:
            raise UserError(
                f"data.path {config.path!r}: the split {config.split!r} has unlabelled images (label -1). "
                f"Choose a labelled split with {split_setting}."
            )
    size_mb = len(good) * records.channels * records.image_size**2 / 2**20
    storage: Storage = Stream(records, records.indices, image_size=records.image_size)
    if size_mb <= config.memory_limit_mb:
        pixels, kept = records.decode_all()
        storage = InMemory(pixels)
        labels = labels if labels is None else labels[kept]
    if need_labels and (emptied := there - set(labels.tolist())):
        names = ", ".join(class_names[label] for label in sorted(emptied))
        raise UserError(
            f"data.path {config.path!r}: no image of the class {names} can be decoded. Mend its images, or take the "
            f"class out."
        )
    records.announce(f"{len(storage)} images", class_names, tell)
    records.report()
    return ImageSet(
        storage,
        labels,
        class_names,
        records.channels,
        records.image_size,
        num_skipped=len(records.corrupt),
        remark=records.remark(class_names),
        splits=records.splits,
    )


def open_records(
    config: DataConfig, need_labels: bool = False, split_setting: str = "data.split"
) -> tuple[Records, np.ndarray | None, list[str] | None]:
    """The undecoded images that `config` names, their labels by row, and the names of the classes."""
    try:
        rows, labels, class_names, without_labels, passed_over, splits = _open(config)
    except MissingSplit as error:
        raise UserError(
            f"{split_setting} {config.split!r} does not exist in {config.path!r}: it has "
            f"{error.args[0]}{error.args[1]}. Set {split_setting} to one of them."
        ) from None
    if len(rows) == 0:
        passed = f" Passed over: {passed_over}." if passed_over else ""
        raise UserError(f"data.path {config.path!r}, split {config.split!r}, holds no images.{passed}")
    if labels is None and need_labels:
        raise UserError(
            f"data.path {config.path!r} has no labels ({without_labels}), and a class-conditional model needs them. "
            f"Name their column with data.label_column, or sort the images into one folder per class."
        )
    return Records(rows, config, passed_over, without_labels, splits), labels, class_names


def _load_digits(config: DataConfig, split_setting: str) -> ImageSet:
    """scikit-learn's 1,797 handwritten digits, 8x8, 17 grey levels; every fifth is a test image."""
    if config.split not in ("train", "test"):
        raise UserError(f"{split_setting} {config.split!r}: the embedded digits have the splits train and test.")
    digits = load_digits()
    chosen = (np.arange(len(digits.target)) % 5 == 0) == (config.split == "test")
    pixels = np.round(digits.images[chosen] * (255 / 16)).astype(np.uint8)
    if config.image_size:
        side = (config.image_size, config.image_size)
        pixels = np.stack([np.asarray(Image.fromarray(p).resize(side, Image.Resampling.BICUBIC)) for p in pixels])
    pixels = np.repeat(pixels[:, None], config.channels or 1, axis=1)
    names = [str(digit) for digit in digits.target_names]
    about = {"remark": f" in {len(names)} classes", "splits": ("test", "train")}
    return ImageSet(InMemory(pixels), digits.target[chosen], names, pixels.shape[1], pixels.shape[2], **about)


def _looks_local(path: str) -> bool:
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or "\\" in path or path.lower().endswith(".zip")


# rows, labels, names of the classes, why there are no labels, what is passed over, names of all splits
Opened = tuple[Rows, "np.ndarray | None", "list[str] | None", str, str, "list[str]"]


def _open(config: DataConfig) -> Opened:
    path = Path(config.path).expanduser()
    if not config.path.strip() or len(path.name.encode(errors="replace")) > 255:
        raise UserError(f"data.path {config.path[:50]!r} is no name of a folder, a zip or a data set. {WAY_OUT}")
    if path.is_dir():
        listing = list_folder(path)
        if saved_to_disk(path) or is_of_tables(path, listing):
            beside = f"{len(listing.images)} images beside the tables" if listing.images else ""
            loaded = open_table(path, config, listing)
            return *read_table(loaded, config), beside, sorted(map(str, loaded))
        split = read_split(
            listing, config.split, f"data.path {config.path!r}", config.image_column, config.label_column
        )
        files = Files(split.names, [path / name for name in split.names])
        return files, split.labels, split.class_names, split.without_labels, listing.passed_over(), split.among
    if path.is_file() and path.suffix.lower() == ".zip":
        return _open_zip(path, config)
    if path.is_file():
        raise UserError(f"data.path {config.path!r} is a file, but not a .zip. {WAY_OUT}")
    if _looks_local(config.path):
        raise UserError(f"data.path {config.path!r} does not exist (looked from {Path.cwd()}). {WAY_OUT}")
    loaded = open_from_hub(config)
    return *read_table(loaded, config), "", sorted(map(str, loaded))


def _open_zip(path: Path, config: DataConfig) -> Opened:
    """The images of a zip, as those of the folder that was zipped."""
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # not only BadZipFile: whatever a damaged directory makes zipfile raise
        raise UserError(f"data.path {config.path!r} is no readable zip ({error}). {WAY_OUT}") from None
    with archive:
        listing = list_zip(archive, lambda text: say(f"warning: {text}"))
        source = f"data.path {config.path!r}"
        split = read_split(listing, config.split, source, config.image_column, config.label_column)
        contents: list[bytes | Path | DecodingError] = []
        for name in split.names:
            try:
                contents.append(listing.read(name))
            except DecodingError as error:
                contents.append(error)
    files = Files(split.names, contents)
    return files, split.labels, split.class_names, split.without_labels, listing.passed_over(), split.among
