"""Images of any kind, from files or memory, as tensors.

Saved in the file of every pipeline that imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

Image.init()
# What Pillow can name but not decode, what needs another program, and what holds measurements of no fixed white.
NO_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MCIDAS", "MPEG", "SPIDER", "WMF"}
FORMATS = tuple(name for name in Image.ID if name not in NO_PICTURES)
SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
GREY = ("1", "L", "LA", "La", "F")  # and all that begin with I
SIXTEEN_BITS = ("JPEG2000", "PNG", "PPM", "TIFF", None)  # None: made in memory
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # TIFF tags
LARGEST = 16.0  # no noise reaches further beyond [0, 1]; 8-bit values do


def as_tensors(images: object, channels: int) -> list[torch.Tensor]:
    """Images as float tensors (C, H, W) around [0, 1], with `channels` of them, 1 or 3: the network's."""
    if isinstance(images, (str, Path)):
        images = files(Path(images))
    several = isinstance(images, Sequence) or (torch.is_tensor(images) and images.dim() == 4)
    listed = list(images) if several else [images]
    if not listed:
        raise ValueError("No image was given.")
    tensors = []
    for image in listed:
        if isinstance(image, (str, Path)):
            image = open_image(Path(image))
        elif isinstance(image, Image.Image):
            image = as_displayed(image)
        elif not torch.is_tensor(image):
            raise ValueError(
                f"An image must be a PIL image, a tensor or a path, not {type(image).__name__}. An array (H, W, C) "
                f"of 8 bits is PIL.Image.fromarray(array)."
            )
        if isinstance(image, Image.Image):
            pixels = np.array(image.convert("L" if channels == 1 else "RGB"), ndmin=3)
            pixels = pixels.transpose(1, 2, 0) if channels == 1 else pixels  # (H, W, C)
            image = torch.from_numpy(pixels).permute(2, 0, 1) / 255
        elif not image.is_floating_point():
            raise ValueError(f"A tensor must hold floats in about [0, 1], not {image.dtype}: `images.float() / 255`.")
        if image.dim() != 3 or image.shape[0] != channels or not image.numel():
            raise ValueError(f"A tensor must be ({channels}, H, W) or (B, {channels}, H, W), not {tuple(image.shape)}.")
        if not image.abs().max() <= LARGEST:  # negated, so that NaN is refused too
            raise ValueError(
                f"A tensor must hold floats in about [0, 1] (noise may lie beyond), none of them NaN; its largest "
                f"is {image.abs().max():g}. Divide 8-bit values by 255."
            )
        tensors.append(image.float().cpu())
    return tensors


def to_pil(image: np.ndarray) -> Image.Image:
    """An array (H, W, 1 or 3) in [0, 1] as a PIL image, grey or RGB."""
    pixels = (image * 255).round().astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def files(path: Path) -> list[Path]:
    """A file, or the images of a folder by name; a ValueError where it holds none."""
    found = [path]
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not found:
        raise ValueError(f"{path} holds no image files.")
    return found


def open_image(path: Path) -> Image.Image:
    """An image file, upright, as "L" or "RGB"; see :func:`as_displayed`."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return as_displayed(image)
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes their parsing raise
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def as_displayed(image: Image.Image) -> Image.Image:
    """An image as a viewer shows it: upright (EXIF), on white where it is transparent, 8 bits, "L" or "RGB".

    16 bits are scaled by 65535, or by what a TIFF says its samples have; floats within [0, 1] by 1.

    Raises:
        ValueError: it holds integers or floats of no known range.
    """
    kind, tags = image.format, getattr(image, "tag_v2", {})
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return scaled(image, kind, tags)
    grey = image.mode in GREY
    if image.has_transparency_data:  # a bare convert() would uncover hidden colours
        if image.mode == "La":
            image = image.convert("LA")
        key = image.info.get("transparency")
        if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
            image.info["transparency"] = tuple(value >> 8 for value in key)  # of 16 bits, which Pillow cut to 8
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if grey else "RGB")


def scaled(image: Image.Image, kind: str | None, tags: object) -> Image.Image:
    """An image of more than 8 bits, or of floats, as "L"; `kind` is its file's format, `tags` those of a TIFF."""
    values = np.asarray(image)
    if image.mode == "F":
        white = 1
        if not (values.min() >= 0 and values.max() <= 1):  # negated, so that NaN is refused too
            raise ValueError(
                f"it holds floats from {values.min():g} to {values.max():g} (mode F), whose white is unknown. Save it "
                f"with values in [0, 1], or in 8 or 16 bits."
            )
    elif (image.mode.startswith("I;16") and kind in SIXTEEN_BITS) or (image.mode == "I" and kind in ("PNG", "PPM")):
        white = 2 ** (tags.get(BITS_PER_SAMPLE, (16,))[0] if kind == "TIFF" else 16) - 1
    else:
        raise ValueError(
            f"it holds integers of more than 8 bits (mode {image.mode}, {kind}) whose white is unknown. Save it in 8 "
            f"bits, or as 16 bits without a sign."
        )
    pixels = (values * (255 / white)).round().clip(0, 255).astype(np.uint8)
    if kind == "TIFF" and tags.get(PHOTOMETRIC) == 0:
        pixels = 255 - pixels  # 0 is white; with more than 8 bits Pillow leaves it so
    if "transparency" in image.info:
        pixels[values == image.info["transparency"]] = 255
    return Image.fromarray(pixels)
