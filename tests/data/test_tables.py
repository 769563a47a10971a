"""Tables of images, archives and what datasets saved: columns, classes, faults, the cache."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import environment
from made_tables import FLOAT, INTEGER, STRING, archive
from PIL import Image
from stand_ins import write_images

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.errors import UserError


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
