"""What a network sees in images: features for the distances of ``metrics/``, of our own judge or of Inception.

Images are uint8 or float in [0, 1], (B, C, H, W). An extractor is called with a batch and answers with ``features``,
(B, D), and ``logits``, (B, K); any callable with a ``name`` and a ``fingerprint`` can take its place.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from transformers import AutoImageProcessor, AutoModelForImageClassification, BaseImageProcessor, PreTrainedModel

from triptych.config import UserError
from triptych.data import ImageSet


class Extractor(Protocol):
    """What :func:`extract` needs: `fingerprint` changes with the weights, `name` says which features a result is of."""

    name: str
    fingerprint: str

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]: ...


class Judge:
    """A ``transformers`` image classifier as an extractor: pooled features before its head, and logits.

    Args:
        model, processor: the classifier, which is used where it is and in evaluation mode, and its image processor.
        name: what results made with it are called after.

    Attributes:
        class_names: by class id.
    """

    def __init__(self, model: PreTrainedModel, processor: BaseImageProcessor, name: str):
        self.model, self.processor, self.name = model.eval(), processor, name
        self.class_names = [model.config.id2label[i] for i in sorted(model.config.id2label)]
        self.fingerprint = fingerprint(model, type(model).__name__ + processor.to_json_string())

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, feature_maps: bool = False) -> dict[str, Any]:
        """(B, C, H, W) -> features, (B, D), logits, (B, K), and if asked what :meth:`feature_maps` gives."""
        seen: list[torch.Tensor] = []
        hook = self.model.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1)))
        try:
            answer = self.model(self.prepare(images), output_hidden_states=feature_maps)
        finally:
            hook.remove()
        found = {"features": seen[0], "logits": answer.logits}
        return found | {"feature_maps": list(answer.hidden_states)} if feature_maps else found

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, C, H, W) -> the maps after the stem and after each stage, list of (B, C', H', W')."""
        return list(self.model(self.prepare(images), output_hidden_states=True).hidden_states)

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Resized and normalised by the classifier's own image processor; grey images become three equal channels."""
        check_images(images)
        channels = self.model.config.num_channels
        if images.shape[1] == 1:
            images = images.expand(-1, channels, -1, -1)
        if images.shape[1] != channels:
            raise UserError(f"{self.name}: the classifier sees {channels} channels, the images have {images.shape[1]}.")
        how = {"do_rescale": not images.is_floating_point(), "input_data_format": "channels_first"}
        pixels = self.processor(list(images.to(self.model.device)), **how, return_tensors="pt")["pixel_values"]
        return pixels.to(self.model.dtype)


def load_judge(folder: str | Path, device: torch.device | str = "cpu") -> Judge:
    """The classifier that ``scripts/train_classifier.py`` saved, or any of that library, also by Hub id.

    Its name is "features of" the folder, or of the run the folder lies in.

    Raises:
        UserError: there is no image classifier there.
    """
    path = Path(folder)
    inside = path / "classifier"
    if path.exists() and not (path / "config.json").exists():
        hint = f" Did you mean {inside}?" if (inside / "config.json").exists() else ""
        raise UserError(f"{folder} holds no image classifier (no config.json).{hint}")
    try:
        # in single precision, also where it was saved in half: a CPU has no fast half-precision convolutions
        model = AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).to(device)
        processor = AutoImageProcessor.from_pretrained(folder)
    except Exception as error:  # a missing file, a torn one, a Hub out of reach: each has its own
        raise UserError(
            f"{folder} could not be loaded as a transformers image classifier: {' '.join(str(error).split())[:300]} "
            f"Give the folder that scripts/train_classifier.py saved (runs/<name>/classifier)."
        ) from error
    return Judge(
        model, processor, f"features of {path.resolve().parent.name if path.name == 'classifier' else path.name}"
    )


def load_critic(name: str) -> Judge | Inception:
    """What looks at images: "inception", or else the folder or Hub id of a classifier (:func:`load_judge`)."""
    return Inception() if name == "inception" else load_judge(name)


class Inception:
    """torch-fidelity's Inception with the weights of 2015: only its features give what is called FID, KID, IS.

    Args:
        weights: torch-fidelity's weights file; downloaded from its releases if not given.
        device: where it computes; images are moved there.

    Raises:
        UserError: the weights are not there and can't be had.
    """

    name = "inception-v3-compat"  # torch-fidelity's own name for it; the metrics know it

    def __init__(self, weights: str | Path | None = None, device: torch.device | str = "cpu"):
        wanted = ["2048", "logits_unbiased"]
        path = None if weights is None else str(weights)
        try:
            network = FeatureExtractorInceptionV3(self.name, wanted, feature_extractor_weights_path=path, verbose=False)
        except Exception as error:  # whatever a network, a torn file or a pickle does
            where = f"read from {weights}" if weights else "downloaded"
            raise UserError(
                f"Inception's weights could not be {where} ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}). Without them there is no FID; use a classifier's features "
                f"(triptych.features.load_judge), whose Frechet distance is called by that name, or give the file "
                f"weights-inception-2015-12-05-6726825d.pth of torch-fidelity's releases."
            ) from error
        self.network = network.to(device)
        self.device = torch.device(device)
        self.fingerprint = fingerprint(network, self.name)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, C, H, W) -> features, (B, 2048), and logits without their bias, (B, 1008)."""
        check_images(images)
        if images.is_floating_point():  # the network was published for 8 bits
            images = (images * 255).round().to(torch.uint8)
        features, logits = self.network(images.expand(-1, 3, -1, -1).to(self.device))
        return {"features": features, "logits": logits}


def check_images(images: torch.Tensor) -> None:
    """Raise :class:`UserError` unless `images` are uint8 or float in [0, 1], (B, C, H, W), of 1 or 3 channels."""
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise UserError(f"Images must be (B, C, H, W) of 1 or 3 channels, not {tuple(images.shape)}.")
    if images.is_floating_point():
        if not (images.min() >= 0 and images.max() <= 1):
            raise UserError(
                f"Images of floats must lie in [0, 1], not [{images.min():.3g}, {images.max():.3g}]; x / 2 + 0.5 takes "
                f"them there from [-1, 1]."
            )
    elif images.dtype != torch.uint8:
        raise UserError(f"Images must be uint8, or floats in [0, 1], not {images.dtype}.")


def fingerprint(model: torch.nn.Module, more: str = "") -> str:
    """A hash of all weights and buffers of `model`, and of `more`."""
    digest = hashlib.sha256(more.encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


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
