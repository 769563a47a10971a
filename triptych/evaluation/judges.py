"""What a network sees in images: features for the distances of ``metrics/``, of our own judge or of Inception.

Images are uint8 or float in [0, 1], (B, C, H, W). An extractor is called with a batch and answers with ``features``,
(B, D), and ``logits``, (B, K); any callable with a ``name`` and a ``fingerprint`` can take its place.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BaseImageProcessor,
    PreTrainedModel,
    ViTImageProcessor,
)

from triptych.devices import find_device
from triptych.errors import UserError
from triptych.paths import project_path
from triptych.pipelines.store import classes_of

RESAMPLING = {2: InterpolationMode.BILINEAR, 3: InterpolationMode.BICUBIC}  # by Pillow's numbers, which processors keep


class Judge:
    """A ``transformers`` image classifier as an extractor: pooled features before its head, and logits.

    Args:
        model, processor: the classifier, which is used on the device it is on and in evaluation mode, and its image
            processor.
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
        """(B, C, H, W) -> features, (B, D), and logits, (B, K), on the CPU.

        Where `feature_maps` is true, what :meth:`feature_maps` gives is among them.
        """
        features: list[torch.Tensor] = []
        hook = self.model.classifier.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].flatten(1)))
        try:
            answer = self.model(self.prepare(images), output_hidden_states=feature_maps)
        finally:
            hook.remove()
        found = {"features": features[0].cpu(), "logits": answer.logits.cpu()}
        return found | {"feature_maps": list(answer.hidden_states)} if feature_maps else found

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, C, H, W) -> the maps after the stem and after each stage, (B, C', H', W'), on the model's device."""
        return list(self.model(self.prepare(images), output_hidden_states=True).hidden_states)

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Resized and normalised by the classifier's own image processor; grey images become three equal channels."""
        check_images(images)
        channels = self.model.config.num_channels
        if images.shape[1] == 1:
            images = images.expand(-1, channels, -1, -1)
        if images.shape[1] != channels:
            raise UserError(f"{self.name}: the classifier sees {channels} channels, the images have {images.shape[1]}.")
        images = images.to(self.model.device)
        if type(self.processor) is ViTImageProcessor and self.processor.resample in RESAMPLING:
            pixels = resize_and_normalize(images, self.processor)
        else:
            settings = {"do_rescale": not images.is_floating_point(), "input_data_format": "channels_first"}
            pixels = self.processor(list(images), **settings, return_tensors="pt")["pixel_values"]
        return pixels.to(self.model.dtype)


def resize_and_normalize(images: torch.Tensor, processor: ViTImageProcessor) -> torch.Tensor:
    """What `processor` makes of a batch, (B, C, H, W), at once; by itself it goes image by image, thrice as slowly.

    That kind of processor does no more than the three steps here, and is what scripts/train_classifier.py saves.
    """
    if processor.do_resize:
        side = [processor.size["height"], processor.size["width"]]
        images = F.resize(images, side, interpolation=RESAMPLING[processor.resample], antialias=True)
    if not images.is_floating_point():
        images = images * processor.rescale_factor if processor.do_rescale else images.float()
    return F.normalize(images, processor.image_mean, processor.image_std) if processor.do_normalize else images


def load_judge(folder: str | Path, device: torch.device | str | None = None) -> Judge:
    """The classifier that ``scripts/train_classifier.py`` saved, or any of that library, also by Hub id.

    Its name is "features of" the folder, or of the run the folder lies in. It computes on `device`, or the best there
    is (:func:`triptych.devices.find_device`).

    Raises:
        UserError: there is no image classifier there, or no such device here.
    """
    device, path = find_device(device), Path(folder)
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


def load_critic(
    name: str | None, class_names: list[str] | None, image_size: int | None, device: torch.device | str | None = None
) -> Judge | Inception:
    """What looks at images.

    Args:
        name: "inception", or the folder or Hub id of a classifier (:func:`load_judge`). None = Inception if its weights
            are here or can be downloaded, else the one of ``pretrained/`` that knows these images; a line on stderr
            tells which.
        class_names: of the images, by class id.
        image_size: of the images, in pixels.
        device: where it computes, the best there is if not given.

    Raises:
        UserError: it cannot be loaded; without a name: neither is there.
    """
    if name is not None:
        return Inception(device=device) if name == "inception" else load_judge(name, device)
    try:
        return Inception(device=device)
    except UserError as error:
        shipped = shipped_judge(class_names, image_size)
        if shipped is None:
            raise UserError(f"{error} Or name a classifier by --judge.") from error
        print(f"judge: {shipped}, which knows these classes; Inception's weights are not here.", file=sys.stderr)
        return load_judge(shipped, device)


def judge_of(class_names: list[str] | None, image_size: int | None) -> Path:
    """:func:`shipped_judge`, where there must be one.

    Raises:
        UserError: there is none for these images.
    """
    shipped = shipped_judge(class_names, image_size)
    if shipped is None:
        raise UserError(
            f"None of the judges in pretrained/ knows these classes at {image_size} pixels. Name a classifier of "
            f"scripts/train_classifier.py by --judge."
        )
    return shipped


def shipped_judge(class_names: list[str] | None, image_size: int | None) -> Path | None:
    """The classifier of ``pretrained/`` that was trained on images of these classes and this size, if there is one."""
    for file in sorted(project_path("pretrained").glob("judge-*/config.json")):
        side = json.loads(file.with_name("preprocessor_config.json").read_text())["size"]["height"]
        if classes_of(file.parent) == class_names and side in (
            image_size,
            2 * (image_size or 0),
        ):  # as they are, or doubled (config.upsample)
            return file.parent
    return None


class Inception:
    """torch-fidelity's Inception with the weights of 2015: only its features give what is called FID, KID, IS.

    Args:
        weights: torch-fidelity's weights file; downloaded from its releases if not given.
        device: where it computes, the best there is if not given; images are moved there.

    Raises:
        UserError: the weights are not there and can't be had, or there is no such device here.
    """

    name = "inception-v3-compat"  # torch-fidelity's own name for it; the metrics know it

    def __init__(self, weights: str | Path | None = None, device: torch.device | str | None = None):
        self.device = find_device(device)
        outputs = ["2048", "logits_unbiased"]
        path = None if weights is None else str(weights)
        try:
            network = FeatureExtractorInceptionV3(
                self.name, outputs, feature_extractor_weights_path=path, verbose=False
            )
        except Exception as error:  # whatever a network, a torn file or a pickle does
            where = f"read from {weights}" if weights else "downloaded"
            raise UserError(
                f"Inception's weights could not be {where} ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}). Without them there is no FID; use a classifier's features "
                f"(triptych.evaluation.judges.load_judge), whose Frechet distance is called by that name, or give the "
                f"file weights-inception-2015-12-05-6726825d.pth of torch-fidelity's releases."
            ) from error
        self.network = network.to(self.device)
        self.fingerprint = fingerprint(network, self.name)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, C, H, W) -> features, (B, 2048), and logits without their bias, (B, 1008), on the CPU."""
        check_images(images)
        if images.is_floating_point():  # the network was published for 8 bits
            images = (images * 255).round().to(torch.uint8)
        features, logits = self.network(images.expand(-1, 3, -1, -1).to(self.device))
        return {"features": features.cpu(), "logits": logits.cpu()}


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


def fingerprint(model: torch.nn.Module, settings: str = "") -> str:
    """A hash of all weights and buffers of `model`, and of `settings`: what else its answers depend on."""
    digest = hashlib.sha256(settings.encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
