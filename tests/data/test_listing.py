"""Folders and zips: which images belong to which split and class, and what is passed over; the same in both."""

from __future__ import annotations

import os
import unicodedata
import zipfile
from pathlib import Path

import pytest
from made_folders import CONTAINERS, labels, levels, picture, writer

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.errors import UserError


@pytest.fixture(params=CONTAINERS)
def make(request, tmp_path):
    """A set of pictures in each kind of container; see :func:`made_folders.writer`."""
    return writer(request.param, tmp_path)


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
