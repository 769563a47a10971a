"""Tables and images that several tests read."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import datasets

STRING, INTEGER, FLOAT = (datasets.Value(kind) for kind in ("string", "int64", "float32"))


def archive(path: Path, *files: tuple[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
