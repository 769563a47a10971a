"""Model cards: what a model is for, how it was trained, how well it does, and how to load it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from triptych.tables import markdown

PLACE = "<this folder or repository>"  # where a card says what to load, until it is published


@dataclass(frozen=True)
class Kind:
    """What is said alike of every model of one kind.

    Attributes:
        task: the Hub's name for what it does (``pipeline_tag``).
        tags: what it is found by.
        script: what trains it.
        what: one sentence.
        usage: code that loads it and shows what it can do.
        intended: what it is for.
        limits: what it is not for, and where it fails.
        library: whose ``from_pretrained`` loads it.
    """

    task: str
    tags: tuple[str, ...]
    script: str
    what: str
    usage: str
    intended: str
    limits: str
    library: str = "diffusers"


LOAD = f"""from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{PLACE}", trust_remote_code=True)
"""

# by the class that is saved
KINDS = {
    "ClassConditionalPipeline": Kind(
        task="unconditional-image-generation",
        tags=("diffusion", "class-conditional"),
        script="train_diffusion.py",
        what="Draws images of named classes by diffusion (Ho et al. 2020) with classifier-free guidance "
        "(Ho & Salimans 2022).",
        usage=LOAD + "print(pipeline.class_names)\nimage = pipeline(pipeline.class_names[0]).images[0]",
        intended="Teaching and experiments: samplers, guidance, restoration by diffusion, and what a network of this "
        "size learns.",
        limits="It knows the classes it was trained on, at their resolution, and no text. What is rare or fine in the "
        "data comes out blurred or wrong; more guidance buys clearer classes with less variety. It has the biases of "
        "its data.",
    ),
    "VAEPipeline": Kind(
        task="unconditional-image-generation",
        tags=("vae", "variational-autoencoder"),
        script="train_vae.py",
        what="A variational autoencoder (Kingma & Welling 2014): draws images from the prior, and takes images apart "
        "into a few latent variables and together again.",
        usage=LOAD + 'drawn = pipeline(4, output_type="pt").images  # from the prior, (4, C, H, W) in [0, 1]\n'
        "mean, logvar = pipeline.encode(drawn)  # (4, latent_dim) twice\nagain = pipeline.reconstruct(drawn)",
        intended="Teaching and experiments with latent variables: likelihoods, interpolation, representation.",
        limits="It takes images like those it was trained on, of the same size. What it draws is the mean of "
        "p(x | z), smoother than real images, the more so the fewer the latent variables. It has the biases of its "
        "data.",
    ),
    "DenoiserPipeline": Kind(
        task="image-to-image",
        tags=("gan", "denoising", "image-restoration"),
        script="train_gan.py",
        what="Restores noisy images of any size: a residual U-Net trained by regression, alone or against a patch "
        "discriminator.",
        usage=LOAD.replace("\n", "\nfrom PIL import Image\n", 1)
        + 'restored = pipeline(Image.open("noisy.png")).images[0]\nrestored.save("restored.png")',
        intended="Teaching and experiments with restoration: distortion against perception, other noise, other data.",
        limits="It removes the noise it was trained on, within the levels stated, from images like its data. Trained "
        "against a discriminator it invents detail: what it restores is evidence of nothing. It has the biases of its "
        "data.",
    ),
    "ResNetForImageClassification": Kind(
        task="image-classification",
        tags=("resnet", "judge"),
        script="train_classifier.py",
        what="An image classifier (He et al. 2016) that judges generated images by its answers and its features.",
        usage=f'from transformers import pipeline\n\nclassify = pipeline("image-classification", model="{PLACE}")\n'
        'print(classify("image.png"))',
        intended="Judging generated images of the data it was trained on; its features stand in for Inception's, so "
        "distances on them are not FIDs, and compare only with distances by the same judge.",
        limits="It answers with one of its classes whatever it is shown, and errs: its own accuracy on real images "
        "bounds what it can say of generated ones. It has the biases of its data.",
        library="transformers",
    ),
}

# a score's key: (the Hub's or our name of the metric, its title); {...} is another entry of the same scores
MEASURES = {
    "accuracy": ("accuracy", "accuracy"),
    "class_accuracy": ("accuracy", "images recognised as the class asked for, by the {judge}"),
    "frechet_distance": ("frechet_distance", "Frechet distance, {judge}"),
    "kernel_distance": ("kernel_distance", "kernel distance, {judge}"),
    "precision": ("precision", "precision of Kynkaanniemi et al., {judge}"),
    "recall": ("recall", "recall of Kynkaanniemi et al., {judge}"),
    "inception_score": ("classifier_score", "classifier score, {judge}"),
    "neg_elbo": ("neg_elbo", "-ELBO, nats"),
    "importance_weighted_nll": (
        "importance_weighted_nll",
        "-log p(x), importance-weighted bound, k = {num_importance_samples}, nats",
    ),
    "mse": ("mse", "mean squared error of the reconstruction"),
    "psnr": ("psnr", "PSNR against the original, dB"),
    "ssim": ("ssim", "SSIM against the original"),
    "perceptual_distance": ("perceptual_distance", "perceptual distance, {judge}"),
    "knn_accuracy": ("accuracy", "accuracy of {num_neighbors} nearest neighbours on the latent means"),
}
# of a VAE's scores, those estimated with samples of z
BOUNDS = ("neg_elbo", "importance_weighted_nll")
# only Inception's features give the scores of these names
INCEPTION = "inception-v3-compat"
KNOWN = {
    "frechet_distance": ("fid", "FID"),
    "kernel_distance": ("kid", "KID"),
    "inception_score": ("inception_score", "Inception score"),
}
# what else of the scores says how they were measured
SETTINGS = (
    "level",
    "reference_n",
    "judge",
    "features",
    "scheduler",
    "num_inference_steps",
    "guidance_scale",
    "diffusion_steps",
    "num_importance_samples",
    "num_neighbors",
    "dtype",
    "seed",
)


def weights_hash(folder: str) -> str:
    """A hash of the weights of a saved pipeline; of a Hub id, its name."""
    files = sorted(Path(folder).rglob("*.safetensors"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest() if files else folder


def model_card(kind: str, name: str, facts: dict[str, Any], notes: str = "") -> str:
    """The card of a model that was just trained, in the Hub's form: YAML header, usage, a table of `facts`.

    Args:
        kind: the class that is saved, one of :data:`KINDS`.
        name: the run's.
        facts: how it was trained.
        notes: what else is to be said of it, below that table.
    """
    about = KINDS[kind]
    data = ModelCardData(
        license="apache-2.0", library_name=about.library, pipeline_tag=about.task, tags=list(about.tags)
    )
    trust = "" if about.library == "transformers" else TRUST
    text = (
        f"# {name}\n\n{fill(about.what, 120)}\n\n## How to load it\n\n```python\n{about.usage}\n```\n{trust}\n"
        f"## How it was trained\n\nBy Triptych's `scripts/{about.script}`.\n\n{table(facts)}\n\n"
    )
    text += f"{notes.strip()}\n\n" if notes else ""
    text += f"## Intended use\n\n{fill(about.intended, 120)}\n\n## Limits\n\n{fill(about.limits, 120)}\n"
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


TRUST = """
`trust_remote_code=True` lets the pipeline run the code that comes with its weights: `pipeline_*.py` and, where there
is one, the network's own file. Read them first; pass `revision=` to stay with what you have read.
"""


def table(rows: dict[str, Any]) -> str:
    """A Markdown table of two columns, without a heading."""
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def eval_results(scores: dict[str, Any], kind: str, dataset: tuple[str, str]) -> list[EvalResult]:
    """Measured scores as the Hub's ``model-index`` holds them, each with its metric, dataset, split and n.

    Args:
        scores: a ``scores.json`` of this project, or a row of ``rows.jsonl``.
        kind: the class that was measured.
        dataset: the Hub's id of the data, or a name for it, and what people call it.
    """
    split = scores.get("reference_split", scores.get("split"))
    inception = scores.get("judge") == INCEPTION
    settings = {key: scores[key] for key in SETTINGS if scores.get(key) is not None}
    of_bounds = {"num_importance_samples", "dtype"} if "neg_elbo" in scores else set()
    results = []
    for key, (metric, title) in MEASURES.items():
        if not isinstance(scores.get(key), (int, float)) or not math.isfinite(scores[key]):
            continue
        metric, title = KNOWN[key] if inception and key in KNOWN else (metric, title)
        title = title.format_map(scores | {"judge": scores.get("features") or scores.get("judge") or "a judge"})
        if "level" in scores:
            title += f", {scores['level']}"
        others = (set() if key in BOUNDS else of_bounds) | (set() if key == "knn_accuracy" else {"num_neighbors"})
        arguments = {"n": scores["n"]} | {name: value for name, value in settings.items() if name not in others}
        if f"{key}_interval" in scores:
            arguments["interval_95"] = scores[f"{key}_interval"]
        if key in scores.get("floor", {}):  # what as many real images get
            arguments["floor_of_real_images"] = scores["floor"][key]
        results.append(
            EvalResult(
                task_type=KINDS[kind].task,
                dataset_type=dataset[0],
                dataset_name=dataset[1],
                dataset_split=split,
                metric_type=metric,
                metric_name=f"{title} (n = {scores['n']:,})",
                metric_value=scores[key],
                metric_args=arguments,
            )
        )
    return results


def scores_table(results: Iterable[EvalResult]) -> str:
    """The same for people, as a Markdown table."""
    rows = []
    for result in results:
        arguments = dict(result.metric_args)
        spread = f" ± {arguments.pop('interval_95'):.4g}" if "interval_95" in arguments else ""
        name, n = result.metric_name.rpartition(" (n = ")[0], arguments.pop("n")
        how = ", ".join(f"{key.replace('_', ' ')} {shown(value)}" for key, value in arguments.items())
        where = f"{result.dataset_name}, {result.dataset_split}"
        rows.append([name, f"{result.metric_value:.4g}{spread}", f"{n:,}", where, how])
    return markdown(["metric", "value", "n", "dataset, split", "measured with"], rows)


def shown(value: Any) -> str:
    """A number for people, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def publish(
    card: ModelCard,
    kind: str,
    repo_id: str,
    revision: str | None = None,
    picture: str | None = None,
    run: str = "",
    results: list[EvalResult] | None = None,
) -> None:
    """Complete a model's card for a repository, in place; what its author wrote stays.

    Args:
        card: the card beside the weights.
        kind: the class that is saved.
        repo_id: the repository, which the code of the card will load from.
        revision: the branch it is published on, unless that is main.
        picture: a sample grid's path in the repository.
        run: what the run's records say, below "How it was trained".
        results: the scores.
    """
    about, data = KINDS[kind], card.data
    data.license = data.license or "apache-2.0"
    data.library_name, data.pipeline_tag = about.library, about.task
    data.tags = list(dict.fromkeys([*(data.tags or []), *about.tags]))
    place = repo_id if revision in (None, "main") else f'{repo_id}", revision="{revision}'
    text = card.text.replace(PLACE, place)
    if picture:
        above, mark, below = text.partition("\n## ")
        image = f"![samples]({picture})"
        text = text if image in text else f"{above.rstrip()}\n\n{image}\n{mark}{below}"
    if run:
        text = with_section(text, "The run's records", run)
    if results:
        data.model_name, data.eval_results = repo_id.split("/")[-1], results
        text = with_section(text, "Scores", scores_table(results))
    for heading, body, before in (("Intended use", about.intended, "Limits"), ("Limits", about.limits, None)):
        if f"\n## {heading}\n" not in text:
            text = with_section(text, heading, fill(body, 120), before)
    card.text = text


def with_section(text: str, heading: str, body: str, before: str | None = "Intended use") -> str:
    """`text` with a section of this heading and body: in the place of an earlier one, before another, or at the end."""
    section = f"\n## {heading}\n\n{body.strip()}\n"
    above, found, below = text.partition(f"\n## {heading}\n")
    if found:
        _, mark, rest = below.partition("\n## ")
        return above + section + mark + rest
    above, mark, rest = text.partition(f"\n## {before}\n") if before else (text, "", "")
    return above.rstrip() + "\n" + section + mark + rest
