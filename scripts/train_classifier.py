"""Train the judge: an image classifier whose features and answers the metrics use.

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
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel, ViTImageProcessor

from triptych.config.classifier import ClassifierConfig
from triptych.data.augmentation import enlarge
from triptych.data.image_set import ImageSet, to_images
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.evaluation.extraction import extract_share
from triptych.evaluation.judges import Judge
from triptych.evaluation.scores import load_metric
from triptych.evaluation.validation import refuse_unless_alike, validate_classifier
from triptych.pipelines.store import save_parts, weights_hash
from triptych.publishing.cards import model_card
from triptych.training import follow_up
from triptych.training.augmentation import augment
from triptych.training.averages import averaged_copy
from triptych.training.networks import unwrapped
from triptych.training.optimizers import make_ema, make_lr_schedulers, make_optimizers
from triptych.training.run import Run
from triptych.training.steps import take_step
from triptych.training.whitening import whiten

BILINEAR = 2  # PIL's number for it, which image processors keep in their file
BATCH = 256  # images at once where something is measured


def main(config: ClassifierConfig) -> None:
    run = Run(config)
    # transformers' pipeline shows every image as RGB, so grey ones are learned as three equal channels
    data = dataclasses.replace(config.data, channels=3)
    images = load_images(data, need_labels=True, tell=False)
    held_out = load_images(dataclasses.replace(data, split=config.validation_split), True, "validation_split", False)
    refuse_unless_alike(images, held_out, config.validation_split)
    if config.max_shift >= images.image_size:
        raise UserError(f"max_shift {config.max_shift} must be less than the images' {images.image_size} pixels.")
    if config.half is not None:
        images = images.every_other(["even", "odd"].index(config.half))

    torch.manual_seed(config.seed)
    names = dict(enumerate(images.class_names))
    classes = {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    layout = AutoConfig.for_model(num_channels=3, **config.model.settings(), **classes)
    model = AutoModelForImageClassification.from_config(layout).to(run.device)
    if config.whitened_stem:
        spread = range(0, len(images), max(1, len(images) // 1000))  # 1,000 to 2,000 images from all over the set
        shown = show(images.__getitems__(spread)["pixels"], torch.device("cpu"), config)
        whiten(next(layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)), shown)
    optimizers = make_optimizers(model, config.optimizer, ends=(f"{model.base_model_prefix}.embed", "classifier"))
    lr_schedulers = make_lr_schedulers(optimizers, config.optimizer, config.num_updates)
    ema = make_ema(model, config.ema)
    model, *optimizers = run.prepare([ema, *lr_schedulers], model, *optimizers)
    weights = list(model.parameters())

    def averaged_model() -> PreTrainedModel:
        """Batch norm of up to 4,096 training images as they are, a batch from all over the set: it may be sorted."""
        stride = max(1, len(images) // BATCH)
        spread = [range(first, len(images), stride)[:BATCH] for first in range(min(stride, 16))]
        batches = (show(images.__getitems__(indices)["pixels"], run.device, config) for indices in spread)
        return averaged_copy(unwrapped(run.accelerator, model), ema, batches)

    def validate() -> dict[str, float]:
        averaged = averaged_model()
        return validate_classifier(lambda x: averaged(enlarge(x, config.upsample)).logits, held_out, run.device, BATCH)

    for x, labels in run.batches(images, held_out):  # (B, 3, H, W) in [-1, 1], (B,)
        with run.accumulate(model):
            logits = model(enlarge(augment(x, run, config), config.upsample)).logits.float()
            loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            run.accelerator.backward(loss)
            accuracy = (logits.argmax(1) == labels).float().mean()  # of augmented images
            run.log(loss=loss, accuracy=accuracy, lr=optimizers[0].param_groups[0]["lr"])
            take_step(run, weights, optimizers, config.optimizer.max_grad_norm)
        if run.updated:
            for lr_scheduler in lr_schedulers:
                lr_scheduler.step()
            ema.step(weights)
        if run.due(config.validate_every):  # every process measures the same
            with run.expendable("the validation"):
                run.log(**validate())

    if run.is_main:
        averaged = averaged_model()
        side = config.upsample * images.image_size
        processor = ViTImageProcessor(
            size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=BILINEAR
        )
        folder = run.folder / "classifier"
        save_parts([averaged, processor], folder, describe(config, run, averaged, images.image_size))
        with run.expendable("the score of the classifier"):
            scores = score(Judge(averaged, processor, config.name), held_out, config)
            scores |= {"weights": weights_hash(str(folder))}
            (run.folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
            (folder / "README.md").write_text(describe(config, run, averaged, images.image_size, scores))
            print(f"Its accuracy on {scores['n']} held-out images is {scores['accuracy']:.4f}.")
        follow_up.tell(run, folder, type(averaged).__name__)
    run.finish()


def show(pixels: torch.Tensor, device: torch.device, config: ClassifierConfig) -> torch.Tensor:
    """Images as they are, as the network sees them: uint8 (B, C, H, W) -> (B, C, upsample H, upsample W)."""
    return enlarge(to_images(pixels).to(device), config.upsample)


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
    model: PreTrainedModel,
    image_size: int,
    scores: dict[str, Any] | None = None,
) -> str:
    facts = {
        "data": config.data.path + (f", every other image ({config.half})" if config.half else ""),
        "image size": image_size,
    }
    if scores is not None:
        facts["accuracy"] = f"{scores['accuracy']:.2%} of {scores['n']:,} images (split {scores['split']})"
    return model_card(type(model).__name__, config.name, facts | run.facts(model))


if __name__ == "__main__":
    command(main, ClassifierConfig)
