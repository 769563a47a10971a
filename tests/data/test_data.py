"""Real files in, fixed batches out; every kind of bad input named."""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile

import datasets
import numpy as np
import pytest
import torch
from conftest import ROOT, environment
from PIL import Image
from sklearn.datasets import load_digits
from stand_ins import write_images

from triptych.config.base import DataConfig
from triptych.data.image_set import to_images
from triptych.data.order import BatchOrder, make_loader
from triptych.data.sources import load_images
from triptych.errors import UserError

SHARED = ROOT.parent / "shared" / "data"


def test_digits_are_scikit_learns():
    train, test = load_images(DataConfig()), load_images(DataConfig(split="test"))
    assert (len(train), len(test)) == (1437, 360)
    assert (train.channels, train.image_size) == (1, 8)
    assert train.class_names == [str(i) for i in range(10)]
    batch = test.__getitems__([0, 1])
    source = load_digits()
    assert batch["labels"].tolist() == [source.target[0], source.target[5]]
    assert np.abs(batch["pixels"][1, 0].numpy() / 255 * 16 - source.images[5]).max() < 0.05


def test_pixels_map_to_the_whole_range():
    assert to_images(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_image_folder(tmp_path, mode):
    pixels = write_images(tmp_path / "set", mode=mode)
    images = load_images(DataConfig(path=str(tmp_path / "set")), need_labels=True)
    assert images.class_names == ["cat", "dog"]
    batch = images.__getitems__([4, 1])
    expected = np.stack([pixels[4], pixels[1]]).reshape(2, 8, 8, -1).transpose(0, 3, 1, 2)
    assert np.array_equal(batch["pixels"].numpy(), expected)
    assert batch["labels"].tolist() == [1, 0]


def test_zip_of_images(tmp_path):
    write_images(tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted((tmp_path / "set").rglob("*.png")):
            archive.write(file, file.relative_to(tmp_path / "set"))
        archive.writestr("cat/notes.txt", "not a picture")
        archive.writestr("__MACOSX/cat/._0.png", "what macOS leaves in zips")
    zipped = load_images(DataConfig(path=str(tmp_path / "set.zip")), need_labels=True)
    folder = load_images(DataConfig(path=str(tmp_path / "set")))
    everything = list(range(6))
    for key in ("pixels", "labels"):
        assert torch.equal(zipped.__getitems__(everything)[key], folder.__getitems__(everything)[key])


def test_streaming_gives_what_memory_gives(tmp_path):
    write_images(tmp_path / "set")
    held = load_images(DataConfig(path=str(tmp_path / "set")))
    streamed = load_images(DataConfig(path=str(tmp_path / "set"), memory_limit_mb=0))
    assert held.in_memory and not streamed.in_memory
    order = BatchOrder(6, 4, seed=3, stop=5)
    for a, b in zip(make_loader(held, order), make_loader(streamed, order, num_workers=2), strict=True):
        assert torch.equal(a["pixels"], b["pixels"]) and torch.equal(a["labels"], b["labels"])


def test_resize_and_centre_crop(tmp_path):
    write_images(tmp_path / "set", size=(12, 9))
    images = load_images(DataConfig(path=str(tmp_path / "set"), image_size=6))
    assert images.__getitems__([0])["pixels"].shape == (1, 3, 6, 6)


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    images = load_images(DataConfig(path=str(tmp_path), channels=3))
    assert images.__getitems__([0])["pixels"].unique().tolist() == [255]


@pytest.mark.skipif(
    not SHARED.exists(), reason="the development copy of CIFAR-10 and MNIST is not beside this checkout"
)
@pytest.mark.parametrize(("name", "split", "count", "shape"), [("mnist", "test", 10_000, (1, 28, 28))])
def test_real_data_sets(name, split, count, shape):
    images = load_images(DataConfig(path=str(SHARED / name), split=split), need_labels=True)
    assert len(images) == count and len(images.class_names) == 10
    batch = images.__getitems__([0, count - 1])
    assert batch["pixels"].shape == (2, *shape) and batch["pixels"].float().std() > 20


# ---- bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["./missing", "/nowhere/at/all", "a/b/c", "pictures.zip", "PICTURES.ZIP"])
def test_missing_path(path):
    with pytest.raises(UserError, match=r"does not exist.*'digits'"):
        load_images(DataConfig(path=path))


@pytest.mark.parametrize("path", ["", " ", "x" * 300, "/tmp/" + "x" * 300])
def test_what_is_no_name(path):
    with pytest.raises(UserError, match=r"is no name of a folder"):
        load_images(DataConfig(path=path))


def test_empty_folder(tmp_path):
    with pytest.raises(UserError, match="holds no"):
        load_images(DataConfig(path=str(tmp_path)))


def test_file_that_is_no_zip(tmp_path):
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(UserError, match=r"not a \.zip"):
        load_images(DataConfig(path=str(tmp_path / "x.txt")))


def test_broken_zip(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK not really")
    with pytest.raises(UserError, match="no readable zip"):
        load_images(DataConfig(path=str(tmp_path / "x.zip")))


def test_unknown_split(tmp_path):
    write_images(tmp_path)
    with pytest.raises(UserError, match=r"'validation' does not exist.*train"):
        load_images(DataConfig(path=str(tmp_path), split="validation"))


def test_no_labels(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert not load_images(DataConfig(path=str(tmp_path))).has_labels
    with pytest.raises(UserError, match=r"no labels.*one folder per class"):
        load_images(DataConfig(path=str(tmp_path)), need_labels=True)


def test_unlabelled_rows(tmp_path):
    write_images(tmp_path / "set")
    files = sorted(str(p) for p in (tmp_path / "set").rglob("*.png"))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = datasets.Dataset.from_dict({"image": files, "label": [0, 1, -1, 0, 1, 0]}, features=features)
    (tmp_path / "parquet").mkdir()
    rows.to_parquet(tmp_path / "parquet" / "train.parquet")
    with pytest.raises(UserError, match="unlabelled"):
        load_images(DataConfig(path=str(tmp_path / "parquet")), need_labels=True)


def test_not_square(tmp_path):
    write_images(tmp_path, size=(12, 8))
    with pytest.raises(UserError, match=r"12x8 pixels.*data\.image_size"):
        load_images(DataConfig(path=str(tmp_path)))


def test_mixed_sizes(tmp_path):
    write_images(tmp_path)
    Image.new("RGB", (10, 10)).save(tmp_path / "dog" / "big.png")
    with pytest.raises(UserError, match=r"big\.png.*10x10"):
        load_images(DataConfig(path=str(tmp_path)))


def test_wrong_columns(tmp_path):
    write_images(tmp_path)
    with pytest.raises(UserError, match="image_column 'picture'"):
        load_images(DataConfig(path=str(tmp_path), image_column="picture"))
    with pytest.raises(UserError, match="label_column 'kind'"):
        load_images(DataConfig(path=str(tmp_path), label_column="kind"))


def test_unreachable_hub_is_said_within_30_seconds(tmp_path):
    """A proxy that refuses every connection stands for a machine without a network."""
    code = (
        "from triptych.config.base import DataConfig\nfrom triptych.errors import UserError\n"
        "from triptych.data.sources import load_images\n"
        "try: load_images(DataConfig(path='nobody/nothing'))\nexcept UserError as e: print('SAID', e)"
    )
    offline = environment(
        HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path), HTTPS_PROXY="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, timeout=60)
    assert time.monotonic() - start < 30
    assert "SAID" in done.stdout and "cannot be reached" in done.stdout and "'digits'" in done.stdout, done
