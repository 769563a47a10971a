"""Features of many images: batch by batch, shared by processes, kept on disk."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from triptych.data.image_set import ImageSet
from triptych.errors import UserError


class Extractor(Protocol):
    """What :func:`extract` needs: `fingerprint` changes with the weights, `name` says which features a result is of."""

    name: str
    fingerprint: str

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]: ...


def extract(
    extractor: Extractor,
    images: torch.Tensor | ImageSet,
    batch_size: int = 250,
    cache: Path | None = None,
    process_index: int = 0,
    num_processes: int = 1,
) -> dict[str, torch.Tensor]:
    """What `extractor` says of all `images`, on the CPU: features, (N, D), and logits, (N, K).

    Several processes take a run of the images each; their answers laid end to end are the whole, which
    ``accelerate.utils.gather_object([extract(...)])`` brings together.

    Args:
        extractor: :class:`Judge`, :class:`Inception`, or what behaves like them.
        images: a tensor (N, C, H, W), or a set.
        batch_size: images at once.
        cache: a folder to keep the answer in and look for it first; its name there is a hash of the pixels and the
            weights, so that other images or other weights never find it. None = keep nothing.
        process_index, num_processes: which share of the images.

    Raises:
        UserError: there are no images, or none the extractor takes.
    """
    share = range(len(images) * process_index // num_processes, len(images) * (process_index + 1) // num_processes)
    if not share:
        raise UserError(f"There are no images to look at: {len(images)} for {num_processes} processes.")

    def batches() -> Iterator[torch.Tensor]:
        for first in range(share.start, share.stop, batch_size):
            some = range(first, min(first + batch_size, share.stop))
            yield images[some.start : some.stop] if isinstance(images, torch.Tensor) else _pixels(images, some)

    path = None
    if cache is not None:
        path = Path(cache) / f"{content_key(extractor, batches())}.npz"
        found = read_cache(path)
        if found is not None:
            return found
    answers = [{key: value.float().cpu() for key, value in extractor(batch).items()} for batch in batches()]
    joined = {key: torch.cat([answer[key] for answer in answers]) for key in answers[0]}
    if path is not None:
        write_cache(path, joined)
    return joined


def _pixels(images: ImageSet, indices: range) -> torch.Tensor:
    return images.__getitems__(indices)["pixels"]


def content_key(extractor: Extractor, batches: Iterable[torch.Tensor]) -> str:
    """A hash of the extractor's weights and of every pixel, the same however the images are cut into batches."""
    digest = hashlib.sha256(extractor.fingerprint.encode())
    shape = None
    for batch in batches:
        if shape is None:
            shape = f"{batch.dtype} {tuple(batch.shape[1:])}"
            digest.update(shape.encode())
        digest.update(batch.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def read_cache(path: Path) -> dict[str, torch.Tensor] | None:
    """The features saved at `path`; None if there are none, or, with a warning, none that can be trusted."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:  # a zip, which checks a sum of every array it reads
            arrays = {key: file[key] for key in file.files}
        if str(arrays.pop("key")) == path.stem:
            return {key: torch.from_numpy(array) for key, array in arrays.items()}
        problem = "it was made from other images or weights"
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        problem = f"it cannot be read ({error})"
    print(f"warning: {path} is made anew: {problem}", file=sys.stderr)
    return None


def write_cache(path: Path, features: dict[str, torch.Tensor]) -> None:
    """Save `features` with the key they belong to, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".partial{os.getpid()}.npz")
    np.savez(partial, key=np.array(path.stem), **{key: value.numpy() for key, value in features.items()})
    partial.replace(path)
