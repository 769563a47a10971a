"""Score generated images against real ones, as a judge sees them: a saved pipeline, or a folder of images.

    python scripts/score.py pretrained/cifar10-class-conditional --judge runs/classifier_cifar10/classifier \\
        --data.path uoft-cs/cifar10 --num_images_per_class 1000 --output runs/scores

What is drawn is kept batch by batch in the output folder, so the command can be interrupted and repeated. Beside every
distance stands its floor: that of as many real training images from the same reference. Started by ``accelerate
launch`` in several processes, each on its accelerator, it shares drawing and judging among them.
"""

from __future__ import annotations

from triptych.cli import command

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.extraction import extract
from triptych.evaluation.judges import load_critic
from triptych.evaluation.scores import (
    NUMBERS,
    call_arguments,
    distances,
    draw,
    floor_images,
    key_of,
    recognised,
    require_drawing,
)
from triptych.evaluation.work_sharing import join
from triptych.outputs import claim_file, claim_study
from triptych.pipelines.schedulers import scheduler_class
from triptych.pipelines.store import load_pipeline, weights_hash


def main(
    source: str,
    judge: str | None = None,
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    train_split: str = "train",
    num_images_per_class: int = 100,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    scheduler: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    device: str | None = None,
    batch_size: int = 100,
    num_bootstrap: int = 20,
    seed: int = 0,
    output: Path = Path("runs/scores"),
    features: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Score generated images.

    Args:
        source: folder of a saved pipeline (class-conditional, or a VAE), or of images, one folder per class.
        judge: a classifier of scripts/train_classifier.py; "inception" for Inception's features, without classes. If
            not given, Inception where its weights can be had, else the judge in pretrained/ that knows these classes.
        data: the real images; its split is the reference.
        train_split: real images that are no reference: the floor of every distance.
        num_images_per_class: images of each class to draw (of a VAE, ten times as many in all).
        num_inference_steps: steps of the scheduler; the pipeline's own default if not given.
        guidance_scale: 1 = no guidance; the pipeline's own default if not given.
        guidance_interval: guide only between these noise levels, [0.3,5]; the pipeline's own default if not given.
        scheduler: any diffusers scheduler by name; the pipeline's own if not given.
        dtype: precision of the drawing network.
        device: cpu, cuda, mps; the best there is if not given.
        batch_size: images drawn at once.
        num_bootstrap: resamplings of the images for the interval of the Frechet distance; 0 = none.
        seed: of the noise and of the resampling.
        output: folder for scores.json and what is drawn.
        features: folder where the features of real images are cached, output/features if not given.
        overwrite: replace scores.json, and write into an output folder that holds other things.
    """
    claim_study(output, overwrite)
    claim_file(output / "scores.json", overwrite)
    if num_images_per_class < 1 or batch_size < 1 or num_bootstrap < 0:
        raise UserError("num_images_per_class and batch_size must be at least 1, num_bootstrap 0 or more.")
    processes = join()
    place = find_device(device)
    reference = load_images(data)
    critic = load_critic(judge, reference.class_names, reference.image_size, place)
    train = load_images(replace(data, split=train_split), split_setting="train_split")
    settings = {"source": source, "seed": seed}
    if (Path(source) / "model_index.json").exists() or not Path(source).exists():
        pipe = load_pipeline(source, dtype=dtype).to(place)
        require_drawing(pipe, source)
        if scheduler is not None:
            pipe.scheduler = scheduler_class(scheduler).from_config(pipe.scheduler.config)
        given = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        arguments = call_arguments(pipe, given | {"guidance_interval": guidance_interval})  # a VAE has none of them
        settings |= {"dtype": dtype, "weights": weights_hash(source), "num_images_per_class": num_images_per_class}
        settings |= arguments
        if hasattr(pipe, "scheduler"):
            settings["scheduler"] = type(pipe.scheduler).__name__
        kept = output / f"drawn_{key_of(settings)}"
        images, labels, _ = draw(pipe, arguments, num_images_per_class, batch_size, seed, kept)
        class_names = getattr(pipe, "class_names", None)
    else:
        folder = load_images(DataConfig(path=source, channels=reference.channels))
        everything = folder.__getitems__(range(len(folder)))
        images, class_names = everything["pixels"], folder.class_names
        labels = everything["labels"] if folder.has_labels else None
    if images.shape[1:] != (reference.channels, reference.image_size, reference.image_size):
        raise UserError(
            f"{source} gives images of {tuple(images.shape[1:])}, the reference is of {reference.image_size} pixels "
            f"and {reference.channels} channels. Set data.image_size or data.channels, or choose another data.path."
        )
    if min(len(images), len(reference), len(train)) < 10:
        raise UserError(
            f"{source} gives {len(images)} images, the reference {data.split!r} {len(reference)}, {train_split!r} "
            f"{len(train)}. Distributions are compared from 10 images each, and better from 1,000."
        )
    cache = features or output / "features"
    judged = extract(critic, images)
    real = extract(critic, reference, cache=cache)
    floor = extract(critic, floor_images(train, len(images), seed), cache=cache)
    if not processes.is_main:
        return  # what remains is arithmetic, done and written once
    scores = settings | {"judge": critic.name, "judge_fingerprint": critic.fingerprint, "data": data.path}
    scores |= {"reference_split": data.split, "n": len(images)}
    scores |= {"reference_n": len(reference), "floor_split": train_split}
    scores |= distances(critic, judged, real, num_bootstrap, seed)
    scores["floor"] = distances(critic, floor, real, num_bootstrap, seed)
    if labels is not None and hasattr(critic, "class_names"):
        scores |= recognised(critic.class_names, class_names, judged["logits"], labels)
    output.mkdir(parents=True, exist_ok=True)
    (output / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    print_table(scores)
    print(output / "scores.json")


def print_table(scores: dict) -> None:
    against = f"{scores['data']}, {scores['reference_split']}, {scores['reference_n']:,} images"
    print(f"\n{scores['source']}: n = {scores['n']:,}; {scores['judge']}; against {against}")
    for key in (*NUMBERS, "class_accuracy"):
        if key in scores:
            interval = scores.get(f"{key}_interval")
            spread = f" ± {interval:.4g}" if interval is not None else ""
            floor = f"   floor {scores['floor'][key]:.4g}" if key in scores["floor"] else ""
            print(f"{key:24} {scores[key]:.4f}{spread}{floor}")
    for name, row in scores.get("per_class", {}).items():
        print(f"  {name:22} {row['accuracy']:.1%}" if row["accuracy"] is not None else f"  {name:22} none")


if __name__ == "__main__":
    command(main)
