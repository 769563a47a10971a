"""Images that cannot be decoded, or are not as they seem: named, counted, and skipped or refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import write_images

from triptych.config.base import DataConfig
from triptych.data.order import BatchOrder, make_loader
from triptych.data.sources import load_images
from triptych.errors import UserError


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
