"""The same images from every container, and by the pipelines' own opener: random files."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from made_files import DEEP, REFUSED, TRANSPARENT, png, saved
from PIL import Image

from models import opening
from triptych.config.base import DataConfig
from triptych.data.decoding import FORMATS, SUFFIXES, decode, to_channels
from triptych.data.image_set import ImageSet
from triptych.data.sources import load_images

# ---- one against the other -------------------------------------------------------------------------------

SIDE = 12
FUZZ_SEED = 20


def random_image(rng: np.random.Generator) -> tuple[str, bytes, np.ndarray]:
    """A suffix, a file of a random mode, depth and format that loses nothing, and what it must decode to."""
    grey = rng.integers(0, 256, (SIDE, SIDE, 1), np.uint8)
    colour = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    alpha = rng.choice(np.array([0, 255], np.uint8), (SIDE, SIDE, 1))
    bits = rng.integers(0, 2, (SIDE, SIDE, 1), np.uint8) * 255
    palette = rng.integers(0, 256, (256, 3), np.uint8)

    def white(pixels: np.ndarray) -> np.ndarray:
        return np.where(alpha == 255, pixels, 255).astype(np.uint8)

    def indexed() -> Image.Image:
        image = Image.fromarray(grey[..., 0], "P")
        image.putpalette(palette.tobytes())
        return image

    plain = {"png": "PNG", "tif": "TIFF", "bmp": "BMP", "TIFF": "TIFF", "PNG": "PNG"}
    suffix = str(rng.choice([*plain]))
    kind = plain[suffix]
    one, three = Image.fromarray(grey[..., 0]), Image.fromarray(colour)
    sixteen = Image.fromarray(grey[..., 0].astype(np.uint16) * 257)
    choices = [
        lambda: (suffix, saved(one, kind), grey),
        lambda: (suffix, saved(three, kind), colour),
        lambda: (suffix, saved(Image.fromarray(bits[..., 0]).convert("1"), kind), bits),
        lambda: (suffix, saved(indexed(), kind), palette[grey[..., 0]]),
        lambda: ("webp", saved(three, "WEBP", lossless=True), colour),
        lambda: ("ppm", saved(three, "PPM"), colour),
        lambda: ("tga", saved(three, "TGA"), colour),
        lambda: ("jp2", saved(three, "JPEG2000"), colour),
        lambda: ("png", saved(Image.fromarray(np.concatenate([grey, alpha], 2)), "PNG"), white(grey)),
        lambda: ("png", saved(Image.fromarray(np.concatenate([colour, alpha], 2)), "PNG"), white(colour)),
        lambda: ("tiff", saved(Image.fromarray(np.concatenate([colour, alpha], 2)), "TIFF"), white(colour)),
        lambda: ("gif", saved(indexed(), "GIF"), palette[grey[..., 0]]),
        lambda: ("png", saved(sixteen, "PNG"), grey),
        lambda: ("tif", saved(sixteen, "TIFF"), grey),
        lambda: ("png", png(colour.astype(np.uint16) * 257, 2), colour),
        lambda: ("tif", saved(Image.fromarray(grey[..., 0].astype(np.float32) / 255), "TIFF"), grey),
        lambda: ("pgm", b"P5 12 12 65535\n" + (grey.astype(np.uint16) * 257).astype(">u2").tobytes(), grey),
    ]
    return choices[rng.integers(len(choices))]()


def write_containers(root: Path, files: list[tuple[str, bytes, int]], class_names: list[str]) -> dict[str, Path]:
    """The same files as a folder, a zip, a table and an archive of WebDataset."""
    paths = {kind: root / kind for kind in ("folder", "parquet")} | {"zip": root / "set.zip"}
    paths["parquet"].mkdir(parents=True)
    with zipfile.ZipFile(paths["zip"], "w") as archive:
        for name, content, _ in files:
            file = paths["folder"] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            archive.writestr(name, content)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=class_names)})
    columns = {
        "image": [{"bytes": content, "path": name} for name, content, _ in files],
        "label": [label for _, _, label in files],
    }
    datasets.Dataset.from_dict(columns, features).to_parquet(paths["parquet"] / "train.parquet")
    paths["webdataset"] = root / "webdataset"
    paths["webdataset"].mkdir()
    with tarfile.open(paths["webdataset"] / "shard-000000.tar", "w") as archive:
        for number, (name, content, label) in enumerate(files):
            for suffix, data in ((Path(name).suffix.lower(), content), (".cls", str(label).encode())):
                entry = tarfile.TarInfo(f"{number:05d}{suffix}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return paths


def everything(images: ImageSet) -> tuple[torch.Tensor, list[int]]:
    batch = images.__getitems__(range(len(images)))
    return batch["pixels"], batch["labels"].tolist()


@pytest.mark.parametrize("turn", range(12))
def test_every_container_gives_the_same_images(tmp_path, turn):
    """Images of every mode, depth and format: values, labels and counts, against what was written and each other."""
    seed = FUZZ_SEED + turn
    rng = np.random.default_rng(seed)
    print(f"fuzz seed {seed}")  # pytest shows it where it fails
    class_names = sorted(
        rng.choice(["cat", "dog", "train", "گربه", "no. 1", "A"], rng.integers(2, 5), replace=False).tolist()
    )
    files, expected = [], []
    for number in range(int(rng.integers(20, 40))):
        suffix, content, pixels = random_image(rng)
        label = number if number < len(class_names) else int(rng.integers(len(class_names)))
        files.append((f"{class_names[label]}/{number:03d}.{suffix}", content, label, pixels))
    files.sort(key=lambda file: file[0])
    expected = [file[3] for file in files]
    channels = 1 if all(pixels.shape[2] == 1 for pixels in expected) else 3
    wanted = torch.from_numpy(np.stack([to_channels(pixels, channels).transpose(2, 0, 1) for pixels in expected]))
    for kind, path in write_containers(tmp_path, [file[:3] for file in files], class_names).items():
        for limit in (0, 2048):
            images = load_images(DataConfig(path=str(path), memory_limit_mb=limit), need_labels=True)
            pixels, labels = everything(images)
            assert len(images) == len(files) and images.channels == channels, (kind, limit)
            assert labels == [file[2] for file in files], (kind, limit)
            different = [files[i][0] for i in range(len(files)) if not torch.equal(pixels[i], wanted[i])]
            assert not different, (kind, limit, different)
            if kind != "webdataset":
                assert images.class_names == class_names


def test_the_pipelines_own_opener_is_the_same(tmp_path):
    """``models/`` travels alone and so opens images itself: by the same list of formats, to the same pixels."""
    assert set(opening.SUFFIXES) == set(SUFFIXES) and set(opening.FORMATS) == set(FORMATS)
    rng = np.random.default_rng(FUZZ_SEED)
    contents = [content for _, content, _ in (random_image(rng) for _ in range(60))]
    for content in (*contents, *DEEP.values(), *TRANSPARENT.values()):
        (tmp_path / "image").write_bytes(content)
        ours = np.asarray(opening.open_image(tmp_path / "image"))
        assert np.array_equal(ours.reshape(*ours.shape[:2], -1), decode(content))
    for content, _ in REFUSED.values():
        (tmp_path / "image").write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as an image"):
            opening.open_image(tmp_path / "image")
