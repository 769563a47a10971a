"""Checkpoints on disk: there whole or not at all."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from triptych.config import UserError


def begin(folder: Path, update: int) -> Path:
    """An empty folder beside the checkpoints, to be filled and then handed to :func:`commit`."""
    partial = folder / f".writing_{update:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def commit(partial: Path, keep: int) -> Path:
    """Seal a filled folder with a manifest, rename it into place and remove all but the newest `keep`."""
    sizes = {p.name: p.stat().st_size for p in sorted(partial.iterdir())}
    (partial / "manifest.json").write_text(json.dumps({"files": sizes}, indent=1))
    final = partial.with_name(partial.name.replace(".writing", "update"))
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for old in listed(partial.parent)[:-keep]:
        shutil.rmtree(old)
    for leftover in partial.parent.glob(".writing_*"):  # of a process that was killed while writing
        shutil.rmtree(leftover)
    return final


def listed(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("update_*"))


def what_is_torn(checkpoint: Path) -> str | None:
    """Why `checkpoint` can't be used, or None if it is whole."""
    try:
        files = json.loads((checkpoint / "manifest.json").read_text())["files"]
    except (OSError, ValueError, KeyError):
        return "its manifest is missing or unreadable"
    for name, size in files.items():
        path = checkpoint / name
        if not path.exists() or path.stat().st_size != size:
            return f"{name} is missing or cut short"
    return None


def find(folder: Path, asked: str) -> Path | None:
    """The checkpoint to resume from: the newest whole one for "latest" (None if there is none), or the one named.

    Raises:
        UserError: the named checkpoint is missing or torn.
    """
    if asked != "latest":
        path = Path(asked)
        problem = what_is_torn(path) if path.is_dir() else "there is no such folder"
        if problem:
            known = [str(c) for c in listed(folder)]
            raise UserError(f"--resume {asked}: {problem}. Checkpoints of this run: {known or 'none'}.")
        return path
    for checkpoint in reversed(listed(folder)):
        problem = what_is_torn(checkpoint)
        if problem is None:
            return checkpoint
        print(f"warning: passing over {checkpoint}: {problem}", file=sys.stderr)
    return None
