"""Folders and zips: which images belong to which split and class, and what is passed over; the same in both."""

from __future__ import annotations

import contextlib
import os
import struct
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from triptych.config.base import DataConfig
from triptych.data.image_set import ImageSet
from triptych.data.photos import load_photos
from triptych.data.sources import load_images
from triptych.errors import UserError

CONTAINERS = ["folder", "zip", "zip in a folder"]


def picture(path: Path, level: int = 0) -> None:
    """A square of one grey level, by which it is known again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, level, level)).save(path)


@pytest.fixture(params=CONTAINERS)
def make(request, tmp_path):
    """Write files, pictures of the levels 0, 1, ... and others with their text, and return where the set lies."""

    def write(*names: str, **others: str | bytes) -> str:
        root = tmp_path / "set"
        for level, name in enumerate(names):
            picture(root / name, level)
        for name, content in others.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        if request.param == "folder":
            return str(root)
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for file in root.rglob("*"):
                # as a file manager zips a folder, or what is in it
                archive.write(file, file.relative_to(root if request.param == "zip" else tmp_path))
        return str(tmp_path / "set.zip")

    return write


def levels(images: ImageSet) -> list[int]:
    return images.__getitems__(range(len(images)))["pixels"][:, 0, 0, 0].tolist()


def labels(images: ImageSet) -> list[str]:
    ids = images.__getitems__(range(len(images)))["labels"].tolist()
    return [images.class_names[number] for number in ids]


# ---- splits --------------------------------------------------------------------------------------------

TWO_SPLITS = ("train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/dog/0.png", "test/dog/1.png")


def test_splits_keep_apart_what_is_trained_on_and_what_is_tested(make):
    path = make(*TWO_SPLITS)
    train, test = (load_images(DataConfig(path=path, split=split), need_labels=True) for split in ("train", "test"))
    assert levels(train) == [0, 1] and labels(train) == ["cat", "dog"]
    assert levels(test) == [2, 3, 4] and labels(test) == ["cat", "dog", "dog"]
    for split in ("validation", "anything"):
        with pytest.raises(UserError, match=rf"data\.split '{split}' does not exist.*\['test', 'train'\]"):
            load_images(DataConfig(path=path, split=split))
    with pytest.raises(UserError, match="Set validation_split to one of them"):
        load_images(DataConfig(path=path, split="validation"), split_setting="validation_split")


def test_without_split_folders_there_is_only_train(make):
    path = make("cat/0.png", "dog/1.png")
    assert len(load_images(DataConfig(path=path))) == 2
    with pytest.raises(UserError, match=r"'test' does not exist.*\['train'\]"):
        load_images(DataConfig(path=path, split="test"))


@pytest.mark.parametrize(
    ("folder", "split"), [("Train", "train"), ("training", "train"), ("val", "validation"), ("Eval", "test")]
)
def test_splits_go_by_the_names_the_hub_knows(make, folder, split):
    path = make(f"{folder}/cat/0.png", f"{folder}/dog/1.png")
    for name in (split, folder):
        assert levels(load_images(DataConfig(path=path, split=name))) == [0, 1]


def test_classes_have_the_same_ids_in_every_split(make):
    path = make("train/ant/0.png", "train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/dog/0.png")
    test = load_images(DataConfig(path=path, split="test"), need_labels=True)
    assert test.class_names == ["ant", "cat", "dog"] and labels(test) == ["cat", "dog"]


def test_splits_without_classes_need_no_labels(make):
    path = make("train/0.png", "train/1.png", "test/0.png")
    for load in (load_images, load_photos):
        images = load(DataConfig(path=path, split="test"))
        assert len(images) == 1 and not images.has_labels and images.class_names is None
    with pytest.raises(UserError, match=r"has no labels.*all lie in one folder"):
        load_images(DataConfig(path=path), need_labels=True)


def test_a_picture_beside_the_splits_is_named(make, capsys):
    path = make(*TWO_SPLITS, "cover.png")
    assert len(load_images(DataConfig(path=path))) == 2
    assert "passed over: 1 outside the split folders" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"it has \['test', 'train'\] \(1 images lie outside these folders\)"):
        load_images(DataConfig(path=path, split="validation"))


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("bus/0.png", "car/0.png", "train/0.png"), ["bus", "car", "train"]),
        (("cat/0.png", "cat/train.png", "dog/test.png", "dog/dog test 3.png"), ["cat", "dog"]),
        (("dogs/0.png", "train_cats/0.png", "test-cats/0.png"), ["dogs", "test-cats", "train_cats"]),
        (("dogs/evaluation-1.png", "latest/val.png"), ["dogs", "latest"]),
    ],
)
def test_a_word_in_a_name_makes_no_split(make, names, classes):
    images = load_images(DataConfig(path=make(*names)), need_labels=True)
    assert len(images) == len(names) and images.class_names == classes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/cat/0.png", "test/cat/0.png", "more/cat/0.png"), "test, train look like splits.*more"),
        (("train/0.png", "test/0.png", "bus/0.png"), "look like splits.*bus"),
        (("test/cat/0.png", "extra/cat/0.png"), "test look like splits.*extra"),
        (("cat/train/0.png", "cat/test/1.png", "dog/train/0.png"), "splits test and train lie inside other folders"),
        (("a/x/train/0.png", "b/x/test/1.png", "b/x/dev/2.png"), "lie inside other folders"),
        (("training_set/cat/0.png", "test_set/cat/1.png"), "test_set and training_set look like splits"),
        (("seg_train/seg_train/cat/0.png", "seg_test/seg_test/cat/1.png"), "seg_test and seg_train look like splits"),
        (("train2017/0.png", "val2017/1.png", "notes/0.png"), "train2017 and val2017 look like splits"),
        (("trainA/0.png", "trainB/1.png", "testA/2.png"), "testA and trainA look like splits"),
        (("Train /0.png", "test /1.png"), "look like splits"),
        (("cat/train_images/0.png", "dog/test_images/1.png"), "lie inside other folders"),
    ],
)
def test_what_might_leak_is_refused(make, names, message):
    with pytest.raises(UserError, match=message):
        load_images(DataConfig(path=make(*names)))


@pytest.mark.parametrize("inside", ["", "train/"])
@pytest.mark.parametrize("names", [("train_cats", "test_dogs"), ("trained", "tested"), ("contest-1", "contrain-1")])
def test_classes_whose_names_have_a_split_and_more_in_them(make, names, inside):
    path = make(*(f"{inside}{name}/0.png" for name in names))
    assert load_images(DataConfig(path=path), need_labels=True).class_names == sorted(names)


def test_classes_that_are_alike_but_for_the_word_of_a_split(make):
    path = make("train/train_cats/0.png", "train/test_cats/1.png")  # as the message advises
    assert load_images(DataConfig(path=path), need_labels=True).class_names == ["test_cats", "train_cats"]


# ---- classes -------------------------------------------------------------------------------------------


def test_a_loose_picture_makes_no_class(make, capsys):
    path = make("cat/0.png", "dog/1.png", "cover.png")
    images = load_images(DataConfig(path=path))
    assert len(images) == 3 and images.class_names is None
    assert "3 images without classes (they lie at different depths" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no labels.*different depths.*cover\.png"):
        load_images(DataConfig(path=path), need_labels=True)


def test_an_accent_stored_in_two_ways_makes_one_class(make):
    names = [unicodedata.normalize(form, f"café/{form}.png") for form in ("NFC", "NFD")]
    images = load_images(DataConfig(path=make(*names, "dog/0.png")), need_labels=True)
    assert images.class_names == ["café", "dog"] and labels(images).count("café") == 2


def test_every_format_that_is_read_counts(make, capsys):
    """A class whose images are all AVIF was gone; documents and data were taken for images."""
    path = make("cat/0.png", "cat/1.AVIF", "fox/0.avif", "fox/1.webp", **{"docs/a.pdf": "x", "docs/b.h5": "x"})
    images = load_images(DataConfig(path=path), need_labels=True)
    assert len(images) == 4 and images.class_names == ["cat", "fox"]
    assert "4 images in 2 classes; passed over: 1 .h5, 1 .pdf" in capsys.readouterr().err


def test_what_is_passed_over_is_counted(make, capsys):
    others = {"cat/notes.txt": "x", "cat/more.TXT": "x", "cat/._0.png": "x", "__MACOSX/cat/0.png": "x", "LICENCE": "x"}
    assert len(load_images(DataConfig(path=make("cat/0.png", "dog/0.png", **others)))) == 2
    said = capsys.readouterr().err
    assert "2 images in 2 classes; passed over: 2 .txt, 2 hidden, 1 without suffix (" in said, said


def test_only_the_first_of_several_processes_speaks(make, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    load_images(DataConfig(path=make("cat/0.png", "dog/0.png")))
    assert capsys.readouterr().err == ""


def test_a_class_emptied_by_skipping_is_refused(make):
    path = make("cat/0.png", "dog/0.png", **{"fox/0.png": b"torn", "cat/1.png": b"torn"})
    config = DataConfig(path=path, on_corrupt="skip")
    assert len(load_images(config)) == 2
    with pytest.raises(UserError, match="no image of the class fox can be decoded"):
        load_images(config, need_labels=True)


# ---- metadata ------------------------------------------------------------------------------------------

THREE = ("0.png", "1.png", "2.png")
GOOD = "file_name,label\n0.png,zebra\n1.png,ape\n2.png,zebra\n"


@pytest.mark.parametrize(
    "file",
    [
        {"metadata.csv": GOOD},
        {"metadata.csv": "\ufeff" + GOOD.replace("\n", "\r\n")},
        {"metadata.csv": 'label,file_name,note\nzebra,2.png,"a, b"\nape,1.png,\nzebra,0.png,\n'},
        {"metadata.jsonl": '{"file_name": "0.png", "label": "zebra"}\n\n{"file_name": "2.png", "label": "zebra"}\n'
         '{"file_name": "./1.png", "label": "ape"}\n'},
    ],
)  # fmt: skip
def test_metadata_tells_the_classes(make, file):
    images = load_images(DataConfig(path=make(*THREE, **file)), need_labels=True)
    assert levels(images) == [0, 1, 2] and labels(images) == ["zebra", "ape", "zebra"]


def test_metadata_of_parquet_and_columns_of_other_names(make, tmp_path):
    table = pyarrow.table({"photo_file_name": ["a/0.png", "a/1.png"], "species": [10, 9]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    path = make("a/0.png", "a/1.png", **{"metadata.parquet": (tmp_path / "x.parquet").read_bytes()})
    images = load_images(DataConfig(path=path, image_column="photo", label_column="species"), need_labels=True)
    assert images.class_names == ["9", "10"] and labels(images) == ["10", "9"]
    with pytest.raises(UserError, match=r"label_column 'kind' does not exist.*species"):
        load_images(DataConfig(path=path, image_column="photo", label_column="kind"))


def test_metadata_of_each_split_and_numbers_as_numbers(make):
    path = make("train/0.png", "train/1.png", "test/0.png", **{
        "train/metadata.csv": "file_name,label\n0.png,10\n1.png,9\n", "test/metadata.csv": "file_name,label\n0.png,9\n"
    })  # fmt: skip
    train, test = (load_images(DataConfig(path=path, split=split), need_labels=True) for split in ("train", "test"))
    assert train.class_names == test.class_names == ["9", "10"]
    assert labels(train) == ["10", "9"] and labels(test) == ["9"]


def test_blanks_around_cells_and_line_separators_in_texts_change_nothing(make):
    path = make(*THREE, **{"metadata.csv": "file_name, label,,\n0.png, zebra\n1.png,ape ,,\n,,,\n2.png,zebra\n"})
    assert labels(load_images(DataConfig(path=path), need_labels=True)) == ["zebra", "ape", "zebra"]
    rows = "".join(f'{{"file_name": "{name}", "label": "a\u2028b"}}\n' for name in THREE)
    (Path(path).parent / "other").mkdir()
    for name in THREE:
        picture(Path(path).parent / "other" / name)
    (Path(path).parent / "other/metadata.jsonl").write_text(rows, encoding="utf-8")
    assert load_images(DataConfig(path=str(Path(path).parent / "other"))).class_names == ["a\u2028b"]


def test_why_there_are_no_classes(make):
    path = make("cat/train/0.png", "dog/train/1.png", **{"metadata.csv": "file_name,Label\ncat/train/0.png,a\n"})
    with pytest.raises(UserError, match=r"in folders called train, and .*metadata\.csv has no column label"):
        load_images(DataConfig(path=path), need_labels=True)


def test_metadata_without_labels_leaves_the_folders(make):
    path = make("cat/0.png", "dog/0.png", **{"metadata.csv": "file_name,author\ncat/0.png,me\ndog/0.png,me\n"})
    assert labels(load_images(DataConfig(path=path), need_labels=True)) == ["cat", "dog"]


def test_images_without_a_row_are_counted(make, capsys):
    path = make(*THREE, **{"metadata.csv": GOOD.replace("1.png,ape\n", "")})
    images = load_images(DataConfig(path=path))
    assert levels(images) == [0, 2]
    assert "2 images in 1 classes; passed over: 1 without a row in the metadata (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"metadata.csv": GOOD.replace("ape", "")}, "metadata.csv: the column label is empty in row 2 of 3"),
        ({"metadata.csv": "file_name,label\n0.png,1\n1.png,\n2.png,2\n"}, "the column label is empty in row 2"),
        ({"metadata.csv": "file_name,label\n0.png,1\n1.png\n2.png,2\n"}, "the column label is empty in row 2"),
        ({"metadata.csv": GOOD.replace("file_name", "filename")}, r"no column file_name.*\['filename', 'label'\]"),
        ({"metadata.csv": GOOD.replace(",", ";")}, "no column file_name.*commas"),
        ({"metadata.csv": GOOD.replace(",", "\t")}, "no column file_name.*commas"),
        ({"metadata.csv": GOOD + "9.png,ape\n"}, r"names .*9\.png in row 4, and there is no such image"),
        ({"metadata.csv": GOOD.encode().replace(b"ape", b"\x90\xd1")}, r"not in UTF-8 \(line 3\)"),
        ({"metadata.csv": GOOD + "0.png,ape\n"}, r"row 4 gives .*0\.png another label than a row before"),
        ({"metadata.csv": ""}, "holds no rows"),
        ({"metadata.csv": "file_name,label\n"}, "holds no rows"),
        ({"metadata.csv": b"file_name,label\n0.png,\0\n\xff\xfe"}, "not in UTF-8|cannot be read"),
        ({"metadata.jsonl": '{"file_name": "0.png", "label": ["zebra"]}\n'}, "holds lists, not classes.*row 1 of 1"),
        ({"metadata.jsonl": '{"file_name": "0.png", "label": 0.5}\n'}, "holds floats, not classes"),
        ({"metadata.jsonl": '{"file_name": "0.png", "label": null}\n'}, "is empty in row 1"),
        ({"metadata.jsonl": '{"file_name": "0.png", "label": "a"}\n{"file_name": "1.png", "label": 1}\n'}, "mixes"),
        ({"metadata.jsonl": '{"file_name": \n'}, r"metadata\.jsonl cannot be read"),
        (
            {"metadata.jsonl": '{"file_name": "0.png", "label": "a"}\n{"file_'},
            r"metadata\.jsonl cannot be read \(line 2",
        ),
        (
            {"metadata.jsonl": '{"file_name": "0.png"}\n{"file_name": "1.png", "label": "a"}\n'},
            "is empty in row 1 of 2",
        ),
        ({"metadata.csv": "file_name,label,label\n0.png,ape,zebra\n"}, "several columns label"),
        ({"metadata.jsonl": "[1, 2]\n"}, "holds no rows of named columns"),
        ({"metadata.parquet": "no parquet"}, r"metadata\.parquet cannot be read"),
    ],
)
def test_faults_of_metadata_name_file_column_and_row(make, file, message):
    with pytest.raises(UserError, match=message):
        load_images(DataConfig(path=make(*THREE, **file)))


# ---- folders -------------------------------------------------------------------------------------------


def test_links_are_followed_but_not_in_circles(tmp_path, capsys):
    picture(tmp_path / "elsewhere/dogs/0.png", 7)
    picture(tmp_path / "set/cat/0.png", 3)
    (tmp_path / "set/dog").symlink_to(tmp_path / "elsewhere/dogs")
    (tmp_path / "set/cat/again").symlink_to(tmp_path / "set")
    (tmp_path / "set/cat/gone.png").symlink_to(tmp_path / "nowhere.png")
    images = load_images(DataConfig(path=str(tmp_path / "set")), need_labels=True)
    assert levels(images) == [3, 7] and labels(images) == ["cat", "dog"]
    said = capsys.readouterr().err
    assert "1 behind a broken link (cat/gone.png)" in said and "1 behind a link in a circle (cat/again)" in said


def test_a_folder_called_zip_and_a_zip_in_a_folder(tmp_path):
    picture(tmp_path / "photos.zip/cat/0.png")
    picture(tmp_path / "photos.zip/dog/0.png")
    assert len(load_images(DataConfig(path=str(tmp_path / "photos.zip")))) == 2
    (tmp_path / "other").mkdir()
    with zipfile.ZipFile(tmp_path / "other/train.zip", "w") as archive:
        archive.write(tmp_path / "photos.zip/cat/0.png", "cat/0.png")
    with pytest.raises(UserError, match=r"Point data\.path at the zip itself, such as .*train\.zip"):
        load_images(DataConfig(path=str(tmp_path / "other")))


def test_folders_whose_names_are_no_text(tmp_path):
    """Names in an old encoding: other bytes, other classes, and names that can be written into a model card."""
    for number, name in enumerate((b"\xc3\xa8", b"\xb9\xb7", b"\xd1\xc8")):
        folder = os.fsdecode(os.fsencode(tmp_path) + b"/set/" + name)
        picture(Path(folder) / "0.png", number)
    images = load_images(DataConfig(path=str(tmp_path / "set")), need_labels=True)
    assert len(images.class_names) == 3 and "".join(images.class_names).encode()
    assert sorted(levels(images)) == [0, 1, 2]


# ---- zips ----------------------------------------------------------------------------------------------


def zipped(path: Path, *names: str, level: int = 0) -> Path:
    """A zip of pictures under these names."""
    picture(path.with_suffix(".png"), level)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.write(path.with_suffix(".png"), name)
    return path


def patched(path: Path, **changes: int) -> Path:
    """Set ``flags`` or ``method`` of the first entry of a zip, in both its headers."""
    content = bytearray(path.read_bytes())
    for name, value in changes.items():
        for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            place = content.index(signature) + offset + (2 if name == "method" else 0)
            content[place : place + 2] = struct.pack("<H", value)
    path.write_bytes(content)
    return path


def test_a_suffix_in_capitals(tmp_path):
    assert len(load_images(DataConfig(path=str(zipped(tmp_path / "SET.ZIP", "cat/0.PNG", "dog/1.PNG"))))) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flags": 1}, "is encrypted; unpack the zip"),
        ({"method": 9}, r"does not read its compression \(method 9\); unpack"),
        (None, "the zip is damaged here: Bad CRC-32"),
    ],
)
def test_one_bad_entry_is_named_or_skipped(tmp_path, change, message):
    path = zipped(tmp_path / "set.zip", "cat/0.png", "cat/1.png", "dog/0.png")
    if change is None:
        content = bytearray(path.read_bytes())
        place = content.index(b"IDAT") + 6
        content[place] ^= 255
        path.write_bytes(content)
    else:
        patched(path, **change)
    with pytest.raises(UserError, match=rf"image 0 \(cat/0\.png\).*{message}"):
        load_images(DataConfig(path=str(path)))
    images = load_images(DataConfig(path=str(path), on_corrupt="skip"), need_labels=True)
    assert labels(images) == ["cat", "dog"] and images.num_skipped == 1


@pytest.mark.parametrize("part", [0, 10, 0.5, 0.9])
def test_a_torn_zip_is_one_paragraph(tmp_path, part):
    content = zipped(tmp_path / "set.zip", "cat/0.png", "dog/0.png").read_bytes()
    (tmp_path / "set.zip").write_bytes(content[: int(part * len(content)) if part < 1 else part])
    with pytest.raises(UserError, match="no readable zip"):
        load_images(DataConfig(path=str(tmp_path / "set.zip")))


def test_a_zip_with_random_damage_is_refused_or_read(tmp_path):
    content = zipped(tmp_path / "set.zip", "cat/0.png", "cat/1.png", "dog/0.png").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            damaged[place] = rng.integers(256)
        (tmp_path / "x.zip").write_bytes(damaged)
        for skip in ("refuse", "skip"):
            with contextlib.suppress(UserError):
                load_images(DataConfig(path=str(tmp_path / "x.zip"), on_corrupt=skip))


def raw_names(path: Path, *names: bytes) -> Path:
    """A zip whose names are these bytes, without a word on their encoding."""
    stand_ins = [f"{number:04d}".ljust(len(name), "x") for number, name in enumerate(names)]
    content = zipped(path, *stand_ins).read_bytes()
    for stand_in, name in zip(stand_ins, names, strict=True):
        content = content.replace(stand_in.encode(), name)
    path.write_bytes(content)
    return path


def test_names_in_a_zip(tmp_path, capsys):
    path = raw_names(tmp_path / "utf8.zip", "گربه/0.png".encode(), "سگ/0.png".encode())
    assert load_images(DataConfig(path=str(path))).class_names == ["سگ", "گربه"]
    assert "encoding" not in capsys.readouterr().err
    path = raw_names(tmp_path / "gbk.zip", "猫0/0.png".encode("gbk"), "狗狗1/0.png".encode("gbk"))
    assert len(load_images(DataConfig(path=str(path)))) == 2
    assert "the encoding of 2 names" in capsys.readouterr().err
    path = raw_names(tmp_path / "windows.zip", b"cat\\0.png", b".\\dog\\0.png", b"../dog/1.png", b"/dog/2.png")
    assert labels(load_images(DataConfig(path=str(path)))) == ["cat", "dog", "dog", "dog"]


def test_of_two_entries_of_one_name_the_later_counts(tmp_path, capsys):
    zipped(tmp_path / "set.zip", "cat/0.png", "dog/0.png")
    picture(tmp_path / "new.png", 9)
    with zipfile.ZipFile(tmp_path / "set.zip", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.write(tmp_path / "new.png", "cat/0.png")
    assert levels(load_images(DataConfig(path=str(tmp_path / "set.zip")))) == [9, 0]
    assert "1 older of the same name (cat/0.png)" in capsys.readouterr().err
