"""Real files in, fixed batches out; every kind of bad input named."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
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


@pytest.mark.parametrize("limit", [0, 2048])
def test_what_stands_in_for_a_torn_image_brings_its_own_label(tmp_path, limit):
    """The last cat is torn: its place must not show a dog that is called a cat."""
    pixels = write_images(tmp_path)
    bad = tmp_path / "cat" / "2.png"
    bad.write_bytes(bad.read_bytes()[:-60])
    images = load_images(DataConfig(path=str(tmp_path), on_corrupt="skip", memory_limit_mb=limit))
    batch = images.__getitems__(range(len(images)))
    for image, label in zip(batch["pixels"], batch["labels"].tolist(), strict=True):
        shown = next(i for i, known in enumerate(pixels) if np.array_equal(known.transpose(2, 0, 1), image))
        assert label == (shown >= 3)
    assert [images.label(i) for i in range(len(images))] == batch["labels"].tolist()
    half = images.every_other(0).__getitems__([0, 1])
    assert torch.equal(half["labels"], batch["labels"][0:4:2])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_torn_image_in_a_stream_is_one_line_whatever_process_meets_it(tmp_path, workers):
    write_images(tmp_path)
    bad = tmp_path / "dog" / "4.png"
    bad.write_bytes(bad.read_bytes()[:-60])
    images = load_images(DataConfig(path=str(tmp_path), memory_limit_mb=0))
    with pytest.raises(UserError) as raised:
        list(make_loader(images, BatchOrder(6, 2, seed=0, stop=3), num_workers=workers))
    assert re.fullmatch(r"data\.path .*image 4 \(dog/4\.png\) cannot be decoded.*on_corrupt.*", str(raised.value))


@pytest.mark.parametrize("grey", [0, 3, 5])
def test_a_set_is_colour_if_any_image_is(tmp_path, capsys, grey):
    write_images(tmp_path)
    Image.new("LA", (8, 8), (9, 255)).save(tmp_path / f"{'cat' if grey < 3 else 'dog'}/{grey}.png")
    images = load_images(DataConfig(path=str(tmp_path)))
    assert images.channels == 3 and images.whole(grey).unique().tolist() == [9]
    assert "1 of 6 images are grey and become colour; data.channels 1" in capsys.readouterr().err
    assert load_images(DataConfig(path=str(tmp_path), channels=1)).channels == 1
    assert "grey" not in capsys.readouterr().err


@pytest.mark.parametrize(("white", "warned"), [(4095, True), (1023, True), (65535, False), (0, False)])
def test_twelve_bits_in_sixteen_are_warned_of(tmp_path, capsys, white, warned):
    Image.fromarray(np.linspace(0, white, 64).astype(np.uint16).reshape(8, 8)).save(tmp_path / "0.png")
    load_images(DataConfig(path=str(tmp_path)))
    assert ("the images of 16 bits are nearly black" in capsys.readouterr().err) == warned


def test_nothing_but_corrupt_images(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(UserError, match=r"none of 1 images could be read \(the first: it is no image"):
        load_images(DataConfig(path=str(tmp_path), on_corrupt="skip"))


@pytest.mark.parametrize("limit", [0, 2048])
def test_nothing_but_torn_images(tmp_path, limit):
    """Good headers, so it is found only when they are decoded."""
    write_images(tmp_path)
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(UserError, match=r"none of 6 images could be decoded|no image could be decoded"):
        load_images(DataConfig(path=str(tmp_path), on_corrupt="skip", memory_limit_mb=limit)).whole(0)


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


@pytest.mark.parametrize("dtype", ["binary", "large_binary", "struct"])
def test_images_as_bytes(tmp_path, dtype):
    """What pandas writes: the contents of files, alone or beside their paths."""
    pixels = write_images(tmp_path / "set")
    contents = [path.read_bytes() for path in sorted((tmp_path / "set").rglob("*.png"))]
    struct = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    kind = {"binary": pyarrow.binary(), "large_binary": pyarrow.large_binary(), "struct": struct}[dtype]
    values = [{"bytes": content, "path": None} for content in contents] if dtype == "struct" else contents
    table = pyarrow.table({"image": pyarrow.array(values, kind), "label": ["x", "y", "z"] * 2})
    (tmp_path / "table").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "table/train.parquet")
    images = load_images(DataConfig(path=str(tmp_path / "table")), need_labels=True)
    assert images.class_names == ["x", "y", "z"] and images.label(4) == 1
    assert np.array_equal(images.whole(4), pixels[4].transpose(2, 0, 1))


def table(folder: Path, image: list, label: list, features: dict) -> str:
    folder.mkdir(parents=True)
    rows = datasets.Dataset.from_dict({"image": image, "label": label}, datasets.Features(features))
    rows.to_parquet(folder / "train.parquet")
    return str(folder)


CLASSES = datasets.ClassLabel(names=["a", "b"])
STRING, INTEGER, FLOAT = (datasets.Value(kind) for kind in ("string", "int64", "float32"))


@pytest.mark.parametrize(
    ("labels", "feature", "message"),
    [
        ([0, None, 1], CLASSES, r"the column 'label' \(int64\) is empty in row 2 of 3"),
        (["a", None, "b"], STRING, r"the column 'label' \(string\) is empty in row 2 of 3"),
        (["a", "", "b"], STRING, "is empty in row 2 of 3"),
        ([0, 1, None], INTEGER, "is empty in row 3 of 3"),
        ([0.5, 1, 2], FLOAT, r"the column 'label' \(float32\) holds floats, not classes, such as 0.5 in row 1"),
        ([["a"], ["b"], ["a"]], datasets.List(STRING), "holds lists, not classes"),
    ],
)
def test_labels_that_are_none(tmp_path, labels, feature, message):
    pixels = [Image.new("RGB", (8, 8))] * 3
    path = table(tmp_path / "table", pixels, labels, {"image": datasets.Image(), "label": feature})
    with pytest.raises(UserError, match=message):
        load_images(DataConfig(path=path))


@pytest.mark.parametrize(
    ("train", "test", "feature"),
    [
        (["ant", "cat", "dog"], ["dog", "cat"], STRING),
        ([3, 5, 7], [7, 5], INTEGER),
        ([0, 1, 2], [-1, -1], INTEGER),
        (["ant", "cat"], [None, ""], STRING),
        ([True, False], [True, True], datasets.Value("bool")),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "save_to_disk"])
def test_a_class_of_a_table_has_one_id_in_every_split(tmp_path, train, test, feature, kind):
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    splits = datasets.DatasetDict()
    for name, labels in (("train", train), ("test", test)):
        rows = {"image": [Image.new("RGB", (8, 8))] * len(labels), "label": labels}
        splits[name] = datasets.Dataset.from_dict(rows, features)
    if kind == "save_to_disk":
        splits.save_to_disk(tmp_path / "set")
    else:
        (tmp_path / "set").mkdir()
        for name, split in splits.items():
            split.to_parquet(tmp_path / "set" / f"{name}.parquet")
    path = str(tmp_path / "set")
    names = [str(name) for name in sorted(set(train))]
    images = load_images(DataConfig(path=path), need_labels=True)
    assert images.class_names == names and [names[images.label(i)] for i in range(len(train))] == [*map(str, train)]
    if test[0] in train:
        images = load_images(DataConfig(path=path, split="test"), need_labels=True)
        assert images.class_names == names and [names[images.label(i)] for i in range(len(test))] == [*map(str, test)]


def test_archives_have_one_id_for_a_class_in_every_split(tmp_path):
    for name, labels in (("train", "012"), ("test", "21")):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            for number, label in enumerate(labels):
                content = io.BytesIO()
                Image.new("RGB", (8, 8)).save(content, "PNG" if number else "BMP")
                for ending, part in (("png" if number else "bmp", content.getvalue()), ("cls", label.encode())):
                    entry = tarfile.TarInfo(f"{number}.{ending}")
                    entry.size = len(part)
                    archive.addfile(entry, io.BytesIO(part))
    test = load_images(DataConfig(path=str(tmp_path), split="test"), need_labels=True)
    assert test.class_names == ["0", "1", "2"] and [test.label(i) for i in range(2)] == [2, 1]


def test_a_row_without_an_image(tmp_path):
    pixels = [Image.new("RGB", (8, 8)), None, Image.new("RGB", (8, 8))]
    path = table(tmp_path / "table", pixels, [0, 0, 1], {"image": datasets.Image(), "label": CLASSES})
    with pytest.raises(UserError, match=r"image 1 cannot be decoded \(the table has no image in this row\)"):
        load_images(DataConfig(path=path))
    assert load_images(DataConfig(path=path, on_corrupt="skip")).__getitems__([0, 1])["labels"].tolist() == [0, 1]


def test_a_table_without_images_tells_its_columns(tmp_path):
    path = table(tmp_path / "table", ["a.png"], [0], {"image": STRING, "label": CLASSES})
    with pytest.raises(UserError, match=r"no image column; its columns are image \(Value\('string'\)\), label"):
        load_images(DataConfig(path=path))


@pytest.mark.parametrize("with_splits", [False, True])
def test_what_save_to_disk_wrote(tmp_path, with_splits):
    pixels = write_images(tmp_path / "set")
    rows = datasets.Dataset.from_dict(
        {"image": sorted(str(p) for p in (tmp_path / "set").rglob("*.png")), "label": [0, 1] * 3},
        datasets.Features({"image": datasets.Image(), "label": CLASSES}),
    )
    saved = datasets.DatasetDict(train=rows.select(range(4)), test=rows.select(range(4, 6))) if with_splits else rows
    saved.save_to_disk(tmp_path / "saved")
    images = load_images(DataConfig(path=str(tmp_path / "saved"), split="test" if with_splits else "train"))
    first = 4 if with_splits else 0
    assert len(images) == 6 - first and images.class_names == ["a", "b"] and images.label(0) == 0
    assert np.array_equal(images.whole(0), pixels[first].transpose(2, 0, 1))
    with pytest.raises(
        UserError, match=r"'validation' does not exist.*\['te" if with_splits else r"not exist.*\['train'\]"
    ):
        load_images(DataConfig(path=str(tmp_path / "saved"), split="validation"))


def archive(path: Path, *files: tuple[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def encoded(level: int, kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (level,) * 3).save(file, kind)
    return file.getvalue()


def test_archives_that_mix_formats(tmp_path):
    """datasets refuses them, or makes a column of each format and leaves it empty for the others."""
    archive(tmp_path / "set/train-0.tar", ("0.png", encoded(10, "PNG")), ("0.cls", b"0"), ("0.json", b"{}"),
            ("1.jpg", encoded(20, "JPEG")), ("1.cls", b"1\n"), ("1.json", b"{}"))  # fmt: skip
    archive(tmp_path / "set/train-1.tar", ("a/2.webp", encoded(30, "WEBP")), ("a/2.cls", b"1"))
    archive(tmp_path / "set/test-0.tar", ("3.png", encoded(40, "PNG")), ("3.cls", b"0"))
    images = load_images(DataConfig(path=str(tmp_path / "set")), need_labels=True)
    batch = images.__getitems__(range(3))
    assert batch["pixels"][:, 0, 0, 0].tolist() == [10, 20, 30] and batch["labels"].tolist() == [0, 1, 1]
    assert load_images(DataConfig(path=str(tmp_path / "set"), split="test")).whole(0).unique().tolist() == [40]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("0.png", encoded(0, "PNG")), ("0.jpg", encoded(0, "JPEG"))], "the sample 0 has 2 images .*must have one"),
        ([("0.png", encoded(0, "PNG")), ("0.cls", b"cat"), ("1.jpg", encoded(0, "JPEG"))], "0.cls holds b'cat'"),
        ([("0.png", encoded(0, "PNG")), ("0.cls", b"0"), ("1.jpg", encoded(0, "JPEG"))], "empty in row 2"),
    ],
)
def test_faults_of_archives(tmp_path, files, message):
    archive(tmp_path / "set/train.tar", *files, ("2.webp", encoded(0, "WEBP")))
    with pytest.raises(UserError, match=message):
        load_images(DataConfig(path=str(tmp_path / "set")))


@pytest.mark.parametrize(
    "name", ["train.parquet", "train.arrow", "train.tar", "train.csv", "train.jsonl", "dataset_dict.json"]
)
@pytest.mark.parametrize("content", [b"", b"not that at all \xff\xfe"])
def test_tables_that_cannot_be_read_are_one_paragraph(tmp_path, name, content):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_bytes(content)
    with pytest.raises(UserError) as raised:
        load_images(DataConfig(path=str(tmp_path / "set")))
    assert str(tmp_path / "set") in str(raised.value) and "\n" not in str(raised.value)


def test_images_beside_tables(tmp_path, capsys):
    """The more numerous are the set, and the others are named."""
    pixels = [Image.new("RGB", (8, 8))] * 2
    path = table(tmp_path / "set", pixels, [0, 1], {"image": datasets.Image(), "label": CLASSES})
    write_images(tmp_path / "set")
    assert len(load_images(DataConfig(path=path))) == 6
    assert "passed over: 1 .parquet" in capsys.readouterr().err
    (tmp_path / "set/README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: '*.parquet'\n---\n")
    assert len(load_images(DataConfig(path=path))) == 2, "the folder says itself how it is to be read"
    assert "passed over: 6 images beside the tables" in capsys.readouterr().err


def in_a_process(code: str, **variables: str) -> list[str]:
    """What is printed where ``tell(path)`` says what loading a path gives."""
    head = """
from pathlib import Path
from triptych.config.base import DataConfig
from triptych.errors import UserError
from triptych.data.sources import load_images
def tell(path):
    try: print("READ", len(load_images(DataConfig(path=path))))
    except UserError as error: print("SAID", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", head + code], env=environment(**variables), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_cached_copy_of_another_folder_is_no_data_set_of_the_hub(tmp_path):
    """datasets caches a local folder under its bare name; offline it would come back as whatever has that name."""
    pixels = [Image.new("RGB", (8, 8))] * 2
    features = {"image": datasets.Image(), "label": CLASSES}
    folder = table(tmp_path / "elsewhere/photos", pixels, [0, 1], features)
    home = tmp_path / "home"
    code = f"""
tell({folder!r})
tell("photos")
# A real copy from the Hub lies in a folder that is called by a commit.
kept = next(Path({str(home / "datasets/photos")!r}).rglob("dataset_info.json")).parent
kept.rename(kept.with_name("0123456789" * 4))
tell("photos")
"""
    local, name, commit = in_a_process(code, HF_HOME=str(home))
    assert local == commit == "READ 2" and re.match("SAID .*'photos' is no folder here", name)


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    features = {"image": datasets.Image(), "label": CLASSES}
    folder = table(tmp_path / "photos", [Image.new("RGB", (8, 8))], [0], features)
    write_images(tmp_path / "set")
    home = str(tmp_path / "file/home")
    of_table, of_folder = in_a_process(f"tell({folder!r})\ntell({str(tmp_path / 'set')!r})", HF_HOME=home)
    assert "SAID" in of_table and home in of_table and "Set HF_HOME" in of_table
    assert of_folder == "READ 6", "a folder of images needs no cache"


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
