"""Checkpoints on disk: there whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
import sys
import zlib
from pathlib import Path

from triptych.errors import UserError


def begin(folder: Path, update: int) -> Path:
    """An empty folder beside the checkpoints, to be filled and then handed to :func:`commit`."""
    partial = folder / f".writing_{update:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def commit(partial: Path, keep: int) -> Path:
    """Seal a filled folder with a manifest, rename it into place and remove all but the newest `keep`.

    Checkpoints of later updates, which a resumed run has gone back behind, are left until it reaches them.
    """
    files = sorted(partial.iterdir())
    manifest = {"files": {p.name: p.stat().st_size for p in files}, "crc32": {p.name: checksum(p) for p in files}}
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))
    final = partial.with_name(partial.name.replace(".writing", "update"))
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    until_now = [c for c in listed(partial.parent) if update_of(c) <= update_of(final)]
    for old in until_now[:-keep]:
        shutil.rmtree(old)
    for leftover in partial.parent.glob(".writing_*"):  # of a process that was killed while writing
        shutil.rmtree(leftover)
    return final


def listed(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, oldest first; a copy that somebody made under another name is none."""
    found = [c for c in folder.glob("update_*") if re.fullmatch(r"update_\d+", c.name) and c.is_dir()]
    return sorted(found, key=update_of)


def update_of(checkpoint: Path) -> int:
    """The update after which `checkpoint` was written."""
    return int(checkpoint.name.split("_")[1])


def checksum(path: Path) -> int:
    """CRC-32 of a file, against accidents: 0.04 s for 150 MB, where SHA-256 takes 0.16 and BLAKE2b 0.23."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            found = zlib.crc32(block, found)
    return found


def what_is_torn(checkpoint: Path) -> str | None:
    """Why `checkpoint` can't be used, or None if it is whole. Manifests of old had no checksums."""
    try:
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        files, checksums = dict(manifest["files"]), dict(manifest.get("crc32", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        files, checksums = {}, {}
    if not files:
        return "its manifest is missing or unreadable"
    for name, size in files.items():
        path = checkpoint / name
        try:
            if path.stat().st_size != size:
                return f"{name} is missing or cut short"
            if name in checksums and checksum(path) != checksums[name]:
                return f"the bytes of {name} are not those that were written"
        except FileNotFoundError:
            return f"{name} is missing or cut short"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def find(folder: Path, asked: str) -> Path | None:
    """The checkpoint to resume from: the newest whole one for "latest" (None if there are none), or the one named.

    Raises:
        UserError: the named checkpoint is missing or torn, or all that there are.
    """
    if asked != "latest":
        path = Path(asked)
        problem = what_is_torn(path) if path.is_dir() else "there is no such folder"
        if problem:
            known = [str(c) for c in listed(folder)]
            raise UserError(f"--resume {asked}: {problem}. Checkpoints of this run: {known or 'none'}.")
        return path
    there = listed(folder)
    for checkpoint in reversed(there):
        problem = what_is_torn(checkpoint)
        if problem is None:
            return checkpoint
        print(f"warning: passing over {checkpoint}: {problem}", file=sys.stderr)
    if there:
        raise UserError(
            f"None of the checkpoints in {folder} is whole (the newest, {there[-1].name}: {what_is_torn(there[-1])}). "
            f"Put one back from a copy, or train anew under another --name; to begin this run from its first update, "
            f"remove {folder}."
        )
    return None
