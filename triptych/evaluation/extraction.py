"""Features of many images: batch by batch, shared by processes, kept on disk."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from triptych.data.image_set import ImageSet
from triptych.errors import UserError
from triptych.evaluation.work_sharing import join
from triptych.outputs import save_arrays


class Extractor(Protocol):
    """What :func:`extract` needs: `fingerprint` changes with the weights, `name` says which features a result is of."""

    name: str
    fingerprint: str

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]: ...


def extract(
    extractor: Extractor, images: torch.Tensor | ImageSet, batch_size: int = 250, cache: Path | None = None
) -> dict[str, torch.Tensor]:
    """What `extractor` says of all `images`, on the CPU: features, (N, D), and logits, (N, K).

    Processes of one ``accelerate launch`` must all call it: each takes a share of the images, and all get the whole.

    Args:
        extractor: :class:`Judge`, :class:`Inception`, or what behaves like them.
        images: a tensor (N, C, H, W), or a set.
        batch_size: images at once.
        cache: a folder to keep the answer in and look for it first; its name there is a hash of the pixels and the
            weights, so that other images or other weights never find it. None = keep nothing.

    Raises:
        UserError: there are no images, fewer than processes, or none the extractor takes.
    """
    processes = join()
    if len(images) < processes.count:
        raise UserError(f"There are no images, or too few: {len(images)} for {processes.count} processes.")
    path = None
    if cache is not None:
        path = Path(cache) / f"{content_key(extractor, batches(images, range(len(images)), batch_size))}.npz"
        found = read_cache(path)
        if found is not None:
            return found
    parts = processes.gather(extract_share(extractor, images, batch_size, processes.index, processes.count))
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    if path is not None and processes.is_main:
        write_cache(path, joined)
    return joined


def extract_share(
    extractor: Extractor,
    images: torch.Tensor | ImageSet,
    batch_size: int = 250,
    process_index: int = 0,
    num_processes: int = 1,
) -> dict[str, torch.Tensor]:
    """What `extractor` says of one process's share of `images`; the shares of all, laid end to end, are the whole."""
    share = range(len(images) * process_index // num_processes, len(images) * (process_index + 1) // num_processes)
    answers = [extractor(batch) for batch in batches(images, share, batch_size)]
    return {key: torch.cat([answer[key].float().cpu() for answer in answers]) for key in answers[0]}


def batches(images: torch.Tensor | ImageSet, indices: range, batch_size: int) -> Iterator[torch.Tensor]:
    """The pixels of the images at `indices`, `batch_size` at a time: (B, C, H, W) each."""
    for first in range(indices.start, indices.stop, batch_size):
        part = range(first, min(first + batch_size, indices.stop))
        is_tensor = isinstance(images, torch.Tensor)
        yield images[part.start : part.stop] if is_tensor else images.__getitems__(part)["pixels"]


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
    save_arrays(path, key=np.array(path.stem), **{key: value.numpy() for key, value in features.items()})
