"""Folders and zips of small pictures, made for a test, and what is read of them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from triptych.data.image_set import ImageSet

CONTAINERS = ["folder", "zip", "zip in a folder"]


def picture(path: Path, level: int = 0) -> None:
    """A square of one grey level, by which it is known again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, level, level)).save(path)


def levels(images: ImageSet) -> list[int]:
    return images.__getitems__(range(len(images)))["pixels"][:, 0, 0, 0].tolist()


def labels(images: ImageSet) -> list[str]:
    ids = images.__getitems__(range(len(images)))["labels"].tolist()
    return [images.class_names[number] for number in ids]


def writer(container: str, tmp_path: Path) -> Callable[..., str]:
    """Write files, pictures of the levels 0, 1, ... and others with their text, and return where the set lies."""

    def write(*names: str, **others: str | bytes) -> str:
        root = tmp_path / "set"
        for level, name in enumerate(names):
            picture(root / name, level)
        for name, content in others.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        if container == "folder":
            return str(root)
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for file in root.rglob("*"):
                # as a file manager zips a folder, or what is in it
                archive.write(file, file.relative_to(root if container == "zip" else tmp_path))
        return str(tmp_path / "set.zip")

    return write
