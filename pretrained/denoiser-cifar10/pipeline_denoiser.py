"""Image restoration as a pipeline: noisy images in, clean images out, of any size.

Self-contained: this file is saved beside the weights and is what ``DiffusionPipeline.from_pretrained`` runs, here
or on the Hub.
"""

from __future__ import annotations

import functools
import inspect
import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils import BaseOutput
from PIL import Image, ImageOps


@dataclass
class DenoiserOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        images: list of PIL images, of arrays (H, W, C), or of tensors (C, H, W) in [0, 1], in the order given.
    """

    images: list


def also_called(**names: str) -> Callable:
    """Let a call take arguments by the names they have in diffusers' own pipelines: ``theirs="ours"``."""

    def decorate(call: Callable) -> Callable:
        @functools.wraps(call)
        def renamed(self, *args, **kwargs):
            for theirs, ours in names.items():
                if theirs in kwargs:
                    if ours in kwargs or ours in inspect.signature(call).bind_partial(self, *args).arguments:
                        raise ValueError(f"{theirs} is called {ours} here, and both were given. Give {ours} alone.")
                    kwargs[ours] = kwargs.pop(theirs)
            return call(self, *args, **kwargs)

        return renamed

    return decorate


class DenoiserPipeline(DiffusionPipeline):
    """Restores images.

    Args:
        denoiser: the ``DenoisingUNet`` of ``models/gan.py``.
    """

    model_cpu_offload_seq = "denoiser"
    # Kept from the moment of import: by the time a pipeline is saved, the module's file may be another's.
    _code = ("pipeline_denoiser", Path(__file__).read_text(encoding="utf-8"))

    largest = 16.0  # no noise reaches further beyond [0, 1]; 8-bit values do

    def __init__(self, denoiser: ModelMixin):
        super().__init__()
        self.register_modules(denoiser=denoiser)

    @torch.no_grad()
    @also_called(image="images")
    def __call__(
        self,
        images: object,
        batch_size: int = 64,
        tile: int = 256,
        overlap: int = 32,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> DenoiserOutput | tuple:
        """Restore images.

        Args:
            images: a PIL image or a list of them, of any sizes; a tensor of floats, (C, H, W), (B, C, H, W) or a list
                of (C, H, W), in about [0, 1] (noise may lie beyond); the path of an image file, or a list of such; or
                the path of a folder, whose images (not those of its subfolders) are taken in the order of their names.
                Images are taken as they are seen: upright, on white where they are transparent, and 16 bits, or floats
                in [0, 1], brought to 8 bits.
            batch_size: tiles restored at once.
            tile: side of the squares that larger images are cut into: bounds the memory.
            overlap: pixels that neighbouring tiles share; across them one is faded into the other, without a seam.
            output_type: "pil", "np" or "pt".
            return_dict: False returns ``(images,)``.

        Raises:
            ValueError: no image; a file that cannot be read, or holds values of no known white; a tensor of another
                shape or type, or out of range; or tiles that don't overlap as they must.
        """
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type must be 'pil', 'np' or 'pt', not {output_type!r}.")
        given = f"overlap {overlap!r}, tile {tile!r}, batch_size {batch_size!r}"
        tile, overlap, batch_size = (whole(value) for value in (tile, overlap, batch_size))
        if not 0 <= 2 * overlap <= tile or tile < 1 or batch_size < 1:
            raise ValueError(
                f"0 <= 2 * overlap <= tile and batch_size >= 1 must hold, all of them whole numbers; got {given}."
            )
        tensors = self._as_tensors(images)
        align = self.denoiser.multiple  # tiles begin where the network's own grid does
        if tile < overlap + align and any(max(image.shape[1:]) > tile for image in tensors):
            raise ValueError(
                f"tile must be at least overlap + {align} = {overlap + align} for this network, whose grid its tiles "
                f"begin on; not {tile}."
            )
        pieces = []  # (image, top, left, height, width) of every tile
        for number, image in enumerate(tensors):
            height, width = image.shape[1:]
            pieces += [
                (number, top, left, min(tile, height - top), min(tile, width - left))
                for top in starts(height, tile, overlap, align)
                for left in starts(width, tile, overlap, align)
            ]
        pieces.sort(key=lambda piece: piece[3:])  # what is stacked has one size
        done: list = [None] * len(tensors)
        sums: dict[int, torch.Tensor] = {}  # of the images in more than one tile: the tiles' weighted sum, and the
        weights: dict[int, torch.Tensor] = {}  # sum of their weights
        first = 0
        while first < len(pieces):
            size = pieces[first][3:]
            batch = [piece for piece in pieces[first : first + batch_size] if piece[3:] == size]
            first += len(batch)
            stacked = torch.stack([tensors[n][:, y : y + h, x : x + w] for n, y, x, h, w in batch]) * 2 - 1
            restored = self.denoiser(stacked.to(self._execution_device, self.denoiser.dtype)).float().cpu() / 2 + 0.5
            for (n, y, x, h, w), part in zip(batch, restored, strict=True):
                height, width = tensors[n].shape[1:]
                if (h, w) == (height, width):
                    done[n] = part.clamp(0, 1)
                    continue
                if n not in sums:
                    sums[n], weights[n] = torch.zeros_like(tensors[n]), torch.zeros_like(tensors[n][:1])
                weight = fade(y, h, height, overlap)[:, None] * fade(x, w, width, overlap)
                sums[n][:, y : y + h, x : x + w] += part * weight
                weights[n][:, y : y + h, x : x + w] += weight
        for n, total in sums.items():
            done[n] = (total / weights[n]).clamp(0, 1)
        if not all(image.isfinite().all() for image in done):
            raise ValueError(
                "The network gave NaN or infinite values. Its weights may be torn, or need float32: `pipeline.to("
                "torch.float32)`."
            )
        if output_type != "pt":
            done = [image.permute(1, 2, 0).numpy() for image in done]
        if output_type == "pil":
            done = [to_pil(image) for image in done]
        self.maybe_free_model_hooks()
        return DenoiserOutput(done) if return_dict else (done,)

    def _as_tensors(self, images: object) -> list[torch.Tensor]:
        """Images as float tensors (C, H, W) around [0, 1], with the channels that the network has."""
        channels = self.denoiser.config.in_channels
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
                image = as_seen(image)
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
                raise ValueError(
                    f"A tensor must hold floats in about [0, 1], not {image.dtype}: `images.float() / 255`."
                )
            if image.dim() != 3 or image.shape[0] != channels or not image.numel():
                raise ValueError(
                    f"A tensor must be ({channels}, H, W) or (B, {channels}, H, W), not {tuple(image.shape)}."
                )
            if not image.abs().max() <= self.largest:  # so written that NaN is refused too
                raise ValueError(
                    f"A tensor must hold floats in about [0, 1] (noise may lie beyond), none of them NaN; its largest "
                    f"is {image.abs().max():g}. Divide 8-bit values by 255."
                )
            tensors.append(image.float().cpu())
        return tensors

    # ---- saving: a custom pipeline carries its code, and so do its custom components ----------------------

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        variant: str | None = None,
        push_to_hub: bool = False,
        **kwargs,
    ) -> None:
        """Save weights, configs and code, so that ``from_pretrained(..., trust_remote_code=True)`` works anywhere.

        Args as in [`DiffusionPipeline.save_pretrained`]; plain diffusers writes no code for a custom pipeline, and
        the folder would not load.
        """
        hub = {k: kwargs.pop(k) for k in ("repo_id", "commit_message", "private", "create_pr", "token") if k in kwargs}
        super().save_pretrained(save_directory, safe_serialization=safe_serialization, variant=variant, **kwargs)
        folder, kind = Path(save_directory), type(self)
        component = type(getattr(self.denoiser, "_orig_mod", self.denoiser))  # what torch.compile wraps
        (name, code), (component_name, component_code) = source(kind), source(component)
        (folder / "pipeline.py").write_text(alias(name, kind), encoding="utf-8")
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
        (folder / "denoiser" / f"{component_name}.py").write_text(component_code, encoding="utf-8")
        index_path = folder / "model_index.json"
        index = json.loads(index_path.read_text(encoding="utf-8"))
        index["_class_name"] = [name, kind.__name__]
        index["denoiser"] = [component_name, component.__name__]
        index.pop("_name_or_path", None)
        index_path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        if push_to_hub:
            self.push_to_hub(hub.pop("repo_id", folder.name), variant=variant, **hub)


def alias(name: str, kind: type) -> str:
    """Text of the `pipeline.py` that diffusers' `custom_pipeline=folder` looks for.

    Diffusers runs those of all folders in one module and wants one pipeline there, so what another left is dropped.
    """
    return (
        "for key in [key for key, value in globals().items() if isinstance(value, type)]:\n"
        "    del globals()[key]\n"
        f"from .{name} import {kind.__name__}  # noqa: E402, F401\n"
    )


def source(kind: type) -> tuple[str, str]:
    """Name and text of the module that a class is saved with: as it was when imported, where the class kept it."""
    if "_code" in vars(kind):
        return kind._code
    path = Path(inspect.getfile(kind))
    return path.stem, path.read_text(encoding="utf-8")


def whole(value: object) -> int:
    """`value` as an int, -1 where it is none."""
    try:
        return operator.index(value)
    except TypeError:
        return -1


def to_pil(image: np.ndarray) -> Image.Image:
    """An array (H, W, 1 or 3) in [0, 1] as a PIL image, grey or RGB."""
    pixels = (image * 255).round().astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


# ---- opening images ------------------------------------------------------------------------------------------

Image.init()
# What Pillow can name but not decode, what needs another program, and what holds measurements of no fixed white.
NO_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MCIDAS", "MPEG", "SPIDER", "WMF"}
FORMATS = tuple(name for name in Image.ID if name not in NO_PICTURES)
SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
GREY = ("1", "L", "LA", "La", "F")  # and all that begin with I
SIXTEEN_BITS = ("JPEG2000", "PNG", "PPM", "TIFF", None)  # None: made in memory
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # TIFF tags


def files(path: Path) -> list[Path]:
    """A file, or the images of a folder by name; a ValueError where it holds none."""
    found = [path]
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not found:
        raise ValueError(f"{path} holds no image files.")
    return found


def open_image(path: Path) -> Image.Image:
    """An image file, upright, as "L" or "RGB"; see :func:`as_seen`."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return as_seen(image)
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes their parsing raise
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def as_seen(image: Image.Image) -> Image.Image:
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
        if not (values.min() >= 0 and values.max() <= 1):  # so written that NaN is refused too
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


# ---- tiles -----------------------------------------------------------------------------------------------------


def starts(length: int, tile: int, overlap: int, align: int = 1) -> list[int]:
    """Where tiles begin along a side: at multiples of `align`, neighbours sharing at least `overlap` pixels."""
    step = max(align, (tile - overlap) // align * align)
    count = -(-max(0, length - tile) // step) + 1
    return [step * k for k in range(count)]


def fade(start: int, size: int, length: int, overlap: int) -> torch.Tensor:
    """Weight of a tile along a side, (size,): it rises and falls over the overlap, but not at the image's own edge.

    Nothing counts in the outer quarter, where the network sees the tile's edge; over the middle half one tile is faded
    into the next. Where a quarter is more than the network sees, tiles give exactly what the whole image would.
    """
    ramp = (((torch.arange(overlap) + 0.5) / max(1, overlap) - 0.25) * 2).clamp(0, 1)[:size]
    weight = torch.ones(size)
    if start > 0:
        weight[: len(ramp)] *= ramp
    if start + size < length:
        weight[size - len(ramp) :] *= ramp.flip(0)
    return weight
