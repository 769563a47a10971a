"""What a VAE draws from its prior, as a judge sees it: whether it is a digit at all, which one, and how near to real.

    python scripts/studies/prior_samples.py \\
        --models z2=pretrained/vae-mnist-z2,z4=pretrained/vae-mnist-z4,z16=pretrained/vae-mnist-z16 \\
        --judge pretrained/judge-mnist --data.path ylecun/mnist --output runs/prior_samples

Beside them stands as many real training images. A row is kept for each model, so the command can be interrupted. Ends
in table.md and a chart of the classes.
"""

from __future__ import annotations

from triptych.cli import command, named_folders

from dataclasses import replace
from pathlib import Path
from typing import Any

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.extraction import extract
from triptych.evaluation.judges import judge_of, load_judge
from triptych.evaluation.scores import certainty, distances, draw, floor_images, key_of
from triptych.evaluation.statistics import binomial_interval
from triptych.evaluation.work_sharing import require_one_process
from triptych.figures.charts import save_by_class
from triptych.figures.tables import markdown, percent_with_interval, with_interval
from triptych.jsonl import Rows
from triptych.measures import MEASURES
from triptych.outputs import claim_study
from triptych.pipelines.store import load_pipeline, weights_hash


def main(
    models: str = "",
    judge: str | None = None,
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    train_split: str = "train",
    num_images: int = 2000,
    sure_of_real: float = 0.95,
    num_bootstrap: int = 20,
    device: str | None = None,
    seed: int = 0,
    output: Path = Path("runs/prior_samples"),
    overwrite: bool = False,
) -> None:
    """Judge what VAEs draw.

    Args:
        models: saved VAEs by name, name=folder, separated by commas.
        judge: a classifier of scripts/train_classifier.py; if not given, the one in pretrained/ that knows the classes.
        data: the real images that the drawn ones are compared with.
        train_split: real images beside them.
        num_images: drawn from each, a multiple of ten.
        sure_of_real: the judge counts as sure where it gives its likeliest class the probability that it gives to this
            share of the real images, or more.
        num_bootstrap: resamplings of the images for the interval of the Frechet distance; 0 = none.
        device: cpu, cuda, mps; the best there is if not given.
        seed: of the draws.
        output: folder of rows.jsonl, table.md and classes.png.
        overwrite: write into an output folder that holds other things than this command's own work.
    """
    claim_study(output, overwrite)
    folders = named_folders(models, "models", taken=("real",))
    if num_images < 10 or num_images % 10 or not folders or not 0 < sure_of_real < 1:
        raise UserError("models must name one at least, num_images be a multiple of ten, sure_of_real between 0 and 1.")
    require_one_process()
    place = find_device(device)
    reference = load_images(data, need_labels=True)
    train = load_images(replace(data, split=train_split), split_setting="train_split")
    if len(train) < num_images:
        raise UserError(f"num_images {num_images} is more than the {len(train)} images of {train_split!r}.")
    critic = load_judge(judge or judge_of(reference.class_names, reference.image_size), place)
    key = {"judge": critic.fingerprint, "data": data.path, "split": data.split, "n": num_images, "seed": seed}
    real = extract(critic, reference, cache=output / "features")
    # A judge trained with label smoothing is never quite sure, so what is sure is told by what it says of real images.
    sure_from = float(real["logits"].double().softmax(1).amax(1).quantile(1 - sure_of_real))
    key |= {"sure_from": sure_from, "sure_of_real": sure_of_real}
    rows, found = Rows(output / "rows.jsonl"), {}
    for name, folder in (folders | {"real": train_split}).items():
        key["weights"] = train_split if name == "real" else weights_hash(folder)
        if not rows.find(**key):
            if name == "real":
                images = floor_images(train, num_images, seed)
            else:
                pipe = load_pipeline(folder, "vae").to(place)
                if pipe.image_shape != (reference.channels, reference.image_size, reference.image_size):
                    raise UserError(f"{folder} draws images of {pipe.image_shape}; the data has others.")
                kept = output / f"drawn_{key_of({'weights': key['weights'], 'seed': seed, 'n': num_images})}"
                images, _, _ = draw(pipe, {}, num_images // 10, 100, seed, kept)
            judged = extract(critic, images)
            row = key | {"model": name, "features": critic.name, "reference_n": len(reference)}
            row |= certainty(critic.class_names, judged["logits"], sure_from)
            rows.add(row | distances(critic, judged, real, num_bootstrap, seed))
        found[name] = rows.find(**key)
    text = table(found)
    (output / "table.md").write_text(text)
    shares = {
        name: [(100 * one["share"], 100 * one["share_interval"]) for one in row["classes"].values()]
        for name, row in found.items()
    }
    title = f"what {num_images:,} draws from the prior are taken for"
    chart = save_by_class(shares, critic.class_names, "share, %", title, output / "classes.png")
    print(f"\n{text}", output / "table.md", chart, sep="\n")


def table(found: dict[str, dict[str, Any]]) -> str:
    scores = (MEASURES[key].column for key in ("frechet_distance", "precision", "recall"))
    titles = ["model", "judge sure", "rarest class", "commonest class", *scores]
    lines = []
    for name, row in found.items():
        by_share = sorted(row["classes"], key=lambda one: row["classes"][one]["share"])
        ends = [(one, row["classes"][one]) for one in (by_share[0], by_share[-1])]
        lines.append(
            [
                name,
                percent_with_interval(row["sure"], row["sure_interval"]),
                *(f"{one}: {percent_with_interval(of['share'], of['share_interval'])}" for one, of in ends),
                with_interval(row, "frechet_distance"),
                *(
                    percent_with_interval(row[score], binomial_interval(row[score], row[count]))
                    for score, count in (("precision", "n"), ("recall", "reference_n"))
                ),
            ]
        )
    first = next(iter(found.values()))
    note = (
        f"n = {first['n']:,}, seed {first['seed']}; {first['features']}, sure from a probability of "
        f"{first['sure_from']:.3f} on, which {100 * first['sure_of_real']:g} % of the reference reach; against "
        f"{first['reference_n']:,} images of {first['data']}, {first['split']}; ± half the 95 % interval, of precision "
        "and recall for the images counted, the others given. real: as many training images."
    )
    return f"{markdown(titles, lines)}\n\n{note}\n"


if __name__ == "__main__":
    command(main)
