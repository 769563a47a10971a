"""Restoring files by a saved denoiser."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from PIL import Image
from stand_ins import make_denoiser

from triptych.errors import UserError


def test_restoring_files(tmp_path, capsys):
    restore = importlib.import_module("restore").main
    make_denoiser().save_pretrained(tmp_path / "pipeline")
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    Image.new("RGB", (40, 23), "red").save(source / "a.jpg")
    Image.new("RGBA", (17, 17), "blue").save(source / "sub/b.png")
    (source / "broken.png").write_bytes(b"no image")
    (source / "notes.txt").write_text("left alone")
    restore(str(tmp_path / "pipeline"), source, tmp_path / "out")
    sizes = {str(p.relative_to(tmp_path / "out")): Image.open(p).size for p in (tmp_path / "out").rglob("*.png")}
    assert sizes == {"a.png": (40, 23), "sub/b.png": (17, 17)}
    said = capsys.readouterr()
    assert "2 of 3 images" in said.out and "broken.png cannot be read" in said.err
    restore(str(tmp_path / "pipeline"), source / "a.jpg", tmp_path / "one")
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "one/a.png")), np.asarray(Image.open(tmp_path / "out/a.png"))
    )
    for arguments, message in (
        ((source / "nothing", tmp_path / "x"), "does not exist"),
        ((source, tmp_path / "out"), "not empty"),
        ((tmp_path / "one/../pipeline/denoiser", tmp_path / "x"), "holds no images"),
    ):
        with pytest.raises(UserError, match=message):
            restore(str(tmp_path / "pipeline"), *arguments)
    Image.new("RGB", (8, 8)).save(source / "a.png")
    with pytest.raises(UserError, match="written twice"):
        restore(str(tmp_path / "pipeline"), source, tmp_path / "x")
