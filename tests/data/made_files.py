"""Image files of every kind, made byte by byte where Pillow can't write them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

GREY = np.array([[80, 126], [43, 255]], np.uint8)  # what it must look like, whatever it is stored as


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: np.ndarray, colour_type: int = 0, before: bytes = b"", behind: bytes = b"") -> bytes:
    """A PNG of 16 bits, written by hand: Pillow writes only grey ones."""
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [chunk(b"IHDR", head), before, chunk(b"IDAT", zlib.compress(rows)), behind, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(values: np.ndarray, bits: int, photometric: int = 1) -> bytes:
    """A grey TIFF of 16-bit words, little-endian, that says how many bits count."""
    tags = {256: values.shape[1], 257: values.shape[0], 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: values.shape[0], 279: values.size * 2}
    pixels = values.astype("<u2").tobytes()
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)


def saved(image: Image.Image, kind: str, **how) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


SIXTEEN = GREY.astype(np.uint16) * 257
DEEP = {
    "png": saved(Image.fromarray(SIXTEEN), "PNG"),
    "png, by hand": png(SIXTEEN),
    "tiff": saved(Image.fromarray(SIXTEEN), "TIFF"),
    "tiff, big-endian": saved(Image.frombytes("I;16B", (2, 2), SIXTEEN.astype(">u2").tobytes()), "TIFF"),
    "tiff, 0 is white": tiff(65535 - SIXTEEN, 16, photometric=0),
    "pgm": b"P5 2 2 65535\n" + SIXTEEN.astype(">u2").tobytes(),
    "pgm up to 1020": b"P5 2 2 1020\n" + (GREY.astype(np.uint16) * 4).astype(">u2").tobytes(),
    "jpeg 2000": saved(Image.fromarray(SIXTEEN), "JPEG2000"),
    "float tiff": saved(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
    "8 bits": saved(Image.fromarray(GREY), "PNG"),
    "grey and opaque": saved(Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (2, 2), 255)]), "PNG"),
}


REFUSED = {
    "32 bits": (saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "mode I, TIFF"),
    "floats up to 255": (saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "floats from 43 to 255"),
    "not a number": (saved(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"), "floats from nan"),
    "below zero": (saved(Image.fromarray(np.full((2, 2), -0.5, np.float32)), "TIFF"), "floats from -0.5"),
    "no image": (b"hello", "no image"),
    "nothing": (b"", "no image"),
    "torn": (
        saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)), "PNG")[:900],
        "trunc",
    ),
    "a drawing": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no image"),
}


def transparent(mode: str) -> bytes:
    """One pixel that is to be seen, grey 100, and one that is hidden, dark."""
    rgba = Image.fromarray(np.array([[[100, 100, 100, 255], [10, 10, 10, 0]]], np.uint8))
    if mode == "P":
        image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
        image.putpalette([100, 100, 100, 10, 10, 10])
        return saved(image, "PNG", transparency=1)
    if mode in ("L", "RGB"):
        return saved(rgba.convert(mode), "PNG", transparency=10 if mode == "L" else (10, 10, 10))
    if mode == "RGBa":
        return saved(rgba, "TIFF", tiffinfo={338: 1})  # colours already multiplied by alpha
    return saved(rgba.convert(mode), "PNG")


TRANSPARENT = {mode: transparent(mode) for mode in ("RGBA", "LA", "P", "L", "RGB", "RGBa")}
TRANSPARENT |= {
    "16 bits": png(np.array([[100 * 257, 10 * 257]]), before=chunk(b"tRNS", struct.pack(">H", 10 * 257))),
    "16 bits of colour": png(
        np.array([[100 * 257] * 3 + [10 * 257] * 3]).reshape(1, 2, 3),
        2,
        before=chunk(b"tRNS", struct.pack(">HHH", *[10 * 257] * 3)),
    ),
    "16 bits and alpha": png(np.array([[[100 * 257] * 3 + [65535], [10 * 257] * 3 + [0]]]), 6),
    "webp": saved(Image.fromarray(np.array([[[100] * 3 + [255], [10] * 3 + [0]]], np.uint8)), "WEBP", lossless=True),
}
