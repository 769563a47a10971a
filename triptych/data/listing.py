"""Images as files, in a folder or a zip: which there are, to which split and class each belongs, what is passed over.

Both are first listed as names like "train/cat/0.png", and all that follows knows only the names; so a folder and the
zip of it are one data set.
"""

from __future__ import annotations

import os
import posixpath
import re
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from triptych.data.decoding import SUFFIXES, DecodingError
from triptych.errors import UserError

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@dataclass
class Listing:
    """The files of a folder or a zip, by names with "/" between their parts.

    Attributes:
        images: files whose suffix is that of a format which is read, sorted.
        metadata: files that tell more about the images than their names do.
        others: what is passed over, names by kind (".txt", "hidden").
        read: the content of a file. Raises OSError; of a zip :class:`DecodingError`.
    """

    read: Callable[[str], bytes]
    images: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    others: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str) -> None:
        """Put a file where it belongs."""
        path = PurePosixPath(name)
        suffix = path.suffix.lower()
        if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
            self.others["hidden"].append(name)
        elif suffix in SUFFIXES:
            self.images.append(name)
        elif path.name in METADATA:
            self.metadata.append(name)
        else:
            self.others[suffix or "without suffix"].append(name)

    def passed_over(self) -> str:
        """ "2 .txt, 1 hidden", with names where the kind alone doesn't tell; "" for nothing."""
        counted = []
        for kind, names in sorted(self.others.items(), key=lambda item: (" " in item[0], item[0])):
            shown = f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if " " in kind else ""
            counted.append(f"{len(names)} {kind}{shown}")
        return ", ".join(counted)


# ---- listing -------------------------------------------------------------------------------------------
def list_folder(root: Path) -> Listing:
    """The files below `root`; links are followed, but not in circles.

    Raises:
        UserError: a folder cannot be read.
    """
    listing = Listing(read=lambda name: (root / name).read_bytes())

    def walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> None:
        try:
            status, entries = folder.stat(), list(os.scandir(folder))
        except OSError as error:
            raise UserError(f"{folder} cannot be read ({error.strerror}). Let it be read, or move it.") from None
        here = (status.st_dev, status.st_ino)
        if here in above:
            listing.others["behind a link in a circle"].append(prefix)
            return
        for entry in entries:
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            if entry.name.startswith("."):
                listing.others["hidden"].append(name)  # a folder too, unread
            elif entry.is_dir():
                walk(folder / entry.name, name, above | {here})
            elif entry.is_file():
                listing.add(name)
            else:
                listing.others["behind a broken link" if entry.is_symlink() else "neither file nor folder"].append(name)

    walk(root, "", frozenset())
    listing.images.sort()
    return listing


def list_zip(archive: zipfile.ZipFile, warn: Callable[[str], None]) -> Listing:
    """The files in a zip; of two of one name, the later, as unpacking gives."""
    names = _names_in_zip(archive, warn)
    entries: dict[str, zipfile.ZipInfo] = {}
    twins = []
    for name, entry in zip(names, archive.infolist(), strict=True):
        # Windows' own separators, and what would lead out of the folder
        clean = "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))
        if not entry.is_dir() and clean:
            twins += [clean] if clean in entries else []
            entries[clean] = entry
    listing = Listing(read=lambda name: read_entry(archive, entries[name]))
    for name in entries:
        listing.add(name)
    if twins:
        listing.others["older of the same name"] = twins
    listing.images.sort()
    return listing


def _names_in_zip(archive: zipfile.ZipFile, warn: Callable[[str], None]) -> list[str]:
    """Names as they were meant: a zip may hold UTF-8 without saying so, and says nothing of any other encoding."""
    utf8_flag = 0x800
    names = [entry.filename for entry in archive.infolist()]
    silent = [not entry.flag_bits & utf8_flag for entry in archive.infolist()]
    try:
        return [name.encode("cp437").decode() if s else name for name, s in zip(names, silent, strict=True)]
    except UnicodeError:
        odd = [name for name, s in zip(names, silent, strict=True) if s and not name.isascii()]
        warn(
            f"the encoding of {len(odd)} names in {archive.filename} is unknown, such as {odd[0]!r}: classes may have "
            f"wrong names. Zip the folder anew with UTF-8 names, or unpack it and point data.path at the folder."
        )
        return names


def read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The content of an entry.

    Raises:
        DecodingError: it is encrypted, damaged, or packed in a way that Python doesn't read.
    """
    unpack = "unpack the zip and point data.path at the folder"
    if entry.flag_bits & 1:
        raise DecodingError(f"it is encrypted; {unpack}")
    try:
        return archive.read(entry)
    except NotImplementedError:
        raise DecodingError(f"Python does not read its compression (method {entry.compress_type}); {unpack}") from None
    except Exception as error:  # of zipfile, zlib, bz2, lzma
        raise DecodingError(f"the zip is damaged here: {error}") from None


# ---- archives of WebDataset ----------------------------------------------------------------------------
@dataclass
class Sample:
    """Files of an archive that share a name: an image, and what its ``.cls`` says."""

    name: str
    image: bytes
    label: int | None


def suffixes_in_tars(paths: Sequence[str]) -> set[str]:
    """The suffixes of all images in some archives."""
    found = set()
    for path in paths:
        with tarfile.open(path) as archive:
            found |= {PurePosixPath(name).suffix.lower() for name in archive.getnames()}
    return found & SUFFIXES


def read_tar(path: str) -> list[Sample]:
    """The samples of an archive, in its order.

    Raises:
        UserError: a sample has no image or several, or a label that is no whole number.
    """
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as archive:
        for entry in archive:
            key, _, ending = posixpath.basename(entry.name).partition(".")
            if entry.isfile() and key:
                samples.setdefault(posixpath.join(posixpath.dirname(entry.name), key), {})[ending.lower()] = (
                    archive.extractfile(entry).read()
                )
    read = []
    for key, parts in samples.items():
        images = [ending for ending in parts if PurePosixPath(f"x.{ending}").suffix in SUFFIXES]
        if len(images) != 1:
            raise UserError(
                f"{path}: the sample {key} has {len(images)} images ({', '.join(parts)}); it must have one."
            )
        label = parts.get("cls")
        if label is not None and not re.fullmatch(rb"\s*-?\d+\s*", label):
            raise UserError(f"{path}: {key}.cls holds {label[:20]!r}. A label is a whole number.")
        read.append(Sample(f"{key}.{images[0]}", parts[images[0]], None if label is None else int(label)))
    return read
