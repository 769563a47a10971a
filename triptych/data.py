"""Images: from the Hub, a local folder, a zip or scikit-learn's digits, to uint8 batches in a fixed order."""

from __future__ import annotations

import copy
import io
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from PIL import Image, ImageOps
from sklearn.datasets import load_digits

from triptych.config import DataConfig, UserError
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
            pixels = np.stack([self._source.replacement(int(i)) for i in index])
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


def load_images(config: DataConfig, need_labels: bool = False) -> ImageSet:
    """Read the data set that `config` names.

    Raises:
        UserError: it cannot be found, reached or decoded, is not square, or lacks the labels that are needed.
    """
    if config.path == "digits":
        return _load_digits(config)
    records, labels, class_names = open_records(config, need_labels)
    good = records.survey()
    records.require_squares()
    if labels is not None:
        labels = labels[good]
        if labels.min() < 0:
            raise UserError(
                f"data.path {config.path!r}: the split {config.split!r} has unlabelled images (label -1). "
                f"Choose a labelled split with data.split."
            )
    size_mb = len(good) * records.channels * records.image_size**2 / 2**20
    source: np.ndarray | Records = records
    if size_mb <= config.memory_limit_mb:
        source, kept = records.decode_all()
        labels = labels if labels is None else labels[kept]
    records.report()
    return ImageSet(source, labels, class_names, records.channels, records.image_size, num_skipped=len(records.corrupt))


def open_records(config: DataConfig, need_labels: bool = False) -> tuple[Records, np.ndarray | None, list[str] | None]:
    """The undecoded images that `config` names, their labels by row, and the names of the classes."""
    dataset = _open_dataset(config)
    column = _find_image_column(dataset, config)
    labels, class_names = _read_labels(dataset, config, need_labels)
    records = Records(dataset.cast_column(column, datasets.Image(decode=False)), column, config)
    if len(records) == 0:
        raise UserError(f"data.path {config.path!r}, split {config.split!r}, holds no images.")
    return records, labels, class_names


def _load_digits(config: DataConfig) -> ImageSet:
    """scikit-learn's 1,797 handwritten digits, 8x8, 17 grey levels; every fifth is a test image."""
    if config.split not in ("train", "test"):
        raise UserError(f"data.split {config.split!r}: the embedded digits have the splits train and test.")
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
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or "\\" in path or path.endswith(".zip")


def _open_dataset(config: DataConfig) -> datasets.Dataset:
    path = Path(config.path).expanduser()
    way_out = (
        "Point data.path at a local copy (a folder in datasets format, a folder of images, or a zip), "
        "or set it to 'digits', which needs no download."
    )
    datasets.disable_progress_bars()
    try:
        if path.is_file() and path.suffix == ".zip":
            loaded = _open_zip(path, config.split)
        elif path.is_file():
            raise UserError(f"data.path {config.path!r} is a file, but not a .zip. {way_out}")
        elif path.is_dir():
            loaded = datasets.load_dataset(str(path))
        elif _looks_local(config.path):
            raise UserError(f"data.path {config.path!r} does not exist (looked from {Path.cwd()}). {way_out}")
        else:
            loaded = _open_from_hub(config.path, way_out)
    except (
        datasets.exceptions.DataFilesNotFoundError,
        datasets.data_files.EmptyDatasetError,
        FileNotFoundError,
    ):
        raise UserError(f"data.path {config.path!r} holds no data files or images. {way_out}") from None
    except zipfile.BadZipFile as error:
        raise UserError(f"data.path {config.path!r} is no readable zip ({error}). {way_out}") from None
    except datasets.exceptions.DatasetGenerationError as error:
        raise UserError(f"data.path {config.path!r} could not be read: {error.__cause__ or error}.") from error
    if config.split not in loaded:
        raise UserError(f"data.split {config.split!r} does not exist in {config.path!r}: it has {sorted(loaded)}.")
    return loaded[config.split]


def _open_zip(path: Path, split: str) -> datasets.DatasetDict:
    """The images of a zip; the folders they lie in are their classes. Other files are passed over."""
    known = set(Image.registered_extensions())
    with zipfile.ZipFile(path) as archive:
        names = [name for name in sorted(archive.namelist()) if not name.startswith("__MACOSX/")]
        names = [name for name in names if Path(name).suffix.lower() in known and not Path(name).name.startswith("._")]
        columns = {"image": [{"bytes": archive.read(name), "path": name} for name in names]}
    features = {"image": datasets.Image(decode=False)}
    folders = [Path(name).parent.name for name in names]
    if len(set(folders)) > 1:
        columns["label"] = folders
        features["label"] = datasets.ClassLabel(names=sorted(set(folders)))
    return datasets.DatasetDict({split: datasets.Dataset.from_dict(columns, datasets.Features(features))})


def _open_from_hub(name: str, way_out: str) -> datasets.DatasetDict:
    """A Hub dataset, or its copy in the local cache when the Hub is out of reach."""
    unreachable = "HF_HUB_OFFLINE is set" if datasets.config.HF_HUB_OFFLINE else None
    if unreachable is None:
        try:
            # load_dataset retries for minutes without a network; one small request tells us in seconds.
            HfApi().dataset_info(name, timeout=HUB_TIMEOUT_SECONDS)
        except (RepositoryNotFoundError, GatedRepoError) as error:
            gated = isinstance(error, GatedRepoError)
            kind = "needs your consent on its page" if gated else "is not on the Hub"
            raise UserError(
                f"data.path {name!r} is no folder here and {kind} (log in with `hf auth login` if it is private). "
                f"{way_out}"
            ) from None
        except Exception as error:  # whatever the network does: refused, timed out, no address, a broken answer
            unreachable = type(error).__name__
    if unreachable is None:
        return datasets.load_dataset(name)
    cached = _open_from_cache(name)
    if cached is None:
        raise UserError(
            f"data.path {name!r} is no folder here, and the Hugging Face Hub cannot be reached to look for it "
            f"({unreachable}), nor is it in the local cache. {way_out}"
        )
    return cached


def _open_from_cache(name: str) -> datasets.DatasetDict | None:
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        return datasets.load_dataset(name, download_config=datasets.DownloadConfig(local_files_only=True))
    except Exception:
        return None
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _find_image_column(dataset: datasets.Dataset, config: DataConfig) -> str:
    images = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    if config.image_column is not None:
        if config.image_column not in images:
            raise UserError(f"data.image_column {config.image_column!r} is no image column; there are: {images}.")
        return config.image_column
    for name in ("image", "img", *images):
        if name in images:
            return name
    raise UserError(f"data.path {config.path!r} has no image column; its columns are {dataset.column_names}.")


def _read_labels(
    dataset: datasets.Dataset, config: DataConfig, needed: bool
) -> tuple[np.ndarray | None, list[str] | None]:
    column = config.label_column or ("label" if "label" in dataset.column_names else None)
    if column is not None and column not in dataset.column_names:
        raise UserError(f"data.label_column {column!r} does not exist; the columns are {dataset.column_names}.")
    if column is None:
        if needed:
            raise UserError(
                f"data.path {config.path!r} has no labels (columns: {dataset.column_names}), and a class-conditional "
                f"model needs them. Name their column with data.label_column, or sort the images into one folder "
                f"per class."
            )
        return None, None
    feature, values = dataset.features[column], dataset[column][:]
    if isinstance(feature, datasets.ClassLabel):
        return np.asarray(values), list(feature.names)
    names = sorted(set(values))
    if any(isinstance(name, (float, list, dict)) or name is None for name in names):
        raise UserError(f"data.label_column {column!r} holds {feature}, not classes.")
    index = {name: i for i, name in enumerate(names)}
    return np.asarray([index[value] for value in values]), [str(name) for name in names]


@dataclass
class Records:
    """Undecoded images of a ``datasets.Dataset``, and what is known of them."""

    dataset: datasets.Dataset
    column: str
    config: DataConfig

    def __post_init__(self) -> None:
        self.corrupt: dict[int, str] = {}
        self.sizes: dict[int, tuple[int, int]] = {}  # width and height as stored, of what can be opened
        self.channels = 0
        self.image_size = 0
        self.indices = np.arange(len(self.dataset))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, part: slice) -> Records:
        chosen = copy.copy(self)
        chosen.indices = self.indices[part]
        return chosen

    def _open(self, index: int) -> Image.Image:
        record = self.dataset[index][self.column]
        return Image.open(io.BytesIO(record["bytes"]) if record["bytes"] is not None else record["path"])

    def path(self, index: int) -> str | None:
        """Where row `index` comes from, if it is a file of its own."""
        return self.dataset[index][self.column]["path"]

    def name(self, index: int) -> str:
        """What to call row `index` in a message."""
        path = self.path(index)
        return f"image {index} ({path})" if path else f"image {index}"

    def survey(self) -> np.ndarray:
        """Read every header: size, mode and what cannot be opened. Returns the row numbers that remain."""
        mode = None
        for index in range(len(self.dataset)):
            try:
                with self._open(index) as image:
                    self.sizes[index], mode = image.size, mode or image.mode
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                self.give_up(index, error)
        self.indices = np.array(list(self.sizes))
        if not self.sizes:
            raise UserError(f"data.path {self.config.path!r}: none of {len(self.dataset)} images could be read.")
        self.channels = self.config.channels or (1 if mode in ("1", "L", "I", "I;16", "F", "LA") else 3)
        return self.indices

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
        """Row `index` as uint8 (C, H, W); with `image_size` resized and centre-cropped to that side."""
        with self._open(index) as image:
            image = ImageOps.exif_transpose(image)  # cameras store how they were held
            if image.mode.startswith("I"):  # 16 bits a pixel; convert() would cut everything above 255
                image = Image.fromarray((np.asarray(image) / 257).round().clip(0, 255).astype(np.uint8))
            # Transparency is laid on white, as a viewer shows it; a bare convert() would uncover hidden colours.
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert("L" if self.channels == 1 else "RGB")
            if image_size is not None and image.size != (image_size, image_size):
                image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.LANCZOS)
            pixels = np.asarray(image)
        return pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1)

    def decode_all(self) -> tuple[np.ndarray, np.ndarray]:
        """All images, uint8 (N, C, H, W), and which of the surveyed rows they are."""
        pixels = np.empty((len(self.indices), self.channels, self.image_size, self.image_size), np.uint8)
        kept = np.ones(len(self.indices), bool)

        def fill(position: int) -> None:
            index = int(self.indices[position])
            try:
                pixels[position] = self.decode(index, self.image_size)
            except (OSError, ValueError, SyntaxError) as error:
                self.give_up(index, error)
                kept[position] = False

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(fill, range(len(self.indices)), chunksize=256):
                pass
        return (pixels if kept.all() else pixels[kept]), kept

    def replacement(self, position: int) -> np.ndarray:
        """Image `position`, or the next one that can be decoded: a stream keeps its length and order."""
        for offset in range(len(self.indices)):
            index = int(self.indices[(position + offset) % len(self.indices)])
            if index in self.corrupt:
                continue
            try:
                return self.decode(index, self.image_size)
            except (OSError, ValueError, SyntaxError) as error:
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


def _as_it_is(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return batch


def make_loader(images: ImageSet, order: BatchOrder, num_workers: int = 0) -> torch.utils.data.DataLoader:
    """Batches of `images` in `order`: dicts as :class:`ImageSet` returns them."""
    return torch.utils.data.DataLoader(
        images,
        batch_sampler=order,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
    )


def describe(images: ImageSet) -> dict[str, Any]:
    """What a run records of its data."""
    return {
        "num_images": len(images),
        "channels": images.channels,
        "image_size": images.image_size,
        "class_names": images.class_names,
        "num_skipped": images.num_skipped,
    }
