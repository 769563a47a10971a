"""Which of several trained diffusion pipelines is better, and at which noise: recipes, sizes, hours of training.

    python scripts/studies/recipes.py before=pretrained/cifar10-class-conditional,after=runs/trial/pipeline \\
        --judge pretrained/judge-cifar10 --data.path uoft-cs/cifar10 --output runs/recipes

All draw from the same noise, so the interval of a difference, by resampling the images, is narrower than those of the
two distances. Beside it stands the error of the denoised test images at fixed noise levels, which says where a recipe
gains and loses. What is drawn is kept, so the command can be interrupted, and repeated with more pipelines. Started by
``accelerate launch`` in several processes, it shares drawing, judging and denoising among them.
"""

from __future__ import annotations

from triptych.cli import command, named_folders

from pathlib import Path
from typing import Literal

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.denoising import denoising_errors
from triptych.evaluation.extraction import extract
from triptych.evaluation.judges import load_critic
from triptych.evaluation.scores import call_arguments, decides_drawing, difference, distances, draw, key_of, recognised
from triptych.evaluation.work_sharing import join
from triptych.jsonl import Rows
from triptych.outputs import claim_study
from triptych.pipelines.store import load_pipeline
from triptych.studies.generation import recipe_chart, recipe_table


def main(
    pipelines: str,
    judge: str | None = None,
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    guidance_scale: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    num_inference_steps: int | None = None,
    num_images_per_class: int = 200,
    num_denoised: int = 1000,
    num_bootstrap: int = 100,
    batch_size: int = 100,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    device: str | None = None,
    seed: int = 0,
    output: Path = Path("runs/recipes"),
    overwrite: bool = False,
) -> None:
    """Compare pipelines.

    Args:
        pipelines: name=folder of class-conditional pipelines, separated by commas; the others are compared with the
            first.
        judge: a classifier of scripts/train_classifier.py, or "inception", which recognises no classes; if
            not given, the latter where its weights can be had, else the judge in pretrained/ that knows these classes.
        data: the real images: what distances are measured from, and what is noised and denoised.
        guidance_scale: each pipeline's own if not given.
        guidance_interval: noise levels at which to guide, [low,high]; each pipeline's own if not given.
        num_inference_steps: each pipeline's own if not given.
        num_images_per_class: images of each class to draw.
        num_denoised: of the real images, the first so many are noised and denoised.
        num_bootstrap: resamplings of the images for the intervals.
        batch_size: images at once.
        dtype: precision of the drawing networks.
        device: cpu, cuda, mps; the best there is if not given.
        seed: of all noise and resampling.
        output: folder of rows.jsonl, table.md and the chart.
        overwrite: write into an output folder that holds other things than this command's own work.
    """
    claim_study(output, overwrite)
    folders = named_folders(pipelines, "pipelines")
    if min(len(folders), num_images_per_class, batch_size, num_denoised) < 1 or num_bootstrap < 2:
        raise UserError(
            "There must be at least one pipeline, image of each class, image to denoise and image at once, and two "
            "resamplings (num_bootstrap)."
        )
    processes = join()
    place = find_device(device)
    images = load_images(data, need_labels=True)
    critic = load_critic(judge, images.class_names, images.image_size, place)
    real = extract(critic, images, cache=output / "features")
    held_out = images.__getitems__(range(min(num_denoised, len(images))))
    given = {"guidance_scale": guidance_scale, "guidance_interval": guidance_interval}
    given |= {"num_inference_steps": num_inference_steps}
    rows, found, features = Rows(output / "rows.jsonl"), {}, {}
    for name, folder in folders.items():
        pipe = load_pipeline(folder, "unet", dtype=dtype).to(place)
        if pipe.class_names != images.class_names or pipe.image_shape[0] != images.channels:
            raise UserError(
                f"{folder} draws {len(pipe.class_names)} classes of {pipe.image_shape[0]} channels; {data.path} has "
                f"{len(images.class_names)} of {images.channels}. Point data.path at what it was trained on."
            )
        arguments = call_arguments(pipe, given)
        drawn_by = decides_drawing(pipe, folder, arguments, seed, dtype)
        key = drawn_by | {"judge": critic.fingerprint, "data": data.path, "split": data.split}
        key |= {"n": num_images_per_class * len(pipe.class_names), "denoised": len(held_out["labels"])}
        if processes.is_main:
            print(f"{name}: {folder}")
        kept = output / f"drawn_{key_of(drawn_by | {'batch_size': batch_size})}"
        drawn, labels, _ = draw(pipe, arguments, num_images_per_class, batch_size, seed, kept)
        judged = extract(critic, drawn)
        features[name], found[name] = judged["features"].numpy(), processes.from_main(rows.find(**key))
        if found[name] is None:
            pipe = load_pipeline(folder, "unet").to(place)  # in single precision
            errors = {
                f"error_{label}": denoising_errors(pipe, held_out, label == "class", batch_size, seed)
                for label in ("class", "null")
            }
            if processes.is_main:  # the rest is arithmetic, done and written once
                found[name] = key | distances(critic, judged, real, num_bootstrap, seed)
                if hasattr(critic, "class_names"):
                    found[name] |= recognised(critic.class_names, pipe.class_names, judged["logits"], labels)
                found[name] |= errors
                rows.add(found[name])
    if not processes.is_main:
        return
    first, *others = folders
    gains = {
        name: difference(features[first], features[name], real["features"].numpy(), num_bootstrap, seed)
        for name in others
        if len(features[name]) == len(features[first])
    }
    text = recipe_table(found, gains)
    (output / "table.md").write_text(text)
    chart = recipe_chart(found, output / "errors.png")
    print(f"\n{text}", output / "table.md", chart, sep="\n")


if __name__ == "__main__":
    command(main)
