"""How samplers, steps and guidance change what a trained pipeline draws: quality, class, variety and time.

    python scripts/studies/sampling.py pretrained/cifar10-class-conditional \\
        --judge runs/classifier_cifar10/classifier --data.path uoft-cs/cifar10 \\
        --num_images_per_class 100 --output runs/sampling

Every combination is a row, kept as soon as it is measured, so the command can be interrupted, and repeated with
another grid: first all guidance scales at one number of steps, then all steps at the best scale. Ends in table.md,
charts of all that has been measured, and the fastest setting whose Frechet distance is within 2 % of the best.

What is drawn is kept too, in drawn_*/ (3 MB for 1,000 images of CIFAR-10): another judge, or fewer images a class, asks
for no new drawing. Delete those folders when no more is to be asked.
"""

from __future__ import annotations

from triptych.cli import command, listed

import itertools
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import torch

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.extraction import extract
from triptych.evaluation.judges import load_critic
from triptych.evaluation.scores import NUMBERS, distances, draw, key_of, recognised
from triptych.figures.charts import save_curves
from triptych.figures.tables import markdown
from triptych.jsonl import Rows
from triptych.outputs import claim_study
from triptych.pipelines.schedulers import scheduler_class
from triptych.pipelines.store import load_pipeline, weights_hash

COLUMNS = ("frechet_distance", "class_accuracy", "precision", "recall")
NEAR = 1.02  # how near to the best still counts as good


def main(
    pipeline: str,
    judge: str | None = None,
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    schedulers: str = "DDPM,DDIM,DPMSolverMultistep,UniPCMultistep",
    num_inference_steps: list[int] | None = None,
    guidance_scales: list[float] | None = None,
    num_images_per_class: int = 100,
    batch_size: int = 100,
    num_bootstrap: int = 20,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    device: str | None = None,
    seed: int = 0,
    output: Path = Path("runs/sampling"),
    overwrite: bool = False,
) -> None:
    """Study sampling.

    Args:
        pipeline: folder of a saved class-conditional pipeline.
        judge: a classifier of scripts/train_classifier.py, or "inception", which recognises no classes; if
            not given, the latter where its weights can be had, else the judge in pretrained/ that knows these classes.
        data: the real images that the drawn ones are compared with.
        schedulers: diffusers schedulers by name, separated by commas.
        num_inference_steps: 5, 10, 20, 50, 100, 250 and 1000 if not given.
        guidance_scales: 1, 2, 3 and 4 if not given; 1 = no guidance.
        num_images_per_class: images of each class for every row.
        batch_size: images drawn at once.
        num_bootstrap: resamplings of the images for the interval of the Frechet distance; 0 = none.
        dtype: precision of the drawing network.
        device: cpu, cuda, mps; the best there is if not given.
        seed: of the noise, the same for every row.
        output: folder of rows.jsonl, table.md and the charts.
        overwrite: write into an output folder that holds other things than this command's own work.
    """
    claim_study(output, overwrite)
    names = listed(schedulers)
    classes = {name: scheduler_class(name) for name in names}
    steps, scales = num_inference_steps or [5, 10, 20, 50, 100, 250, 1000], guidance_scales or [1.0, 2.0, 3.0, 4.0]
    if not names or min(steps) < 1 or min(scales) < 0 or num_images_per_class < 1 or batch_size < 1:
        raise UserError(
            "schedulers must name one at least; num_inference_steps, num_images_per_class and batch_size must be at "
            "least 1, guidance_scales 0 or more."
        )
    place = find_device(device)
    images = load_images(data)
    critic = load_critic(judge, images.class_names, images.image_size, place)
    pipe = load_pipeline(pipeline, "unet", torch_dtype=getattr(torch, dtype)).to(place)
    trained = pipe.scheduler.config
    real = extract(critic, images, cache=output / "features")
    rows = Rows(output / "rows.jsonl")
    same = {"weights": weights_hash(pipeline), "judge": critic.fingerprint, "data": data.path, "split": data.split}
    same |= {"n": num_images_per_class * len(pipe.class_names), "seed": seed, "dtype": dtype}
    # A drawing is the same whoever judges it, and the first images of each class are the same however many are drawn.
    drawn_by = {"weights": same["weights"], "seed": seed, "dtype": dtype, "batch_size": batch_size}

    # The cheapest first: an interrupted study has something to show.
    chosen = sorted(combinations(names, steps, scales), key=lambda k: k["num_inference_steps"])
    for how in chosen:
        key, name = same | how, how["scheduler"]
        if rows.find(**key):
            continue
        print(f"{name}, {how['num_inference_steps']} steps, guidance {how['guidance_scale']:g}")
        pipe.scheduler = classes[name].from_config(trained)
        call = {key: value for key, value in how.items() if key != "scheduler"}
        kept = output / f"drawn_{key_of(drawn_by | how)}"
        images, labels, seconds = draw(pipe, call, num_images_per_class, batch_size, seed, kept)
        seen = extract(critic, images)
        row = key | distances(critic, seen, real, num_bootstrap, seed)
        row |= {"seconds_per_image": seconds, "features": critic.name}
        if hasattr(critic, "class_names"):
            found = recognised(critic.class_names, pipe.class_names, seen["logits"], labels)
            row |= {k: found[k] for k in ("class_accuracy", "class_accuracy_interval", "per_class")}
        rows.add(row)

    # Whatever has been measured alike, by this call and by earlier ones with other grids.
    order = ("scheduler", "num_inference_steps", "guidance_scale")
    by_setting = {tuple(row[key] for key in order): row for row in rows.find_all(**same)}  # the newest of each
    found = [by_setting[setting] for setting in sorted(by_setting)]
    text = table(found)
    (output / "table.md").write_text(text)
    print(f"\n{text}", output / "table.md", *charts(found, output), sep="\n")


def combinations(names: list[str], steps: list[int], scales: list[float]) -> list[dict[str, Any]]:
    keys = ("scheduler", "num_inference_steps", "guidance_scale")
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(names, sorted(steps), scales)]


def table(rows: list[dict[str, Any]]) -> str:
    """All rows, and which to use."""
    shown = [key for key in (*NUMBERS, "class_accuracy") if key in rows[0]]
    titles = ["scheduler", "steps", "guidance", *(key.replace("_", " ") for key in shown), "seconds an image"]
    lines = []
    for row in rows:
        cells = [row["scheduler"], str(row["num_inference_steps"]), f"{row['guidance_scale']:g}"]
        cells += [f"{row[key]:.4g}" for key in shown] + [f"{row['seconds_per_image']:.3f}"]
        lines.append(cells)
    best = min(rows, key=lambda row: row["frechet_distance"])
    good = [row for row in rows if row["frechet_distance"] <= NEAR * best["frechet_distance"]]
    fast = min(good, key=lambda row: row["seconds_per_image"])
    first = rows[0]
    note = (
        f"n = {first['n']:,} images a row, seed {first['seed']}; {first['features']}; against {first['data']}, "
        f"{first['split']}. Best: {called(best)}. The fastest within {NEAR - 1:.0%} of it: {called(fast)}."
    )
    if "frechet_distance_interval" in best:
        note += " Its interval is of 95 %, by resampling the images: what lies within it is not told apart by so many."
    if "class_accuracy" in first:
        note += f" Most often the class asked for: {called(max(rows, key=lambda row: row['class_accuracy']))}."
    return f"{markdown(titles, lines)}\n\n{note}\n"


def called(row: dict[str, Any]) -> str:
    said = (
        f"{row['scheduler']}, {row['num_inference_steps']} steps, guidance {row['guidance_scale']:g} (Frechet distance "
    )
    spread = f" ± {row['frechet_distance_interval']:.2g}" if "frechet_distance_interval" in row else ""
    said += f"{row['frechet_distance']:.3g}{spread}, {row['seconds_per_image']:.3f} s an image"
    return said + (f", class accuracy {row['class_accuracy']:.1%})" if "class_accuracy" in row else ")")


def charts(rows: list[dict[str, Any]], output: Path) -> list[Path]:
    """Scores against steps, a chart for each guidance scale that has several, and against guidance likewise."""
    made = []
    quantities = [key for key in COLUMNS if key in rows[0]]

    def chart(x: str, label: str, fixed: str, value: float, path: Path, log_x: bool = False) -> None:
        chosen = sorted((row for row in rows if row[fixed] == value), key=lambda row: row[x])
        points = Counter(row["scheduler"] for row in chosen)
        names = [name for name in sorted(points) if points[name] > 1]  # a single point is no curve
        if not names:
            return
        curves = {
            key.replace("_", " ").capitalize(): {
                name: tuple(zip(*((row[x], row[key]) for row in chosen if row["scheduler"] == name), strict=True))
                for name in names
            }
            for key in quantities
        }
        made.append(save_curves(curves, label, path, log_x=log_x))

    for scale in sorted({row["guidance_scale"] for row in rows}):
        path = output / f"steps_guidance{scale:g}.png"
        chart("num_inference_steps", "steps", "guidance_scale", scale, path, log_x=True)
    for count in sorted({row["num_inference_steps"] for row in rows}):
        chart("guidance_scale", "guidance scale", "num_inference_steps", count, output / f"guidance_steps{count}.png")
    return made


if __name__ == "__main__":
    command(main)
