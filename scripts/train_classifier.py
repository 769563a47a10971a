"""Train the judge: an image classifier (He et al. 2016) whose features and answers the metrics use.

    accelerate launch --config_file accelerate_config.yaml scripts/train_classifier.py \\
        --config configs/demo/classifier_digits.yaml

Add --resume latest to continue, --data.path FOLDER for a local copy, --print_config to see every setting.
Writes runs/<name>/: log.jsonl, checkpoints/, classifier/ for transformers.pipeline, and scores.json, the accuracy.
"""

from __future__ import annotations

from triptych.cli import command

import dataclasses
import json
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.training_utils import EMAModel
from torch.optim.swa_utils import update_bn
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from triptych.config.classifier import ClassifierConfig
from triptych.data.augmentation import cut_out, flip_horizontally, shift_with_reflection
from triptych.data.image_set import ImageSet, to_images
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.evaluation.extraction import extract_share
from triptych.evaluation.judges import Judge
from triptych.evaluation.scores import load_metric
from triptych.pipelines.store import save_parts, weights_hash
from triptych.publishing.cards import model_card
from triptych.training.optimizers import make_ema, make_lr_schedulers, make_optimizers
from triptych.training.run import Run
from triptych.training.whitening import whitening_kernels

BILINEAR = 2  # PIL's number for it, which image processors keep in their file
BATCH = 256  # images at once where something is measured


def main(config: ClassifierConfig) -> None:
    run = Run(config)
    # transformers' pipeline shows every image as RGB, so grey ones are learned as three equal channels
    data = dataclasses.replace(config.data, channels=3)
    images = load_images(data, need_labels=True)
    held_out = load_images(dataclasses.replace(data, split=config.validation_split), True, "validation_split")
    refuse_unless_alike(images, held_out, config)
    if config.half is not None:
        images = images.every_other(["even", "odd"].index(config.half))

    torch.manual_seed(config.seed)
    names = dict(enumerate(images.class_names))
    classes = {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    model = ResNetForImageClassification(
        ResNetConfig(num_channels=3, **dataclasses.asdict(config.model), **classes)
    ).to(run.device)
    if config.whitened_stem:
        whiten_stem(model, images, config)
    optimizers = make_optimizers(model, config.optimizer, ends=("resnet.embedder", "classifier"))
    lr_schedulers = make_lr_schedulers(optimizers, config.optimizer, config.num_updates)
    ema = make_ema(model, config.ema)
    model, *optimizers = run.prepare([ema, *lr_schedulers], model, *optimizers)

    for x, labels in run.batches(images):  # (B, 3, H, W) in [-1, 1], (B,)
        with run.accumulate(model):
            logits = model(enlarge(augment(x, run, config), config.upsample)).logits.float()
            loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            run.accelerator.backward(loss)
            accuracy = (logits.argmax(1) == labels).float().mean()  # of augmented images
            run.log(loss=loss, accuracy=accuracy, lr=optimizers[0].param_groups[0]["lr"])
            if run.updated and config.optimizer.max_grad_norm is not None:
                run.log(grad_norm=run.clip_grad_norm(list(model.parameters()), config.optimizer.max_grad_norm))
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        if run.updated:
            for lr_scheduler in lr_schedulers:
                lr_scheduler.step()
            ema.step(model.parameters())
        if run.due(config.validate_every):  # every process measures the same
            with run.expendable("the validation"):
                averaged = averaged_model(run.accelerator.unwrap_model(model), ema, images, config)
                run.log(**validate(averaged, held_out, config))

    if run.is_main:
        averaged = averaged_model(run.accelerator.unwrap_model(model), ema, images, config)
        side = config.upsample * images.image_size
        processor = ViTImageProcessor(
            size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=BILINEAR
        )
        folder = run.folder / "classifier"
        save_parts([averaged, processor], folder, describe(config, run, averaged, images.image_size))
        print(f"Saved the classifier to {folder}.")
        with run.expendable("the score of the classifier"):
            scores = score(Judge(averaged, processor, config.name), held_out, config)
            scores |= {"weights": weights_hash(str(folder))}
            (run.folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
            (folder / "README.md").write_text(describe(config, run, averaged, images.image_size, scores))
            print(f"Its accuracy on {scores['n']} held-out images is {scores['accuracy']:.4f}.")
    run.finish()


def refuse_unless_alike(images: ImageSet, held_out: ImageSet, config: ClassifierConfig) -> None:
    if (images.class_names, images.image_size) != (held_out.class_names, held_out.image_size):
        raise UserError(
            f"validation_split {config.validation_split!r} has images of {held_out.image_size} pixels and the classes "
            f"{held_out.class_names}, the training images {images.image_size} and {images.class_names}. Set "
            f"data.image_size, or choose another validation_split."
        )
    if config.max_shift >= images.image_size:
        raise UserError(f"max_shift {config.max_shift} must be less than the images' {images.image_size} pixels.")


def augment(x: torch.Tensor, run: Run, config: ClassifierConfig) -> torch.Tensor:
    """Flip, shift and blot out at random; the draws are those of this step, whoever shares it: (B, C, H, W)."""
    size, side = len(x), x.shape[-1]
    if config.horizontal_flip:
        x = flip_horizontally(x, run.rand(size) < 0.5)
    if config.max_shift:
        down, right = (run.randint(2 * config.max_shift + 1, size) - config.max_shift for _ in range(2))
        x = shift_with_reflection(x, down, right, config.max_shift)
    if config.cutout and run.update < config.num_updates - config.num_refining_updates:
        top, left = (run.randint(side, size) - config.cutout // 2 for _ in range(2))
        x = cut_out(x, top, left, config.cutout)
    return x


def enlarge(x: torch.Tensor, times: int) -> torch.Tensor:
    """As the image processor does, without its rounding to 8 bits: (B, C, H, W) -> (B, C, times H, times W).

    Channels last in memory, which the layers behind keep: a sixth less time for a step on a CPU.
    """
    x = F.interpolate(x, scale_factor=times, mode="bilinear") if times > 1 else x
    return x.contiguous(memory_format=torch.channels_last)


def whiten_stem(model: ResNetForImageClassification, images: ImageSet, config: ClassifierConfig) -> None:
    """Give the first convolution whitening kernels of training images as they are, and learn it no further: of 1,000
    to 2,000 from all over the set, or all if there are fewer."""
    convolution = model.resnet.embedder.embedder.convolution
    spread = range(0, len(images), max(1, len(images) // 1000))
    pixels = enlarge(to_images(images.__getitems__(spread)["pixels"]), config.upsample)
    kernels = whitening_kernels(
        pixels, len(convolution.weight), convolution.kernel_size[0], stride=convolution.stride[0]
    )
    convolution.weight.data.copy_(kernels)
    convolution.weight.requires_grad_(False)


@torch.no_grad()
def averaged_model(
    model: ResNetForImageClassification, ema: EMAModel, images: ImageSet, config: ClassifierConfig
) -> ResNetForImageClassification:
    """A network of the averaged weights, its batch-norm statistics measured with them (Izmailov et al. 2018, section
    3.2) on up to 4,096 training images as they are: the running ones belong to other weights."""
    averaged = ResNetForImageClassification(model.config).to(model.device)
    ema.copy_to(averaged.parameters())
    stride = max(1, len(images) // BATCH)  # a batch from all over the set, which may be sorted by class
    spread = [range(first, len(images), stride)[:BATCH] for first in range(min(stride, 16))]
    pixels = (to_images(images.__getitems__(some)["pixels"]).to(model.device) for some in spread)
    update_bn((enlarge(x, config.upsample) for x in pixels), averaged)
    return averaged.eval()


@torch.no_grad()
def validate(model: ResNetForImageClassification, images: ImageSet, config: ClassifierConfig) -> dict[str, float]:
    """Accuracy and cross-entropy on held-out images, in fp32."""
    totals = {"validation_accuracy": 0.0, "validation_loss": 0.0}
    for first in range(0, len(images), BATCH):
        batch = images.__getitems__(range(first, min(first + BATCH, len(images))))
        labels = batch["labels"].to(model.device)
        logits = model(enlarge(to_images(batch["pixels"]).to(model.device), config.upsample)).logits
        totals["validation_accuracy"] += (logits.argmax(1) == labels).sum().item() / len(images)
        totals["validation_loss"] += F.cross_entropy(logits, labels, reduction="sum").item() / len(images)
    return totals


def score(judge: Judge, images: ImageSet, config: ClassifierConfig) -> dict[str, Any]:
    """Through the image processor, as others will use the saved classifier."""
    recognised = extract_share(judge, images)["logits"].argmax(1)
    labels = images.__getitems__(range(len(images)))["labels"]
    metric = load_metric("class_accuracy")
    found = metric.compute(predictions=recognised, references=labels, class_names=images.class_names)
    trained_on = {"half": config.half, "updates": config.num_updates, "seed": config.seed}
    return {"data": config.data.path, "split": config.validation_split, **trained_on, **found}


def describe(
    config: ClassifierConfig,
    run: Run,
    model: ResNetForImageClassification,
    image_size: int,
    scores: dict[str, Any] | None = None,
) -> str:
    facts = {
        "data": config.data.path + (f", every other image ({config.half})" if config.half else ""),
        "image size": image_size,
    }
    if scores is not None:
        facts["accuracy"] = f"{scores['accuracy']:.2%} of {scores['n']:,} images (split {scores['split']})"
    return model_card("ResNetForImageClassification", config.name, facts | run.facts(model))


if __name__ == "__main__":
    command(main, ClassifierConfig)
