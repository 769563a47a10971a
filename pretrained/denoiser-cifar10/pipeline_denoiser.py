"""Image restoration as a pipeline: noisy images in, clean images out, of any size.

Saved beside the weights in one file with what it imports from here (saving.py), which is what
``DiffusionPipeline.from_pretrained`` runs, here or on the Hub.
"""

from __future__ import annotations

# ---- arguments.py
import functools
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Sequence

import torch


def also_called(**names: str) -> Callable:
    """Let a call take arguments by the names they have in diffusers' own pipelines: ``alias="name"``."""

    def decorate(call: Callable) -> Callable:
        @functools.wraps(call)
        def renamed(self, *args, **kwargs):
            for alias, name in names.items():
                if alias in kwargs:
                    if name in kwargs or name in inspect.signature(call).bind_partial(self, *args).arguments:
                        raise ValueError(f"{alias} is called {name} here, and both were given. Give {name} alone.")
                    kwargs[name] = kwargs.pop(alias)
            return call(self, *args, **kwargs)

        return renamed

    return decorate


def check_output_type(output_type: str) -> None:
    """Raise a ValueError unless it is "pil", "np" or "pt"."""
    if output_type not in ("pil", "np", "pt"):
        raise ValueError(f"output_type must be 'pil', 'np' or 'pt', not {output_type!r}.")


def at_least_1(name: str, value: object) -> int:
    """`value` as an int of 1 or more; or a ValueError that names it."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}.")
    return number


def finite(name: str, value: object) -> float:
    """`value` as a finite float; or a ValueError that names it."""
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, not {value!r}.")
    return number


def ends(interval: object) -> tuple[float, float]:
    """Both ends of a guidance interval, the upper of which may be infinite; or a ValueError."""
    try:
        low, high = (math.nan if isinstance(end, str) else float(end) for end in interval)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 <= low < high:
        raise ValueError(f"guidance_interval must be (low, high) with 0 <= low < high, not {interval!r}.")
    return low, high


def check_generators(generator: object, count: int) -> torch.Generator | list[torch.Generator] | None:
    """One generator or None as it is, several as a list of `count`; or a ValueError."""
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    listed = list(generator) if isinstance(generator, Sequence) else [generator]
    if not all(isinstance(each, torch.Generator) for each in listed):
        raise ValueError(f"generator must be a torch.Generator, or a list with one per image, not {generator!r}.")
    if len(listed) != count:
        raise ValueError(f"{len(listed)} generators were given for {count} images.")
    return listed


def check_floats(name: str, images: object, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless `images` is a tensor of this shape, of finite floats."""
    check_is_float(name, images)
    if tuple(images.shape) != tuple(shape):
        raise ValueError(f"{name} must have the shape {tuple(shape)}, not {tuple(images.shape)}.")
    check_is_finite(name, images)


def check_batch(name: str, batch: object, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless `batch` is a tensor (B, *shape) of finite floats, B at least 1."""
    check_is_float(name, batch)
    if tuple(batch.shape[1:]) != tuple(shape) or not len(batch):
        raise ValueError(f"{name} must be (B, {', '.join(map(str, shape))}), not {tuple(batch.shape)}.")
    check_is_finite(name, batch)


def check_is_float(name: str, value: object) -> None:
    """Raise a ValueError unless `value` is a tensor of floats."""
    if not torch.is_tensor(value) or not value.is_floating_point():
        kind = value.dtype if torch.is_tensor(value) else type(value).__name__
        raise ValueError(
            f"{name} must be a tensor of floats, not {kind}. Of 8-bit images it is `images.float() / 255`."
        )


def check_is_finite(name: str, value: torch.Tensor) -> None:
    """Raise a ValueError if a value is NaN or infinite."""
    if not value.isfinite().all():
        raise ValueError(f"{name} hold NaN or infinite values.")


def check_noisy(images: object, sigma: float, shape: tuple[int, int, int]) -> None:
    """Raise a ValueError unless `images` are (B, *shape) in [0, 1] but for Gaussian noise of deviation `sigma`."""
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, not {sigma:g}.")
    check_floats("images", images, (len(images) if torch.is_tensor(images) else 0, *shape))
    beyond = (images - 0.5).abs().max() - 0.5 if len(images) else 0
    if beyond > 0.1 + 7 * sigma:  # Gaussian noise goes beyond that less than once in 10^11 pixels
        raise ValueError(
            f"images must lie in [0, 1] but for noise of sigma {sigma:g}; they go from {images.min():g} to "
            f"{images.max():g}. Divide 8-bit values, and their sigma, by 255; of images in [-1, 1] it is "
            f"`images / 2 + 0.5`, and half their sigma."
        )


def whole(value: object) -> int:
    """`value` as an int, -1 where it is none."""
    try:
        return operator.index(value)
    except TypeError:
        return -1


def class_ids(classes: object, names: Sequence[str]) -> list[int]:
    """Ids of classes given by name, by id, or as a list of either; None is the null class, the one after the last.

    Raises:
        ValueError: a class doesn't exist; the message lists those that do.
    """
    plain = [item.tolist() if hasattr(item, "tolist") else item for item in listed(classes)]  # torch, NumPy
    if not plain:
        raise ValueError("No class was asked for.")
    ids = []
    for item in plain:
        if item is None:
            ids.append(len(names))
        elif isinstance(item, str) and item in names:
            ids.append(names.index(item))
        elif hasattr(item, "__index__") and not isinstance(item, bool) and 0 <= operator.index(item) < len(names):
            ids.append(operator.index(item))
        else:
            known = ", ".join(f"{i} {name!r}" for i, name in enumerate(names))
            raise ValueError(f"There is no class {item!r}. The classes are: {known}.")
    return ids


def listed(values: object) -> list:
    """One value, or several of them, as a list; a text is one."""
    values = values.tolist() if hasattr(values, "tolist") else values
    return list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]


# ---- opening.py
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


# ---- saving.py
import ast
import inspect
import json
from pathlib import Path


def carried(name: str, file: str) -> tuple[str, str]:
    """Code as it is when a pipeline's module is imported: by the time it is saved, the files may be another version's.

    Args:
        name: what the module is saved as.
        file: its ``__file__``.

    Returns:
        `name`, and the text to save: the module's, after those that it imports by `from .module import ...`.
    """
    path = Path(file)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = gather(path, done=set())
    if len(parts) == 1:
        return name, path.read_text(encoding="utf-8")  # a saved one, or one that imports nothing from here
    head = f'"""{ast.get_docstring(tree, clean=False)}"""\n\nfrom __future__ import annotations\n\n'
    return name, head + "\n\n".join(f"# ---- {module}.py\n{text}" for module, text in parts)


def gather(path: Path, done: set[str]) -> list[tuple[str, str]]:
    """A module and those that it imports from its own folder, what is needed first coming first: (name, text).

    Of a text is left out what can stand once alone, at the top: docstring, `from __future__`, and imports from here.
    """
    text = path.read_text(encoding="utf-8")
    parts, lines = [], text.splitlines()
    for number, node in enumerate(ast.parse(text).body):
        relative = isinstance(node, ast.ImportFrom) and node.level == 1
        docstring = number == 0 and isinstance(node, ast.Expr)
        if relative and node.module not in done:
            done.add(node.module)
            parts += gather(path.with_name(f"{node.module}.py"), done)
        if relative or docstring or (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            lines[node.lineno - 1 : node.end_lineno] = [None] * (node.end_lineno - node.lineno + 1)
    return [*parts, (path.stem, "\n".join(line for line in lines if line is not None).strip() + "\n")]


class CarriesCode:
    """A base to name before `DiffusionPipeline`; the class keeps as `_code` what :func:`carried` gives."""

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        variant: str | None = None,
        push_to_hub: bool = False,
        **kwargs,
    ) -> None:
        """Save weights, configs and code, so that ``from_pretrained(..., trust_remote_code=True)`` works anywhere.

        Args as in [`DiffusionPipeline.save_pretrained`].
        """
        hub = {k: kwargs.pop(k) for k in ("repo_id", "commit_message", "private", "create_pr", "token") if k in kwargs}
        super().save_pretrained(save_directory, safe_serialization=safe_serialization, variant=variant, **kwargs)
        folder, kind = Path(save_directory), type(self)
        name, code = source(kind)
        (folder / "pipeline.py").write_text(alias(name, kind), encoding="utf-8")
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
        index_path = folder / "model_index.json"
        index = json.loads(index_path.read_text(encoding="utf-8"))
        index["_class_name"] = [name, kind.__name__]
        for key, component in self.components.items():
            component = type(getattr(component, "_orig_mod", component))  # what torch.compile wraps
            if isinstance(index.get(key), list) and "_code" in vars(component):
                file, text = component._code
                (folder / key / f"{file}.py").write_text(text, encoding="utf-8")
                index[key] = [file, component.__name__]
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
    """Name and text of the module that a pipeline's class is saved with; one derived from ours brings its own file."""
    return vars(kind).get("_code") or carried(Path(inspect.getfile(kind)).stem, inspect.getfile(kind))


# ---- pipeline_denoiser.py
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils import BaseOutput



@dataclass
class DenoiserOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        images: list of PIL images, of arrays (H, W, C), or of tensors (C, H, W) in [0, 1], in the order given.
    """

    images: list


class DenoiserPipeline(CarriesCode, DiffusionPipeline):
    """Restores images.

    Args:
        denoiser: the ``DenoisingUNet`` of ``models/gan.py``.
    """

    model_cpu_offload_seq = "denoiser"
    _code = carried("pipeline_denoiser", __file__)

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
        check_output_type(output_type)
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
        """What :meth:`__call__` takes, as float tensors (C, H, W) around [0, 1]."""
        return as_tensors(images, self.denoiser.config.in_channels)

    def restore(self, images: object, sigma: float | None = None, **kwargs) -> DenoiserOutput | tuple:
        """Restore images, with the signature all restoring pipelines share; the network estimates the noise itself.

        Args:
            images: as in the call.
            sigma: standard deviation of the noise, images being in [0, 1]; not needed, and not used.
            kwargs: for the call: `batch_size`, `tile`, `output_type`, ...

        Returns:
            What the call returns.
        """
        return self(images, **kwargs)


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
