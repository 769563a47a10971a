"""Classification accuracy score (Ravuri & Vinyals 2019): what a classifier that saw only drawn images knows of others.

    python scripts/studies/classification_accuracy.py pretrained/cifar10-class-conditional \\
        configs/classifier_cifar10_convnext.yaml --data.path uoft-cs/cifar10 --num_images_per_class 2000 \\
        --output runs/classification_accuracy

The same classifier is trained twice, on drawn images of each class and on as many real ones, and asked about real test
images. What the drawn ones lack of the real ones' variety, or show under a wrong name, costs accuracy, class by class;
a judge's approval of single images tells nothing of variety. Can be interrupted at any time.
"""

from __future__ import annotations

from triptych.cli import command

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from triptych.config.base import DataConfig
from triptych.data.image_set import ImageSet
from triptych.data.sources import load_images
from triptych.data.tables import save_table
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.reconstruction import first_of_each_class
from triptych.evaluation.scores import call_arguments, decides_drawing, draw, key_of
from triptych.evaluation.statistics import binomial_interval
from triptych.evaluation.work_sharing import require_one_process
from triptych.figures.charts import save_by_class
from triptych.figures.tables import markdown
from triptych.outputs import claim_study
from triptych.pipelines.store import load_pipeline
from triptych.studies import stages


def main(
    pipeline: str,
    experiment: Path,
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    train_split: str = "train",
    num_images_per_class: int = 2000,
    seeds: list[int] | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    batch_size: int = 100,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    device: str | None = None,
    output: Path = Path("runs/classification_accuracy"),
    train_flags: list[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Train a classifier on drawn images, and the same on real ones.

    Args:
        pipeline: folder of a class-conditional pipeline, or a Hub id.
        experiment: a config of scripts/train_classifier.py; its data, seed, name and output folder are set here, and
            no part is published (run.push_to).
        data: the real images that are asked about.
        train_split: the real images to train on: the first of each class.
        num_images_per_class: images of each class to train on, drawn and real.
        seeds: of the trainings, 0 if not given; the first is the seed of the drawing, too.
        num_inference_steps: steps of the scheduler; the pipeline's own default if not given.
        guidance_scale: 1 = no guidance; the pipeline's own default if not given.
        guidance_interval: guide only between these noise levels, [0.3,5]; the pipeline's own default if not given.
        batch_size: images drawn at once.
        dtype: precision of the drawing network.
        device: cpu, cuda, mps; the best there is if not given.
        output: folder of the images, the runs, scores.json, table.md and classes.png.
        train_flags: more flags for scripts/train_classifier.py, such as '[--num_updates, "100"]'.
        overwrite: write into an output folder that holds other things than this command's own work.
    """
    claim_study(output, overwrite)
    if train_split == data.split:
        raise UserError(f"train_split {train_split!r} is data.split too; there must be images that were not learned.")
    require_one_process()
    pipe = load_pipeline(pipeline, "unet", dtype=dtype).to(find_device(device))
    asked = load_images(data, need_labels=True)
    real = load_images(replace(data, split=train_split), need_labels=True, split_setting="train_split")
    if pipe.image_shape != (asked.channels, asked.image_size, asked.image_size):
        raise UserError(f"{pipeline} draws images of {pipe.image_shape}; data.path {data.path} has others.")
    if list(pipe.class_names) != list(asked.class_names):
        raise UserError(f"{pipeline} draws {', '.join(pipe.class_names)}; data.path {data.path} has other classes.")
    seeds = seeds or [0]
    indices = first_of_each_class(real, num_images_per_class)
    given = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
    arguments = call_arguments(pipe, given | {"guidance_interval": guidance_interval})
    made_by = decides_drawing(pipe, pipeline, arguments, seeds[0], dtype) | {"n": len(indices)}
    kept = output / f"drawn_{key_of(made_by | {'batch_size': batch_size})}"
    pixels, labels, _ = draw(pipe, arguments, num_images_per_class, batch_size, seeds[0], kept)
    held_out = contents(asked, range(len(asked)))
    found: dict[str, list[dict[str, Any]]] = {}
    of_real = {"data": data.path, "split": data.split, "train_split": train_split, "n": len(indices)}
    for source, shown in {"real": contents(real, indices), "drawn": (pixels, labels)}.items():
        # what is trained on is in the name, so that a run of other images is never taken for one of these
        of = key_of(of_real | (made_by if source == "drawn" else {}))
        table = output / f"images_{source}_{of}"
        if not table.exists():
            save_table(table, {"train": shown, "test": held_out}, asked.class_names)
        for seed in seeds:
            flags = ["--data.path", table.resolve(), "--validation_split", "test", "--seed", seed, *(train_flags or [])]
            run = stages.train_once("train_classifier.py", experiment, output, f"{source}_{of}_seed{seed}", *flags)
            found.setdefault(source, []).append(json.loads((run / "scores.json").read_text()))
    scores = {"made_by": made_by, "data": data.path, "split": data.split, "experiment": experiment.name, **found}
    (output / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    by_class = {source: [accuracy(runs, name) for name in asked.class_names] for source, runs in found.items()}
    text = summary(found, by_class, asked.class_names, len(indices))
    (output / "table.md").write_text(text)
    title = f"trained on {len(indices):,} images"
    chart = save_by_class(by_class, asked.class_names, "accuracy on real images", title, output / "classes.png")
    print(text, output / "table.md", chart, sep="\n")


def contents(images: ImageSet, indices: Any) -> tuple[Any, Any]:
    rows = images.__getitems__(indices)
    return rows["pixels"], rows["labels"]


def accuracy(runs: list[dict[str, Any]], class_name: str | None = None) -> tuple[float, float]:
    """Mean over the runs of the share that was recognised, and half its 95 % interval, which counts each real image
    once: the runs were asked about the same ones."""
    of = [run if class_name is None else run["per_class"][class_name] for run in runs]
    share = float(np.mean([each["accuracy"] for each in of]))
    return share, binomial_interval(share, of[0]["n"])


def summary(found: dict, by_class: dict, class_names: list[str], n: int) -> str:
    """Accuracies by class and over all, and what is behind them."""
    lines = [
        [name, *(f"{p:.1%} ± {h:.1%}" for p, h in row)]
        for name, row in zip(class_names, zip(*by_class.values(), strict=True), strict=True)
    ]
    whole = {source: accuracy(runs) for source, runs in found.items()}
    lines.append(["all", *(f"{p:.1%} ± {h:.1%}" for p, h in whole.values())])
    runs = next(iter(found.values()))
    note = f"Accuracy on {runs[0]['n']:,} real images after training on {n:,}; ± half the 95 % interval over them"
    spread = {source: np.std([run["accuracy"] for run in of], ddof=1) for source, of in found.items() if len(of) > 1}
    if spread:
        told = " and ".join(f"{value:.2%} ({source})" for source, value in spread.items())
        note += f", the mean of {len(runs)} seeds, whose standard deviation is {told}"
    return f"{markdown(['class', *(f'trained on {source}' for source in found)], lines)}\n\n{note}.\n"


if __name__ == "__main__":
    command(main)
