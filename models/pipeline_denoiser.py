"""Image restoration as a pipeline: noisy images in, clean images out, of any size.

Saved beside the weights in one file with what it imports from here (saving.py), which is what
``DiffusionPipeline.from_pretrained`` runs, here or on the Hub.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils import BaseOutput

from .arguments import also_called, check_output_type, whole
from .opening import as_tensors, to_pil
from .saving import CarriesCode, carried


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
