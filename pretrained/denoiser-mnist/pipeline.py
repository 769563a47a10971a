"""Image restoration as a pipeline: noisy images in, clean images out, of any size.

Self-contained: this file is saved beside the weights and is what ``DiffusionPipeline.from_pretrained`` runs, here
or on the Hub.
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput, load_image


@dataclass
class DenoiserOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        images: list of PIL images, of arrays (H, W, C), or of tensors (C, H, W) in [0, 1], in the order given.
    """

    images: list


class DenoiserPipeline(DiffusionPipeline):
    """Restores images.

    Args:
        denoiser: the ``DenoisingUNet`` of ``models/gan.py``.
    """

    model_cpu_offload_seq = "denoiser"

    def __init__(self, denoiser: ModelMixin):
        super().__init__()
        self.register_modules(denoiser=denoiser)

    @torch.no_grad()
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
            images: a PIL image or a list of them, of any sizes; a tensor, (C, H, W), (B, C, H, W) or a list of (C, H,
                W), in about [0, 1] (noise may lie beyond); or the path of an image file or of a folder, whose images
                (not those of its subfolders) are taken in the order of their names.
            batch_size: tiles restored at once.
            tile: side of the squares that larger images are cut into: bounds the memory.
            overlap: pixels that neighbouring tiles share; across them one is faded into the other, without a seam.
            output_type: "pil", "np" or "pt".
            return_dict: False returns ``(images,)``.

        Raises:
            ValueError: no image, a file that cannot be read, a tensor of another shape, or tiles that don't overlap
                as they must.
        """
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type must be 'pil', 'np' or 'pt', not {output_type!r}.")
        if not 0 <= 2 * overlap <= tile or tile < 1 or batch_size < 1:
            raise ValueError(
                f"0 <= 2 * overlap <= tile and batch_size >= 1 must hold; got {overlap}, {tile}, {batch_size}."
            )
        tensors = self._as_tensors(images)
        align = self.denoiser.multiple  # tiles begin where the network's own grid does
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
        if output_type != "pt":
            done = [image.permute(1, 2, 0).numpy() for image in done]
        if output_type == "pil":
            done = [VaeImageProcessor.numpy_to_pil(image)[0] for image in done]
        self.maybe_free_model_hooks()
        return DenoiserOutput(done) if return_dict else (done,)

    def _as_tensors(self, images: object) -> list[torch.Tensor]:
        """Images as float tensors (C, H, W) around [0, 1], with the channels that the network has."""
        channels = self.denoiser.config.in_channels
        if isinstance(images, (str, Path)):
            images = read_images(Path(images))
        several = isinstance(images, Sequence) or (torch.is_tensor(images) and images.dim() == 4)
        listed = list(images) if several else [images]
        if not listed:
            raise ValueError("No image was given.")
        tensors = []
        for image in listed:
            if not torch.is_tensor(image):  # PIL
                array = VaeImageProcessor.pil_to_numpy(image.convert("L" if channels == 1 else "RGB"))
                image = VaeImageProcessor.numpy_to_pt(array)[0]
            if image.dim() != 3 or image.shape[0] != channels:
                raise ValueError(
                    f"A tensor must be ({channels}, H, W) or (B, {channels}, H, W), not {tuple(image.shape)}."
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
        folder = Path(save_directory)
        component = Path(inspect.getfile(type(self.denoiser)))
        for source, target in (
            (Path(inspect.getfile(type(self))), folder / "pipeline.py"),
            (component, folder / "denoiser" / component.name),
        ):
            if source.resolve() != target.resolve():
                shutil.copyfile(source, target)
        index_path = folder / "model_index.json"
        index = json.loads(index_path.read_text())
        index["_class_name"] = ["pipeline", type(self).__name__]
        index["denoiser"] = [component.stem, type(self.denoiser).__name__]
        index.pop("_name_or_path", None)
        index_path.write_text(json.dumps(index, indent=2) + "\n")
        if push_to_hub:
            self.push_to_hub(hub.pop("repo_id", folder.name), variant=variant, **hub)


def read_images(path: Path) -> list:
    """The image in a file, or those in a folder by name, as PIL images, upright as the camera held them."""
    known = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in known) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no image files.")
    images = []
    for file in files:
        try:
            images.append(load_image(str(file), convert_method=lambda image: image))  # channels are settled later
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{file} cannot be read as an image: {error}") from error
    return images


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
