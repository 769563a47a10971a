"""Tables of images: for ``load_dataset``, saved to disk, on the Hub. The only file that knows datasets."""

from __future__ import annotations

import errno
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from huggingface_hub import HfApi, metadata_load
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from PIL import Image

from triptych.config.base import DataConfig
from triptych.data.decoding import DecodingError
from triptych.data.listing import Listing, read_tar, suffixes_in_tars
from triptych.data.records import say
from triptych.data.splits import MissingSplit, check_labels
from triptych.errors import UserError

HUB_TIMEOUT_SECONDS = 10


def save_table(folder: Path, splits: Mapping[str, tuple[torch.Tensor, torch.Tensor]], class_names: list[str]) -> None:
    """Save images with their classes as a table that ``data.path`` can name, all of it or nothing.

    Args:
        folder: where, made here.
        splits: by name, uint8 (N, C, H, W) and class ids (N,).
        class_names: by class id.
    """
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(class_names))})
    tables = datasets.DatasetDict()
    for split, (pixels, labels) in splits.items():
        pictures = [Image.fromarray(each.permute(1, 2, 0).squeeze(-1).numpy()) for each in pixels]
        tables[split] = datasets.Dataset.from_dict({"image": pictures, "label": labels.tolist()}, features)
    datasets.disable_progress_bars()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}_") as partial:
        tables.save_to_disk(f"{partial}/whole")
        Path(partial, "whole").rename(folder)


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


WAY_OUT = (
    "Point data.path at a local copy (a folder in datasets format, a folder of images, or a zip), "
    "or set it to 'digits', which needs no download."
)


def saved_to_disk(folder: Path) -> bool:
    """Whether ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` wrote `folder`."""
    single = all((folder / name).exists() for name in ("state.json", "dataset_info.json"))
    return single or (folder / "dataset_dict.json").exists()


def is_of_tables(folder: Path, listing: Listing) -> bool:
    """Whether a folder is for ``load_dataset``: it says so itself, or holds more tables than images."""
    card = folder / "README.md"
    try:
        if card.exists() and "configs" in (metadata_load(card) or {}):
            return True
    except Exception as error:  # a README of another kind
        say(f"warning: the head of {card} cannot be read ({' '.join(str(error).split())[:200]}); it is not heeded.")
    tables = sum(len(listing.others.get(suffix, [])) for suffix in (".parquet", ".arrow", ".tar"))
    return tables > len(listing.images) or not listing.images


def open_table(path: Path, config: DataConfig, listing: Listing) -> datasets.DatasetDict:
    """What ``load_dataset`` makes of a folder, or what was saved there.

    Raises:
        UserError: there are no data files, or none that can be read.
    """
    zips = listing.others.get(".zip", [])
    if zips and not listing.images and not set(listing.others) - {".zip", ".md", ".txt", "hidden"}:
        raise UserError(
            f"data.path {config.path!r} holds no images, but {len(zips)} .zip. Point data.path at the zip itself, such "
            f"as {path / zips[0]}."
        )
    datasets.disable_progress_bars()
    try:
        if saved_to_disk(path):
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


def open_from_hub(config: DataConfig) -> datasets.DatasetDict:
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


def read_table(loaded: datasets.DatasetDict, config: DataConfig) -> tuple[Table, np.ndarray | None, Any, str]:
    """The images of the split that `config` names, their labels, the names of the classes, and why there are none."""
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
