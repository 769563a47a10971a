"""How samplers, steps and guidance change what a trained pipeline draws: quality, class, variety and time.

    python scripts/studies/sampling.py pretrained/cifar10-class-conditional \\
        --judge runs/classifier_cifar10/classifier --data.path uoft-cs/cifar10 \\
        --num_images_per_class 100 --output runs/sampling

Every combination is a row, kept as soon as it is measured, so the command can be interrupted, and repeated with
another grid: first all guidance scales at one number of steps, then all steps at the best scale. Ends in table.md,
charts of all that has been measured, and the fastest setting that is not told apart from the best.

What is drawn is kept too, in drawn_*/ (3 MB for 1,000 images of CIFAR-10): another judge, or fewer images a class, asks
for no new drawing. Delete those folders when no more is to be asked. Started by ``accelerate launch`` in several
processes, it shares the drawing and the judging among them; seconds an image are then those of one of them.
"""

from __future__ import annotations

from triptych.cli import command, listed

from pathlib import Path
from typing import Literal

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.extraction import extract
from triptych.evaluation.judges import load_critic
from triptych.evaluation.scores import distances, draw, key_of, recognised
from triptych.evaluation.work_sharing import join
from triptych.jsonl import Rows
from triptych.outputs import claim_study
from triptych.pipelines.sampling import evaluations_per_image
from triptych.pipelines.schedulers import scheduler_class
from triptych.pipelines.store import load_pipeline, weights_hash
from triptych.studies.generation import (
    EVERYWHERE,
    guidance_in_words,
    newest_of_each,
    sampler_charts,
    sampler_settings,
    sampler_table,
)


def main(
    pipeline: str,
    judge: str | None = None,
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    schedulers: str = "DDPM,DDIM,DPMSolverMultistep,UniPCMultistep",
    num_inference_steps: list[int] | None = None,
    guidance_scales: list[float] | None = None,
    guidance_intervals: list[tuple[float, float]] | None = None,
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
        guidance_intervals: noise levels at which to guide, each [low,high]; [0,.inf] = all; the pipeline's own if not
            given.
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
    if not all(0 <= low < high for low, high in guidance_intervals or []):
        raise UserError(f"guidance_intervals {guidance_intervals}: each must be [low,high] with 0 <= low < high.")
    if not names or min(steps) < 1 or min(scales) < 0 or num_images_per_class < 1 or batch_size < 1:
        raise UserError(
            "schedulers must name one at least; num_inference_steps, num_images_per_class and batch_size must be at "
            "least 1, guidance_scales 0 or more."
        )
    processes = join()
    place = find_device(device)
    images = load_images(data)
    critic = load_critic(judge, images.class_names, images.image_size, place)
    pipe = load_pipeline(pipeline, "unet", dtype=dtype).to(place)
    trained = pipe.scheduler.config
    intervals = guidance_intervals or [pipe.config.get("guidance_interval") or EVERYWHERE]
    real = extract(critic, images, cache=output / "features")
    rows = Rows(output / "rows.jsonl")
    key = {"weights": weights_hash(pipeline), "judge": critic.fingerprint, "data": data.path, "split": data.split}
    key |= {"n": num_images_per_class * len(pipe.class_names), "seed": seed, "dtype": dtype}
    # A drawing is the same whoever judges it, and the first images of each class are the same however many are drawn.
    drawn_by = {"weights": key["weights"], "seed": seed, "dtype": dtype, "batch_size": batch_size}

    # The cheapest first: an interrupted study has something to show. All processes measure what the main one lacks.
    chosen = sampler_settings(names, steps, scales, intervals)
    chosen.sort(key=lambda setting: setting["num_inference_steps"])
    for setting in processes.from_main([setting for setting in chosen if not rows.find(**key | setting)]):
        scheduler = setting["scheduler"]
        if processes.is_main:
            print(f"{scheduler}, {setting['num_inference_steps']} steps, guidance {guidance_in_words(setting)}")
        pipe.scheduler = classes[scheduler].from_config(trained)
        arguments = {name: value for name, value in setting.items() if name != "scheduler"}
        arguments["guidance_interval"] = setting["guidance_interval"] or EVERYWHERE
        kept = output / f"drawn_{key_of(drawn_by | setting)}"
        images, labels, seconds = draw(pipe, arguments, num_images_per_class, batch_size, seed, kept)
        judged = extract(critic, images)
        if not processes.is_main:
            continue  # what remains is arithmetic, done and written once
        row = key | setting | distances(critic, judged, real, num_bootstrap, seed)
        row |= {"seconds_per_image": seconds, "features": critic.name}
        row["evaluations"] = evaluations_per_image(pipe, **arguments)
        if hasattr(critic, "class_names"):
            found = recognised(critic.class_names, pipe.class_names, judged["logits"], labels)
            row |= {name: found[name] for name in ("class_accuracy", "class_accuracy_interval", "per_class")}
        rows.add(row)

    if not processes.is_main:
        return
    # Whatever has been measured alike, by this call and by earlier ones with other grids.
    found = newest_of_each(rows.find_all(**key))
    text = sampler_table(found)
    (output / "table.md").write_text(text)
    print(f"\n{text}", output / "table.md", *sampler_charts(found, output), sep="\n")


if __name__ == "__main__":
    command(main)
