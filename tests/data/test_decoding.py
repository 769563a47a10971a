"""One decoder: every kind of pixel scaled honestly or refused by name, whatever the file's format or container."""

from __future__ import annotations

import numpy as np
import pytest
from made_files import DEEP, GREY, REFUSED, TRANSPARENT, chunk, png, saved, tiff
from PIL import Image, ImageCms

from triptych.data.decoding import SUFFIXES, DecodingError, Header, decode, read_header, resize, to_channels


@pytest.mark.parametrize("content", DEEP.values(), ids=DEEP)
def test_depths_are_scaled_to_8_bits(content):
    assert np.array_equal(decode(content)[..., 0], GREY)
    assert read_header(content).grey and read_header(content).size == (2, 2)


def test_twelve_bits_of_a_tiff_that_says_so():
    twelve = (GREY.astype(np.uint32) * 4095 + 127) // 255
    packed = b"".join(((int(a) << 12) + int(b)).to_bytes(3, "big") for a, b in twelve)
    content = tiff(twelve, 12).replace(twelve.astype("<u2").tobytes(), packed + b"..")
    assert np.array_equal(decode(content)[..., 0], GREY)


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_known_white_is_refused_by_name(content, reason):
    with pytest.raises(DecodingError, match=reason):
        decode(content)


def test_a_bomb_is_named(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    content = saved(Image.new("L", (5, 5)), "PNG")
    for read in (read_header, decode):
        with pytest.raises(DecodingError, match="more than 20 pixels; scale it down"):
            read(content)


@pytest.mark.parametrize("content", TRANSPARENT.values(), ids=TRANSPARENT)
def test_transparency_is_laid_on_white(content):
    pixels = decode(content)
    assert np.unique(pixels[0, 0]).tolist() == [100] and np.unique(pixels[0, 1]).tolist() == [255]


def test_half_transparent_colours_mix_with_white():
    content = saved(Image.new("RGBA", (1, 1), (0, 0, 200, 51)), "PNG")
    assert decode(content)[0, 0].tolist() == [204, 204, 244]


def test_colour_spaces():
    red = Image.new("RGB", (8, 8), (220, 20, 20))
    lab = ImageCms.profileToProfile(
        red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    for content in (
        saved(red.convert("CMYK"), "TIFF"),
        saved(red.convert("CMYK"), "JPEG", quality=100),
        saved(red.convert("P", palette=Image.Palette.ADAPTIVE), "GIF"),
        saved(lab, "TIFF"),
        saved(red, "BMP"),
        saved(red, "JPEG2000"),
        saved(red, "QOI"),
        saved(red, "WEBP", lossless=True),
        png(np.full((8, 8, 3), [220 * 257, 20 * 257, 20 * 257]), 2),
    ):
        assert np.abs(decode(content)[4, 4].astype(int) - [220, 20, 20]).max() <= 6
        assert not read_header(content).grey


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_as_the_camera_was_held(kind, orientation):
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8] = 255  # the corner that tells
    exif = Image.Exif()
    exif[274] = orientation
    content = saved(Image.fromarray(pixels), kind, exif=exif)
    upright = decode(content)
    assert upright.shape[:2] == ((24, 16) if orientation > 4 else (16, 24))
    assert read_header(content).size == (upright.shape[1], upright.shape[0])
    corners = [upright[0, 0, 0], upright[0, -1, 0], upright[-1, -1, 0], upright[-1, 0, 0]]
    assert np.argmax(corners) == {1: 0, 2: 1, 3: 2, 4: 3, 5: 0, 6: 1, 7: 2, 8: 3}[orientation]


def test_orientation_behind_the_pixels():
    """Where some programs write it; Pillow finds it only once all is decoded."""
    exif = Image.Exif()
    exif[274] = 6
    turned = png(np.zeros((2, 3)), behind=chunk(b"eXIf", exif.tobytes()[6:]))
    assert read_header(turned).size == (2, 3) and decode(turned).shape == (3, 2, 1)
    assert read_header(png(np.zeros((2, 3)), behind=chunk(b"tEXt", b"a\0b"))).size == (3, 2)


def test_channels_and_sizes():
    grey, colour = np.full((4, 6, 1), 7, np.uint8), np.full((4, 6, 3), (10, 200, 30), np.uint8)
    assert to_channels(grey, 3).shape == (4, 6, 3) and to_channels(grey, 1) is grey and to_channels(colour, 3) is colour
    assert np.array_equal(to_channels(colour, 1)[..., 0], np.asarray(Image.fromarray(colour).convert("L")))
    assert resize(grey, 2).shape == (2, 2, 1) and resize(colour, 5).shape == (5, 5, 3)
    assert read_header(saved(Image.new("I;16", (3, 2)), "PNG")) == Header(3, 2, grey=True, deep=True)


def test_documents_are_no_images():
    assert {".png", ".jpg", ".jpeg", ".avif", ".webp", ".tif", ".bmp", ".gif", ".jp2", ".pgm"} <= SUFFIXES
    assert not {".pdf", ".ps", ".eps", ".h5", ".hdf", ".mpg", ".grib", ".wmf", ".csv", ".zip", ""} & SUFFIXES
