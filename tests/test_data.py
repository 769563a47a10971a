"""Real files in, fixed batches out; every kind of bad input named."""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from conftest import ROOT, environment
from PIL import Image
from sklearn.datasets import load_digits

from triptych.config import DataConfig, UserError
from triptych.data import BatchOrder, load_images, make_loader, to_images

SHARED = ROOT.parent / "shared" / "data"


def write_images(folder: Path, count: int = 6, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> list[np.ndarray]:
    """Two classes of noise images as PNGs; returns the pixels in the order datasets reads them."""
    rng = np.random.default_rng(0)
    pixels = []
    for i in range(count):
        name = folder / ("cat" if i < count // 2 else "dog") / f"{i}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
        pixels.append(rng.integers(0, 256, shape, dtype=np.uint8))
        Image.fromarray(pixels[-1], mode).save(name)
    return pixels


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


# ---- order ---------------------------------------------------------------------------------------------


def test_every_image_once_an_epoch():
    steps = list(BatchOrder(num_images=10, batch_size=4, seed=1, stop=5))
    flat = [i for batch in steps for i in batch]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]


def test_skipping_is_exact():
    whole = list(BatchOrder(10, 4, seed=1, stop=9))
    assert list(BatchOrder(10, 4, seed=1, start=6, stop=9)) == whole[6:]


def test_two_processes_share_the_batch_of_one():
    one = list(BatchOrder(10, 4, seed=1, stop=6))
    two = [list(BatchOrder(10, 2, seed=1, stop=6, process_index=p, num_processes=2)) for p in range(2)]
    assert [a + b for a, b in zip(*two, strict=True)] == one


def test_seed_decides_the_order():
    assert list(BatchOrder(50, 8, seed=1, stop=2)) != list(BatchOrder(50, 8, seed=2, stop=2))


# ---- bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["./missing", "/nowhere/at/all", "a/b/c", "pictures.zip"])
def test_missing_path(path):
    with pytest.raises(UserError, match=r"does not exist.*'digits'"):
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


@pytest.mark.parametrize("content", [b"this is not a picture", None])
def test_corrupt_image_is_named_or_skipped(tmp_path, content, capsys):
    """A file that is no image, and one cut off in the middle, which only full decoding finds."""
    write_images(tmp_path)
    bad = tmp_path / "cat" / "1.png"
    bad.write_bytes(content or bad.read_bytes()[:-60])
    with pytest.raises(UserError, match=r"1\.png.*on_corrupt"):
        load_images(DataConfig(path=str(tmp_path)))
    images = load_images(DataConfig(path=str(tmp_path), on_corrupt="skip"))
    assert len(images) == 5 and images.num_skipped == 1
    assert "1.png" in capsys.readouterr().err
    assert images.__getitems__(range(5))["labels"].tolist() == [0, 0, 1, 1, 1]


def test_corrupt_image_in_a_stream_is_replaced_by_the_next(tmp_path, capsys):
    pixels = write_images(tmp_path)
    bad = tmp_path / "cat" / "1.png"
    bad.write_bytes(bad.read_bytes()[:-60])
    images = load_images(DataConfig(path=str(tmp_path), on_corrupt="skip", memory_limit_mb=0))
    batch = images.__getitems__([1, 2])["pixels"].numpy()
    assert np.array_equal(batch[0], pixels[2].transpose(2, 0, 1)) and np.array_equal(batch[0], batch[1])
    assert "1.png" in capsys.readouterr().err


def test_nothing_but_corrupt_images(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(UserError, match="none of 1 images"):
        load_images(DataConfig(path=str(tmp_path), on_corrupt="skip"))


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
        "from triptych.config import DataConfig, UserError\nfrom triptych.data import load_images\n"
        "try: load_images(DataConfig(path='nobody/nothing'))\nexcept UserError as e: print('SAID', e)"
    )
    offline = environment(
        HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path), HTTPS_PROXY="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, timeout=60)
    assert time.monotonic() - start < 30
    assert "SAID" in done.stdout and "cannot be reached" in done.stdout and "'digits'" in done.stdout, done
