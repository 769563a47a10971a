"""Zips: names, damage, entries that cannot be read."""

from __future__ import annotations

import contextlib
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from made_folders import labels, levels, picture

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.errors import UserError

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
