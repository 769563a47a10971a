"""The one way an image file is opened: which formats, and how each kind of pixel becomes 8 bits.

Folders, zips, tables and ``scripts/restore.py`` all read through :func:`decode`, so a picture looks the same wherever
it comes from. Nothing is guessed: where a file doesn't say what its white is, it is refused.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

Image.preinit()  # the common formats first
Image.init()
# What Pillow can name but not decode, what needs another program, and what holds measurements of no fixed white.
_NO_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MCIDAS", "MPEG", "SPIDER", "WMF"}
FORMATS = tuple(name for name in Image.ID if name not in _NO_PICTURES)
SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
_GREY = ("1", "L", "LA", "La", "F")  # and all that begin with I
_SIXTEEN_BITS = ("JPEG2000", "PNG", "PPM", "TIFF", None)  # None: made in memory
_TURNED = (5, 6, 7, 8)  # the orientations of EXIF that swap width and height
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags


class DecodingError(ValueError):
    """A file that is no image, is damaged, or whose pixels have no fixed white. Its text is the reason."""


@dataclass(frozen=True)
class Header:
    """What is known of an image before its pixels are read.

    Attributes:
        width, height: in pixels, upright.
        grey: whether it has no colours.
        deep: whether it has integers of more than 8 bits.
    """

    width: int
    height: int
    grey: bool
    deep: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height


def read_header(source: bytes | str | Path) -> Header:
    """Size and kind of an image, from the first bytes of a file (or of its content).

    Raises:
        DecodingError: it is no image, or larger than Pillow reads.
    """
    try:
        with _open(source) as image:
            width, height = image.size
            # Pillow itself turns a TIFF, and says its upright size from the start.
            if width != height and image.format != "TIFF" and _orientation(image) in _TURNED:
                width, height = height, width
            deep = image.mode.startswith("I")
            return Header(width, height, image.mode in _GREY or deep, deep)
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes their parsing raise
        raise DecodingError(_reason(error)) from error


def decode(source: bytes | str | Path) -> np.ndarray:
    """An image, from a file or its content, as uint8 (H, W, 1) if it is grey and (H, W, 3) if it is not.

    It stands as the camera was held (EXIF), transparency is laid on white, and of several frames or pages it is the
    first. 16 bits are scaled by 65535, or by what a TIFF says its samples have; floats within [0, 1] by 1.

    Raises:
        DecodingError: it is no image, is damaged, or holds integers or floats of no known range.
    """
    try:
        with _open(source) as image:
            kind, tags = image.format, getattr(image, "tag_v2", {})
            turned = ImageOps.exif_transpose(image)
            if turned.mode.startswith("I") or turned.mode == "F":
                pixels = _scaled(turned, kind, tags)
            else:
                pixels = _eight_bits(turned)
    except Exception as error:  # as in read_header
        raise DecodingError(_reason(error)) from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


def to_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """uint8 (H, W, 1 or 3) as (H, W, channels): grey repeated, or colour weighted as the eye does (ITU-R 601)."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def as_picture(pixels: np.ndarray) -> Image.Image:
    """uint8 (H, W, 1 or 3) for Pillow, grey or RGB."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def resize(pixels: np.ndarray, side: int) -> np.ndarray:
    """uint8 (H, W, C), centre-cropped to a square and scaled to (side, side, C)."""
    if pixels.shape[:2] == (side, side):
        return pixels
    scaled = np.asarray(ImageOps.fit(as_picture(pixels), (side, side), Image.Resampling.LANCZOS))
    return scaled[..., None] if scaled.ndim == 2 else scaled


def _open(source: bytes | str | Path) -> Image.Image:
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is no image, or of a format that is not read"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; scale it down"
    return " ".join(str(error).split()) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8, without decoding the pixels."""
    # Pillow would decode the whole PNG to see whether something is said behind the pixels; it seldom is.
    if image.format == "PNG" and "exif" not in image.info and not _says_more(image.fp):
        return 1
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _says_more(file: Any) -> bool:
    """Whether a PNG has a chunk of EXIF or of text, which may hold XMP. The file's position is kept."""
    position = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                return True
            file.seek(length + 4, os.SEEK_CUR)
        return False
    finally:
        file.seek(position)


def _eight_bits(image: Image.Image) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3) of an image of 8 bits or fewer."""
    grey = image.mode in _GREY
    if image.has_transparency_data:
        # Laid on white, as a viewer shows it; a bare convert() would uncover hidden colours.
        if image.mode == "La":
            image = image.convert("LA")
        key = image.info.get("transparency")
        if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
            image.info["transparency"] = tuple(value >> 8 for value in key)  # of 16 bits, which Pillow cut to 8
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "L" if grey else "RGB"
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _scaled(image: Image.Image, kind: str | None, tags: Any) -> np.ndarray:
    """uint8 (H, W) of an image with integers of more than 8 bits, or floats."""
    values = np.asarray(image)
    if image.mode == "F":
        white = 1
        if not (values.min() >= 0 and values.max() <= 1):  # negated, so that NaN is refused too
            raise DecodingError(
                f"it holds floats from {values.min():g} to {values.max():g}, whose white is unknown; save it with "
                f"values in [0, 1], or in 8 or 16 bits"
            )
    elif (image.mode.startswith("I;16") and kind in _SIXTEEN_BITS) or (image.mode == "I" and kind in ("PNG", "PPM")):
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0] if kind == "TIFF" else 16
        white = 2**bits - 1
    else:
        raise DecodingError(
            f"it holds integers of more than 8 bits (mode {image.mode}, {kind}) whose white is unknown; save it in 8 "
            f"bits, or as 16 bits without a sign"
        )
    pixels = (values * (255 / white)).round().clip(0, 255).astype(np.uint8)
    if kind == "TIFF" and tags.get(_PHOTOMETRIC) == 0:
        pixels = 255 - pixels  # 0 is white; with more than 8 bits Pillow leaves it so
    if "transparency" in image.info:
        pixels[values == image.info["transparency"]] = 255
    return pixels
