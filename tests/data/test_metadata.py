"""Classes from a table beside the images, and its faults, named by file, column and row."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from made_folders import CONTAINERS, labels, levels, picture, writer

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.errors import UserError


@pytest.fixture(params=CONTAINERS)
def make(request, tmp_path):
    """A set of pictures in each kind of container; see :func:`made_folders.writer`."""
    return writer(request.param, tmp_path)


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
