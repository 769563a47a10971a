"""Measured scores as the Hub holds them, and as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from huggingface_hub import EvalResult

from triptych.figures.tables import markdown
from triptych.measures import MEASURES
from triptych.publishing.kinds import KINDS

# of a VAE's scores, those estimated with samples of z
BOUNDS = ("neg_elbo", "importance_weighted_nll")
# its features alone give scores their best known names
INCEPTION = "inception-v3-compat"
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
    for key, measure in MEASURES.items():
        if not measure.hub or not isinstance(scores.get(key), (int, float)) or not math.isfinite(scores[key]):
            continue
        plain = (measure.hub, measure.card)
        metric, title = measure.by_inception if inception and measure.by_inception else plain
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
        settings = ", ".join(f"{key.replace('_', ' ')} {shown(value)}" for key, value in arguments.items())
        where = f"{result.dataset_name}, {result.dataset_split}"
        rows.append([name, f"{result.metric_value:.4g}{spread}", f"{n:,}", where, settings])
    return markdown(["metric", "value", "n", "dataset, split", "measured with"], rows)


def shown(value: Any) -> str:
    """A number for people, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
