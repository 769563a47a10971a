"""Images: from the Hub, a local folder, a zip or scikit-learn's digits, to uint8 batches in a fixed order."""

from __future__ import annotations

import copy
import errno
import os
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
import torch
from huggingface_hub import HfApi, metadata_load
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from PIL import Image
from sklearn.datasets import load_digits

from triptych.config import DataConfig, UserError
from triptych.decoding import DecodingError, decode, read_header, resize, to_channels
from triptych.image_files import (
    Listing,
    MissingSplit,
    check_labels,
    list_folder,
    list_zip,
    read_split,
    read_tar,
    suffixes_in_tars,
)
from triptych.seeds import keyed_generator

HUB_TIMEOUT_SECONDS = 10


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


def load_images(config: DataConfig, need_labels: bool = False, split_setting: str = "data.split") -> ImageSet:
    """Read the data set that `config` names.

    Args:
        config: what to read.
        need_labels: whether images without classes are refused.
        split_setting: the setting that chose the split, for the message that there is none such.

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
    source: np.ndarray | Records = records
    if size_mb <= config.memory_limit_mb:
        source, kept = records.decode_all()
        labels = labels if labels is None else labels[kept]
    if need_labels and (emptied := there - set(labels.tolist())):
        names = ", ".join(class_names[label] for label in sorted(emptied))
        raise UserError(
            f"data.path {config.path!r}: no image of the class {names} can be decoded. Mend its images, or take the "
            f"class out."
        )
    records.announce(f"{len(source)} images", class_names)
    records.report()
    return ImageSet(source, labels, class_names, records.channels, records.image_size, num_skipped=len(records.corrupt))


def open_records(
    config: DataConfig, need_labels: bool = False, split_setting: str = "data.split"
) -> tuple[Records, np.ndarray | None, list[str] | None]:
    """The undecoded images that `config` names, their labels by row, and the names of the classes."""
    try:
        rows, labels, class_names, without_labels, passed_over = _open(config)
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
    return Records(rows, config, passed_over, without_labels), labels, class_names


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
    return ImageSet(pixels, digits.target[chosen], names, pixels.shape[1], pixels.shape[2])


def _looks_local(path: str) -> bool:
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or "\\" in path or path.lower().endswith(".zip")


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


class Table:
    """Images in a column of a ``datasets.Dataset``."""

    def __init__(self, dataset: datasets.Dataset, column: str):
        encoded = dataset.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        self._column, self._dataset = column, encoded.with_format("arrow")

    def __len__(self) -> int:
        return len(self._dataset)

    def _record(self, row: int) -> dict[str, Any]:
        return self._dataset[row][self._column][0].as_py() or {"bytes": None, "path": None}

    def content(self, row: int) -> bytes | str:
        record = self._record(row)
        if record["bytes"] is None and record["path"] is None:
            raise DecodingError("the table has no image in this row")
        return record["path"] if record["bytes"] is None else record["bytes"]

    def path(self, row: int) -> str | None:
        return self._record(row)["path"]


# rows, labels, names of the classes, why there are no labels, what is passed over
Opened = tuple[Rows, "np.ndarray | None", "list[str] | None", str, str]

WAY_OUT = (
    "Point data.path at a local copy (a folder in datasets format, a folder of images, or a zip), "
    "or set it to 'digits', which needs no download."
)


def _open(config: DataConfig) -> Opened:
    path = Path(config.path).expanduser()
    if not config.path.strip() or len(path.name.encode(errors="replace")) > 255:
        raise UserError(f"data.path {config.path[:50]!r} is no name of a folder, a zip or a data set. {WAY_OUT}")
    if path.is_dir():
        listing = list_folder(path)
        if _saved_to_disk(path) or _is_of_tables(path, listing):
            beside = f"{len(listing.images)} images beside the tables" if listing.images else ""
            return *_read_table(_open_table(path, config, listing), config), beside
        split = read_split(
            listing, config.split, f"data.path {config.path!r}", config.image_column, config.label_column
        )
        files = Files(split.names, [path / name for name in split.names])
        return files, split.labels, split.class_names, split.without_labels, listing.passed_over()
    if path.is_file() and path.suffix.lower() == ".zip":
        return _open_zip(path, config)
    if path.is_file():
        raise UserError(f"data.path {config.path!r} is a file, but not a .zip. {WAY_OUT}")
    if _looks_local(config.path):
        raise UserError(f"data.path {config.path!r} does not exist (looked from {Path.cwd()}). {WAY_OUT}")
    return *_read_table(_open_from_hub(config), config), ""


def _open_zip(path: Path, config: DataConfig) -> Opened:
    """The images of a zip, as those of the folder that was zipped."""
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # not only BadZipFile: whatever a damaged directory makes zipfile raise
        raise UserError(f"data.path {config.path!r} is no readable zip ({error}). {WAY_OUT}") from None
    with archive:
        listing = list_zip(archive, lambda text: _say(f"warning: {text}"))
        source = f"data.path {config.path!r}"
        split = read_split(listing, config.split, source, config.image_column, config.label_column)
        contents: list[bytes | Path | DecodingError] = []
        for name in split.names:
            try:
                contents.append(listing.read(name))
            except DecodingError as error:
                contents.append(error)
    files = Files(split.names, contents)
    return files, split.labels, split.class_names, split.without_labels, listing.passed_over()


def _saved_to_disk(folder: Path) -> bool:
    """Whether ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote `folder`."""
    single = all((folder / name).exists() for name in ("state.json", "dataset_info.json"))
    return single or (folder / "dataset_dict.json").exists()


def _is_of_tables(folder: Path, listing: Listing) -> bool:
    """Whether a folder is for ``load_dataset``: it says so itself, or holds more tables than images."""
    card = folder / "README.md"
    try:
        if card.exists() and "configs" in (metadata_load(card) or {}):
            return True
    except Exception as error:  # a README of another kind
        _say(f"warning: the head of {card} cannot be read ({' '.join(str(error).split())[:200]}); it is not heeded.")
    tables = sum(len(listing.others.get(suffix, [])) for suffix in (".parquet", ".arrow", ".tar"))
    return tables > len(listing.images) or not listing.images


def _open_table(path: Path, config: DataConfig, listing: Listing) -> datasets.DatasetDict:
    zips = listing.others.get(".zip", [])
    if zips and not listing.images and not set(listing.others) - {".zip", ".md", ".txt", "hidden"}:
        raise UserError(
            f"data.path {config.path!r} holds no images, but {len(zips)} .zip. Point data.path at the zip itself, such "
            f"as {path / zips[0]}."
        )
    datasets.disable_progress_bars()
    try:
        if _saved_to_disk(path):
            loaded = datasets.load_from_disk(path)
            return loaded if isinstance(loaded, datasets.DatasetDict) else datasets.DatasetDict(train=loaded)
        source = str(path.resolve())
        mixed = _open_mixed_archives(source) if ".tar" in listing.others else None
        return datasets.load_dataset(source) if mixed is None else mixed
    except UserError:
        raise
    except (datasets.exceptions.DataFilesNotFoundError, datasets.data_files.EmptyDatasetError):
        passed = listing.passed_over()
        found = f" (passed over: {passed})" if passed else ""
        raise UserError(f"data.path {config.path!r} holds no data files or images{found}. {WAY_OUT}") from None
    except Exception as error:  # whatever the many readers of datasets make of a file they cannot read
        raise _unreadable(config, error) from error


def _open_mixed_archives(folder: str) -> datasets.DatasetDict | None:
    """Archives of WebDataset whose images are of several formats, of which datasets would make as many columns."""
    files = datasets.load_dataset_builder(folder).config.data_files
    if not all(name.endswith(".tar") for names in files.values() for name in names):
        return None
    if len(suffixes_in_tars([name for names in files.values() for name in names])) < 2:
        return None
    splits = {}
    for split, names in files.items():
        samples = [sample for name in names for sample in read_tar(name)]
        columns = {"image": [{"bytes": sample.image, "path": sample.name} for sample in samples]}
        features = {"image": datasets.Image()}
        if any(sample.label is not None for sample in samples):
            columns["cls"], features["cls"] = [sample.label for sample in samples], datasets.Value("int64")
        splits[str(split)] = datasets.Dataset.from_dict(columns, datasets.Features(features))
    return datasets.DatasetDict(splits)


_DISK_ERRORS = ("EACCES", "EDQUOT", "EEXIST", "ENAMETOOLONG", "ENOENT", "ENOSPC", "ENOTDIR", "EPERM", "EROFS")


def _unreadable(config: DataConfig, error: Exception) -> UserError:
    """What to tell of an error of datasets'."""
    cause = error.__cause__ or error
    text = " ".join(str(cause).split())[:400] or type(cause).__name__
    source = str(Path(config.path).expanduser().resolve())
    of_disk = isinstance(cause, OSError) and errno.errorcode.get(cause.errno) in _DISK_ERRORS
    if of_disk and not str(cause.filename or "").startswith(source):
        cache = datasets.config.HF_DATASETS_CACHE
        return UserError(
            f"data.path {config.path!r} cannot be read into the cache {cache} ({text}). Set HF_HOME to a folder that "
            f"can be written to and has room, or mend this one."
        )
    return UserError(f"data.path {config.path!r} could not be read ({text}). {WAY_OUT}")


def _open_from_hub(config: DataConfig) -> datasets.DatasetDict:
    """A Hub dataset, or its copy in the local cache when the Hub is out of reach."""
    name = config.path
    datasets.disable_progress_bars()
    unreachable = "HF_HUB_OFFLINE is set" if datasets.config.HF_HUB_OFFLINE else None
    if unreachable is None:
        try:
            # load_dataset retries for minutes without a network; one small request tells us in seconds.
            HfApi().dataset_info(name, timeout=HUB_TIMEOUT_SECONDS)
        except HFValidationError:
            raise UserError(f"data.path {name!r} is no folder here, and no name of a data set. {WAY_OUT}") from None
        except (RepositoryNotFoundError, GatedRepoError) as error:
            gated = isinstance(error, GatedRepoError)
            kind = "needs your consent on its page" if gated else "is not on the Hub"
            raise UserError(
                f"data.path {name!r} is no folder here and {kind} (log in with `hf auth login` if it is private). "
                f"{WAY_OUT}"
            ) from None
        except Exception as error:  # whatever the network does: refused, timed out, no address, a broken answer
            unreachable = type(error).__name__
    if unreachable is None:
        try:
            return datasets.load_dataset(name)
        except Exception as error:  # of the network, of the cache, of any of the readers
            raise _unreadable(config, error) from error
    cached = _open_from_cache(name)
    if cached is None:
        raise UserError(
            f"data.path {name!r} is no folder here, and the Hugging Face Hub cannot be reached to look for it "
            f"({unreachable}), nor is it in the local cache. {WAY_OUT}"
        )
    return cached


def _open_from_cache(name: str) -> datasets.DatasetDict | None:
    """What was once loaded from the Hub under `name`.

    datasets keeps what it read of a local folder under the folder's name, where a Hub's data set of that name would be;
    only the latter lies in a folder called by a commit.
    """
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        cached = datasets.load_dataset(name, download_config=datasets.DownloadConfig(local_files_only=True))
    except Exception:
        return None
    finally:
        datasets.config.HF_HUB_OFFLINE = before
    folders = {Path(file["filename"]).parent.name for files in cached.cache_files.values() for file in files}
    return cached if all(re.fullmatch("[0-9a-f]{40}", folder) for folder in folders) else None


def _read_table(loaded: datasets.DatasetDict, config: DataConfig) -> tuple[Table, np.ndarray | None, Any, str]:
    if config.split not in loaded:
        raise MissingSplit(sorted(map(str, loaded)), "")
    dataset = loaded[config.split]
    column = _find_image_column(dataset, config)
    return Table(dataset, column), *_read_labels(loaded, config)


def _find_image_column(dataset: datasets.Dataset, config: DataConfig) -> str:
    """The column with the images: of their own type, or the contents of files saved as bytes."""
    features = dataset.features
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    encoded = [name for name, feature in features.items() if _holds_files(feature)]
    if config.image_column is not None:
        if config.image_column not in images + encoded:
            raise UserError(
                f"data.image_column {config.image_column!r} is no image column; there are: {images + encoded}."
            )
        return config.image_column
    for name in ("image", "img", *images, *encoded):
        if name in images + encoded:
            return name
    columns = ", ".join(f"{name} ({feature})" for name, feature in features.items())
    raise UserError(
        f"data.path {config.path!r} has no image column; its columns are {columns}. One must hold images (the type "
        f"Image of datasets), or the contents of image files as bytes."
    )


def _holds_files(feature: Any) -> bool:
    if isinstance(feature, dict):
        return feature.keys() == {"bytes", "path"} and _holds_files(feature["bytes"])
    return isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary")


def _read_labels(loaded: datasets.DatasetDict, config: DataConfig) -> tuple[np.ndarray | None, list[str] | None, str]:
    """Labels by row and the names of the classes, the same in every split; or why there are none."""
    dataset = loaded[config.split]
    found = [name for name in ("label", "cls") if name in dataset.column_names]  # "cls": of WebDataset
    column = config.label_column or next(iter(found), None)
    if column is None:
        return None, None, f"the columns are {dataset.column_names}"
    if column not in dataset.column_names:
        raise UserError(f"data.label_column {column!r} does not exist; the columns are {dataset.column_names}.")
    feature, values = dataset.features[column], dataset[column][:]
    where = f"data.path {config.path!r}: the column {column!r} ({getattr(feature, 'dtype', feature)})"
    check_labels(values, where)
    if isinstance(feature, datasets.ClassLabel):
        return np.asarray(values), list(feature.names), ""
    # What another split leaves out, or marks by -1, has no label there; this split doesn't need it.
    alike = [split for split in loaded.values() if split.features.get(column) == feature]
    there = {value for split in alike for value in split.unique(column)} - {None, "", -1} | set(values)
    index = {name: i for i, name in enumerate(sorted(there))}
    return np.asarray([index[value] for value in values]), [str(name) for name in index], ""


def _say(text: str) -> None:
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

    def __post_init__(self) -> None:
        self.corrupt: dict[int, str] = {}
        self.sizes: dict[int, tuple[int, int]] = {}  # upright width and height of what can be opened
        self.channels = 0
        self.image_size = 0
        self.indices = np.arange(len(self.rows))
        self._num_grey = 0
        self._deep: set[int] = set()  # rows of integers of more than 8 bits
        self._brightest = 0  # of these, so far

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, part: slice) -> Records:
        chosen = copy.copy(self)
        chosen.indices = self.indices[part]
        return chosen

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

    def announce(self, count: str, class_names: list[str] | None) -> None:
        """Say what there is ("15 images"), what is passed over, and what may not be as it was meant."""
        reason = f" without classes ({self.without_labels})" if self.without_labels else ""
        classes = f" in {len(class_names)} classes" if class_names else reason
        passed = f"; passed over: {self.passed_over}" if self.passed_over else ""
        source = f"data.path {self.config.path!r}, split {self.config.split!r}"
        _say(f"{source}: {count}{classes}{passed}")
        if self.config.channels is None and self.channels == 3 and self._num_grey:
            _say(
                f"{source}: {self._num_grey} of {len(self.sizes)} images are grey and become colour; data.channels 1 "
                f"makes all of them grey."
            )
        if 0 < self._brightest <= 16:
            _say(
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

    def replacement(self, position: int) -> tuple[np.ndarray, int]:
        """Image `position`, or the next one that can be decoded, and its position: a stream keeps its length."""
        for offset in range(len(self.indices)):
            place = (position + offset) % len(self.indices)
            index = int(self.indices[place])
            if index in self.corrupt:
                continue
            try:
                return self.decode(index, self.image_size), place
            except DecodingError as error:
                self.give_up(index, error)
                self.report(index)
        raise UserError(f"data.path {self.config.path!r}: no image could be decoded.")

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


class BatchOrder(torch.utils.data.Sampler):
    """Which images each step sees: a function of (seed, step) alone.

    The data is shuffled anew every epoch and the epochs are laid end to end, so every image comes once an
    epoch and no batch is short. A step's global batch is split among the processes in order: two processes with
    half the batch each see together what one process sees. Skipping is arithmetic, not iteration.

    Args:
        num_images: size of the data set.
        batch_size: images per process and step.
        seed: of the shuffling.
        start, stop: steps to yield, [start, stop).
        process_index, num_processes: which share of each global batch.
        by_visit: yield visits, epoch * num_images + index, to a data set that shows an image otherwise at each visit.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        seed: int,
        start: int = 0,
        stop: int = 1,
        process_index: int = 0,
        num_processes: int = 1,
        by_visit: bool = False,
    ):
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.start, self.stop = start, stop
        self.process_index, self.num_processes, self.by_visit = process_index, num_processes, by_visit
        self._orders: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        share = self.visits if self.by_visit else self.indices
        return (share(step) for step in range(self.start, self.stop))

    def indices(self, step: int) -> list[int]:
        """This process's share of the global batch at `step`."""
        return [visit % self.num_images for visit in self.visits(step)]

    def visits(self, step: int) -> list[int]:
        """The same, each index with its epoch: epoch * num_images + index."""
        first = (step * self.num_processes + self.process_index) * self.batch_size
        positions = torch.arange(first, first + self.batch_size)
        epochs = positions // self.num_images
        pairs = zip(epochs.tolist(), positions % self.num_images, strict=True)
        return [epoch * self.num_images + int(self._order(epoch)[place]) for epoch, place in pairs]

    def _order(self, epoch: int) -> torch.Tensor:
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = torch.randperm(self.num_images, generator=keyed_generator("order", self.seed, epoch))
        return self._orders[epoch]


def make_loader(images: ImageSet, order: BatchOrder, num_workers: int = 0) -> torch.utils.data.DataLoader:
    """Batches of `images` in `order`: dicts as :class:`ImageSet` returns them.

    Raises:
        UserError: while iterating, of an image that cannot be decoded, in whichever process it was met.
    """
    return _Loader(
        _Answers(images),
        batch_sampler=order,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
    )


class _Answers(torch.utils.data.Dataset):
    """Batches, or the error instead: torch would dress an error of a worker in its traceback."""

    def __init__(self, images: ImageSet):
        self._images = images

    def __getitems__(self, indices: Sequence[int]) -> dict[str, torch.Tensor] | UserError:
        try:
            return self._images.__getitems__(indices)
        except UserError as error:
            return error


class _Loader(torch.utils.data.DataLoader):
    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch


def _as_it_is(batch: Any) -> Any:
    return batch


def describe(images: ImageSet) -> dict[str, Any]:
    """What a run records of its data."""
    return {
        "num_images": len(images),
        "channels": images.channels,
        "image_size": images.image_size,
        "class_names": images.class_names,
        "num_skipped": images.num_skipped,
    }
