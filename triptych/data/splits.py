"""Splits and classes of a folder or zip: from the names of its files, or from a table beside them."""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow.parquet

from triptych.data.listing import Listing
from triptych.errors import UserError

# Folders of these names, at the top, are splits (the names that the Hugging Face Hub knows).
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
# In a longer name they only look like splits: "seg_train", "training_set", "train2017", "trainA".
_SPLIT_WORD = re.compile(rf"(?<![A-Za-z])(?i:{'|'.join(sorted(SPLITS, key=len, reverse=True))})(?![a-z])")


@dataclass
class Split:
    """The images of one split, in order, and what is known of them.

    Attributes:
        names: of the images.
        labels: class ids, or None.
        class_names: names by class id, the same in every split; None without labels.
        without_labels: why there are no labels, "" where there are.
        among: the names of all splits.
    """

    names: list[str]
    labels: np.ndarray | None = None
    class_names: list[str] | None = None
    without_labels: str = ""
    among: Sequence[str] = ()


# ---- splits --------------------------------------------------------------------------------------------
def split_images(listing: Listing, source: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """The images of each split, in order, each with the folders it lies in below that split.

    Only folders at the top make splits, and only if all of them are named so. A folder that holds everything is looked
    through. What lies beside the splits is passed over.

    Raises:
        UserError: some folders look like splits and others don't, names are alike but for the word of a split
            (training_set, test_set), or splits lie inside other folders.
    """
    root = _folders_around_everything(listing.images)
    inside = {name: tuple(name.split("/")[root:-1]) for name in listing.images}
    tops = {folders[0] for folders in inside.values() if folders}
    named = sorted(top for top in tops if top.lower() in SPLITS)
    if named and len(named) == len(tops):
        splits: dict[str, dict[str, tuple[str, ...]]] = {}
        for name, folders in inside.items():
            if folders:
                splits.setdefault(SPLITS[folders[0].lower()], {})[name] = folders[1:]
            else:
                listing.others["outside the split folders"].append(name)
        return splits
    # One folder "train" with images in it, beside a "bus" and a "car", is a class; anything else might be a leak.
    if len(named) > 1 or any(len(folders) > 1 and folders[0] in named for folders in inside.values()):
        raise UserError(
            f"{source}: the folders {', '.join(named)} look like splits, and beside them there is "
            f"{', '.join(sorted(tops - set(named))[:5])}. Move what is no split elsewhere; or, if these are classes, "
            f"put all of them into one folder called train."
        )
    if alike := _look_like_splits(tops):
        raise UserError(
            f"{source}: the folders {' and '.join(alike[:5])} look like splits, and test images would count as "
            f"training images. Call them by their splits alone (train, test); or, if these are classes, put all of "
            f"them into one folder called train."
        )
    _refuse_inner_splits(inside, source)
    return {"train": inside}


def _look_like_splits(folders: Iterable[str]) -> list[str]:
    """The first of `folders`, by name, that differ in nothing but the word of a split: of several splits, or none."""
    alike: dict[str, dict[str, str]] = {}  # splits by folder, by what the names have in common
    for folder in sorted(folders):
        if word := _SPLIT_WORD.search(folder):
            frame = f"{folder[: word.start()]}*{folder[word.end() :]}".strip()
            alike.setdefault(frame, {})[folder] = SPLITS[word[0].lower()]
    return next((list(splits) for splits in alike.values() if len(set(splits.values())) > 1), [])


def _folders_around_everything(names: Sequence[str]) -> int:
    """How many folders lie around all images, not counting splits: 1 for "set/train/0.png" and "set/test/0.png"."""
    around = posixpath.commonpath([posixpath.dirname(name) for name in names]) if names else ""
    folders = around.split("/") if around else []
    return next((depth for depth, folder in enumerate(folders) if folder.lower() in SPLITS), len(folders))


def _refuse_inner_splits(inside: dict[str, tuple[str, ...]], source: str) -> None:
    """cat/train and cat/test: read as one split, the test images would be trained on."""
    for level in range(1, max(map(len, inside.values()), default=0)):
        if there := _look_like_splits({folders[level] for folders in inside.values() if len(folders) > level}):
            raise UserError(
                f"{source}: the splits {' and '.join(there[:5])} lie inside other folders, and test images would "
                f"count as training images. Put the folders of the splits at the top (train/cat, test/cat), or point "
                f"data.path at one of them."
            )


# ---- classes -------------------------------------------------------------------------------------------
def read_split(listing: Listing, split: str, source: str, image_column: str | None, label_column: str | None) -> Split:
    """The images of `split` with their classes: those a metadata file gives, else the folders they lie in.

    Args:
        listing: of the folder or zip.
        split: its name; the folder's own name ("val") is understood.
        source: what to call the folder or zip in messages.
        image_column: of a metadata file, whose ``<image_column>_file_name`` names the images; None = ``file_name``.
        label_column: of a metadata file; None = "label".

    Raises:
        MissingSplit: there is no such split.
        UserError: there is no such column, or a metadata file is at fault.
    """
    splits = split_images(listing, source)
    split = SPLITS.get(split.lower(), split)
    if split not in splits:
        beside = len(listing.others.get("outside the split folders", []))
        raise MissingSplit(sorted(splits), f" ({beside} images lie outside these folders)" if beside else "")
    found = _with_classes(listing, splits, split, source, image_column, label_column)
    found.among = sorted(splits)
    return found


def _with_classes(
    listing: Listing,
    splits: dict[str, dict[str, tuple[str, ...]]],
    split: str,
    source: str,
    image_column: str | None,
    label_column: str | None,
) -> Split:
    images = [name for names in splits.values() for name in names]
    labels = _read_metadata(listing, images, source, image_column, label_column)
    if labels is None:
        if image_column not in (None, "image"):
            raise UserError(f"data.image_column {image_column!r} is no image column; there are: ['image'].")
        if label_column not in (None, "label"):
            raise UserError(
                f"data.label_column {label_column!r} does not exist; the columns are ['image', 'label'], and no "
                f"metadata file tells of others."
            )
        found = _classes_by_folder(splits, split)
        if found.without_labels and listing.metadata:
            found.without_labels += f", and {listing.metadata[0]} has no column {label_column or 'label'}"
        return found
    names = [name for name in splits[split] if name in labels]
    if not names:
        return Split(list(splits[split]), without_labels="they have no rows in the metadata")
    if left := [name for name in splits[split] if name not in labels]:
        listing.others["without a row in the metadata"] = left
    ids = {value: number for number, value in enumerate(sorted(set(labels.values())))}
    return Split(names, np.array([ids[labels[name]] for name in names]), [str(value) for value in ids])


class MissingSplit(Exception):
    """There is no such split; ``args`` are a list of those that there are, and what more is to be said."""


def _classes_by_folder(splits: dict[str, dict[str, tuple[str, ...]]], split: str) -> Split:
    """The class of an image is the folder it lies in, if all of its split lie at one depth."""
    depths = {name: {len(folders) for folders in images.values()} for name, images in splits.items()}
    class_names = sorted({_class(f) for name in splits if len(depths[name]) == 1 for f in splits[name].values() if f})
    images = splits[split]
    if len(depths[split]) > 1:
        ends = (min(images, key=lambda name: len(images[name])), max(images, key=lambda name: len(images[name])))
        return Split(list(images), without_labels=f"they lie at different depths, {ends[0]} and {ends[1]}")
    if len(class_names) < 2 or depths[split] == {0}:
        called = "in one folder" if len(set(images.values())) < 2 else f"in folders called {class_names[0]}"
        return Split(list(images), without_labels=f"all lie {called}")
    ids = {name: number for number, name in enumerate(class_names)}
    return Split(list(images), np.array([ids[_class(folders)] for folders in images.values()]), class_names)


def _class(folders: tuple[str, ...]) -> str:
    """An accent may be stored as part of its letter or behind it; that makes no two classes."""
    text = folders[-1].encode(errors="surrogateescape").decode(errors="backslashreplace")  # what is no UTF-8 is told
    return unicodedata.normalize("NFC", text)


def check_labels(values: Sequence[Any], where: str) -> None:
    """Whether `values` are all whole numbers, or all words.

    Raises:
        UserError: a label is missing, or is a list, a float or the like.
    """
    for row, value in enumerate(values, 1):
        if value is None or value == "":
            raise UserError(f"{where} is empty in row {row} of {len(values)}. Fill it in, or take the row out.")
        if not isinstance(value, (str, int)):
            raise UserError(
                f"{where} holds {type(value).__name__}s, not classes, such as {str(value)[:50]} in row {row} of "
                f"{len(values)}. A label is a whole number or a word."
            )
    if len({isinstance(value, str) for value in values}) > 1:
        raise UserError(f"{where} mixes words and numbers. Make all of them one or the other.")


# ---- metadata ------------------------------------------------------------------------------------------
def _read_metadata(
    listing: Listing, images: Sequence[str], source: str, image_column: str | None, label_column: str | None
) -> dict[str, Any] | None:
    """The label of each image that a metadata file names; None where no file tells labels."""
    file_column = "file_name" if image_column in (None, "image") else f"{image_column}_file_name"
    by_normal_form = {unicodedata.normalize("NFC", name): name for name in images}
    labels: dict[str, Any] = {}
    for file in sorted(listing.metadata):
        where = f"{source}: {file}"
        rows = _rows(listing, file, where)
        columns = list(dict.fromkeys(column for row in rows for column in row if column is not None))
        if file_column not in columns:
            hint = " Separate the columns by commas." if len(columns) == 1 else " Rename the one that does."
            raise UserError(f"{where} has no column {file_column}, which names the images; it has {columns}.{hint}")
        if (label_column or "label") not in columns:
            if label_column is not None:
                raise UserError(f"data.label_column {label_column!r} does not exist; {file} has the columns {columns}.")
            continue
        values = _as_numbers([row.get(label_column or "label") for row in rows])
        check_labels(values, f"{where}: the column {label_column or 'label'}")
        for number, (row, value) in enumerate(zip(rows, values, strict=True), 1):
            path = posixpath.normpath(PurePosixPath(file).parent / str(row.get(file_column)))
            name = by_normal_form.get(unicodedata.normalize("NFC", path))
            if name is None:
                raise UserError(
                    f"{where}: the column {file_column} names {path} in row {number}, and there is no such image. Take "
                    f"the row out, or add the image."
                )
            if labels.setdefault(name, value) != value:
                raise UserError(f"{where}: row {number} gives {path} another label than a row before. Keep one.")
    check_labels(list(labels.values()), f"{source}: the column {label_column or 'label'} of the metadata files")
    return labels or None


def _rows(listing: Listing, file: str, where: str) -> list[dict[str, Any]]:
    try:
        content = listing.read(file)
        if file.endswith(".parquet"):
            rows = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
        elif file.endswith(".jsonl"):
            rows = []
            # Only a line feed ends a row: splitlines() would cut a text at others that JSON may hold as they are.
            for number, line in enumerate(content.decode("utf-8-sig").split("\n"), 1):
                try:
                    rows += [json.loads(line)] if line.strip() else []
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from None
        else:
            cells = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
            table = [[cell.strip() for cell in row] for row in cells if any(row)]
            twice = [name for name, count in Counter(table[0] if table else ()).items() if name and count > 1]
            if twice:
                raise ValueError(f"it has several columns {twice[0]}")
            rows = [dict(zip(table[0], row, strict=False)) for row in table[1:]]
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{where} is not in UTF-8 (line {line}). Save it as UTF-8.") from None
    except Exception as error:  # whatever csv, json, pyarrow or zipfile make of a damaged file
        raise UserError(f"{where} cannot be read ({' '.join(str(error).split())}). Mend it, or take it out.") from None
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{where} holds no rows of named columns. Fill it, or take it out.")
    return rows


def _as_numbers(values: list[Any]) -> list[Any]:
    """Whole numbers where all of the text is such: a CSV doesn't tell the two apart."""
    words = {value for value in values if value not in (None, "")} if all(isinstance(v, str) for v in values) else ()
    if words and all(re.fullmatch("0|-?[1-9][0-9]*", word) for word in words):
        return [int(value) if value else None for value in values]
    return values
