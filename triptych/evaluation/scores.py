"""Scores of generated images: drawn batch by batch, compared with real ones, recognised or not."""

from __future__ import annotations

import hashlib
import inspect
import json
import statistics
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import torch
from diffusers import DiffusionPipeline
from tqdm.auto import tqdm

from triptych.data.image_set import ImageSet
from triptych.devices import seconds_now
from triptych.errors import UserError
from triptych.evaluation.extraction import Extractor
from triptych.evaluation.statistics import mean_and_interval
from triptych.evaluation.work_sharing import join
from triptych.outputs import save_arrays
from triptych.paths import project_path
from triptych.pipelines.store import weights_hash
from triptych.seeds import image_generators, keyed_generator

NUMBERS = ("frechet_distance", "kernel_distance", "precision", "recall", "inception_score")


def require_drawing(pipe: DiffusionPipeline, source: str) -> None:
    """Refuse a pipeline whose call takes images instead of drawing them.

    Raises:
        UserError: that of the folder `source` does.
    """
    if "images" in inspect.signature(pipe.__call__).parameters:
        raise UserError(
            f"{source} is a {type(pipe).__name__}, which draws nothing. Give a diffusion pipeline or a VAE."
        )


def call_arguments(pipe: DiffusionPipeline, given: dict[str, Any]) -> dict[str, Any]:
    """The `given` arguments of a pipeline's call; for None what the pipeline was saved with, or nothing."""
    found = {key: pipe.config.get(key) if value is None else value for key, value in given.items()}
    return {key: value for key, value in found.items() if value is not None}


def decides_drawing(
    pipe: DiffusionPipeline, folder: str, arguments: dict[str, Any], seed: int, dtype: str
) -> dict[str, Any]:
    """All that decides what a diffusion pipeline, loaded from `folder`, draws for a class and a number: what images
    are kept and found by."""
    made_by = {"weights": weights_hash(folder), "scheduler": type(pipe.scheduler).__name__}
    return arguments | made_by | {"seed": seed, "dtype": dtype}


def draw(
    pipe: DiffusionPipeline, arguments: dict[str, Any], per_class: int, batch_size: int, seed: int, folder: Path
) -> tuple[torch.Tensor, torch.Tensor | None, float]:
    """Draw images and keep them batch by batch in `folder`, where those of an earlier, interrupted call are found.

    An image of a class-conditional pipeline is a function of (seed, its class, its number) alone. Processes of one
    ``accelerate launch`` must all call it: they take turns with the batches, and all get the whole.

    Args:
        pipe: a class-conditional pipeline, or a VAE's, which has no classes and draws from the prior; on its device.
        arguments: of the pipeline's call.
        per_class: images of each class; without classes ten times as many in all.
        batch_size: images at once.
        seed: of the noise.
        folder: one for these settings alone.

    Returns:
        uint8 (N, C, H, W); the classes asked for, (N,), or None; and seconds an image, median over the batches.
    """
    if per_class < 1 or batch_size < 1:
        raise UserError("num_images_per_class and batch_size must be at least 1.")
    processes = join()
    pipe.set_progress_bar_config(disable=True)
    names = getattr(pipe, "class_names", None)
    order = [(c, k) for k in range(per_class) for c in range(len(names) if names else 10)]
    batches = {}
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        batches[folder / f"{first:08d}_{len(batch)}.npz"] = batch
    share = list(batches.items())[processes.index :: processes.count]
    for path, batch in tqdm(share, desc="drawing", unit="batch", disable=not processes.is_main):
        if not path.exists():
            start, generators = seconds_now(pipe.device), image_generators(seed, batch)
            if names:
                drawn = pipe([c for c, _ in batch], generator=generators, output_type="np", **arguments).images
            else:  # drawn from the prior; one generator for the batch
                drawn = pipe(len(batch), generator=generators[0], output_type="np").images
            pixels = (drawn * 255).round().astype(np.uint8).transpose(0, 3, 1, 2)
            save_arrays(path, pixels=pixels, seconds=seconds_now(pipe.device) - start)
    processes.wait()
    parts, seconds = [], []
    for path, batch in batches.items():
        with np.load(path) as kept:
            parts.append(torch.from_numpy(kept["pixels"]))
            seconds.append(float(kept["seconds"]) / len(batch))
    labels = torch.tensor([c for c, _ in order]) if names else None
    return torch.cat(parts), labels, statistics.median(seconds)


def floor_images(images: ImageSet, n: int, seed: int) -> torch.Tensor:
    """`n` of the real training `images` at random, uint8 (n, C, H, W); what they score is every distance's floor."""
    chosen = torch.randperm(len(images), generator=keyed_generator("floor", seed))[:n]
    return images.__getitems__(chosen.tolist())["pixels"]


def key_of(settings: dict) -> str:
    """A short name for a dict of settings, the same for equal ones."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def distances(critic: Extractor, judged: dict, real: dict, num_bootstrap: int, seed: int) -> dict:
    """How far images are from the real ones: the scores of NUMBERS.

    Args:
        critic: whose features they are.
        judged, real: what :func:`triptych.evaluation.extraction.extract` says of both.
        num_bootstrap: resamplings of the images for the 95 % interval of the Frechet distance; below 2 none.
        seed: of resampling, subsets and splits.
    """
    frechet, kernel, cover, inception = (
        load_metric(name) for name in ("frechet_distance", "kernel_distance", "precision_recall", "inception_score")
    )
    features, reference = judged["features"].numpy(), real["features"].numpy()
    common = {"reference": reference, "features": critic.name}
    found = dict(frechet.compute(predictions=features, **common))
    if num_bootstrap > 1:
        rng, n = np.random.default_rng(seed), len(features)
        resampled = (
            frechet.compute(predictions=features[rng.integers(n, size=n)], **common) for _ in range(num_bootstrap)
        )
        spread = np.std([each["frechet_distance"] for each in resampled], ddof=1)
        found["frechet_distance_interval"] = 1.96 * float(spread)
    subset = min(1000, len(features), len(reference))
    found |= kernel.compute(predictions=features, **common, subset_size=subset, seed=seed)
    found |= cover.compute(predictions=features, **common)
    found |= inception.compute(predictions=judged["logits"].numpy(), features=critic.name, seed=seed)
    return {key: found[key] for key in (*NUMBERS, "frechet_distance_interval", "covers_dimensions") if key in found}


def difference(
    before: np.ndarray, after: np.ndarray, real: np.ndarray, num_bootstrap: int, seed: int
) -> tuple[float, float]:
    """Frechet distance of `after` less that of `before`, and its 95 % interval: both resampled alike."""
    frechet, rng = load_metric("frechet_distance"), np.random.default_rng(seed)

    def distance(features: np.ndarray) -> float:
        return frechet.compute(predictions=features, reference=real)["frechet_distance"]

    chosen = (rng.integers(len(before), size=len(before)) for _ in range(num_bootstrap))
    spread = np.std([distance(after[index]) - distance(before[index]) for index in chosen], ddof=1)
    return distance(after) - distance(before), 1.96 * float(spread)


def load_metric(name: str) -> evaluate.EvaluationModule:
    """One of our evaluate modules, as it stands beside this package."""
    return evaluate.load(str(project_path("metrics", name)), keep_in_memory=True)


def recognised(known_classes: list[str], asked_classes: list[str], logits: torch.Tensor, labels: torch.Tensor) -> dict:
    """Whether the class asked for is the class recognised: accuracy, its 95 % interval, per class, confusions.

    Args:
        known_classes: names of the classes that the judge knows.
        asked_classes: names of the classes by label.
        logits: the judge's answers, (N, len(known_classes)).
        labels: what was asked for, (N,).

    Raises:
        UserError: a class was asked for that the judge doesn't know.
    """
    unknown = sorted(set(asked_classes) - set(known_classes))
    if unknown:
        raise UserError(
            f"judge: it knows {', '.join(known_classes)}, not {', '.join(unknown)}. Give the judge of this data."
        )
    expected = torch.tensor([known_classes.index(name) for name in asked_classes])[labels]
    answers = logits.argmax(1)
    found = load_metric("class_accuracy").compute(predictions=answers, references=expected, class_names=known_classes)
    mean, interval = mean_and_interval((answers == expected).double().tolist())
    scores = {"class_accuracy": mean, "class_accuracy_interval": interval}
    return scores | {key: found[key] for key in ("per_class", "confusion_matrix")}


def certainty(class_names: list[str], logits: torch.Tensor, sure_from: float) -> dict[str, Any]:
    """How sure a judge is of images that nobody named a class for, and what it takes them for.

    Args:
        class_names: of the judge.
        logits: its answers, (N, len(class_names)).
        sure_from: the probability of the likeliest class from which it counts as sure.

    Returns:
        "sure", the share it is sure of, with its 95 % interval; "classes", by name the share taken for that class, sure
        or not, with its interval.
    """
    likeliest = logits.double().softmax(1).max(1)
    sure, interval = mean_and_interval((likeliest.values >= sure_from).double().tolist())
    classes = {}
    for k, name in enumerate(class_names):
        share, half = mean_and_interval((likeliest.indices == k).double().tolist())
        classes[name] = {"share": share, "share_interval": half}
    return {"sure": sure, "sure_interval": interval, "classes": classes}
