"""Where a command may write: what is there already is replaced only when the user says so, by ``--overwrite``.

Every script that writes asks here first, before it loads or computes anything.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from triptych.errors import UserError

# What the commands that go on where they were interrupted leave in their folder: measurements, images drawn, cached
# features, and training runs, their own or those of their parts.
TRACES = ("rows.jsonl", "drawn_*", "measured_*", "features", "run.json", "*/run.json")

PICTURES = (".png", ".svg", ".pdf")  # what charts and tables of images are written as


def claim_file(path: Path, overwrite: bool, *suffixes: str) -> None:
    """Refuse to write the file `path` if that is impossible, or would replace another one.

    Args:
        path: the file, as the user gave it by ``--output``.
        overwrite: it may replace a file.
        suffixes: what its name may end in, such as ".png"; anything if none are given.

    Raises:
        UserError: `path` ends otherwise, is a folder or a file that may not be replaced, or cannot be written.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{path} must end in {' or '.join(suffixes)}. Give such a name to --output.")
    if path.is_dir():
        raise UserError(f"{path} is a folder. Give a file in it to --output.")
    _refuse_unless_writable(path.parent)
    if path.exists() and not overwrite:
        raise UserError(f"{path} is there already. Choose another --output, or say --overwrite to replace it.")


def claim_folder(folder: Path, overwrite: bool) -> None:
    """Refuse to write into `folder` if that is impossible, or if it holds something.

    Args:
        folder: as the user gave it by ``--output``.
        overwrite: it may hold something; files of the same names are replaced, others stay.

    Raises:
        UserError: `folder` is a file, holds something though `overwrite` is false, or cannot be written.
    """
    _refuse_unless_writable(folder)
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise UserError(f"{folder} is not empty. Choose another --output, or say --overwrite.")


def claim_study(folder: Path, overwrite: bool) -> None:
    """:func:`claim_folder` for a command that goes on where it was interrupted: its own folder may hold something.

    What it has measured there is kept, and tables and charts are drawn anew from all of it.

    Raises:
        UserError: `folder` is a file, holds something that is none of this project's measurements or runs, though
            `overwrite` is false, or cannot be written.
    """
    begun = folder.is_dir() and any(next(folder.glob(trace), None) for trace in TRACES)
    claim_folder(folder, overwrite or begun)


def _refuse_unless_writable(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is no folder. Choose another --output.")
    if fault := why_unwritable(folder):
        raise UserError(f"{folder} cannot be written: {fault}. Choose another --output, or mend that.")


def why_unwritable(folder: Path) -> str | None:
    """What keeps `folder`, or the folders that lead to it, from being made and written: "Permission denied at /data".

    Returns:
        None if nothing does.
    """
    place = folder.absolute()
    try:
        while _is_missing(place):
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return f"{error.strerror} at {place}"


def _is_missing(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write an .npz file, whole or not at all, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".partial{os.getpid()}.npz")
    np.savez(partial, **arrays)
    partial.replace(path)
