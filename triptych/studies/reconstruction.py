"""Tables and charts of images noised to a step t and brought back: what of them survives, by t and by class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from triptych.evaluation.reconstruction import QUANTITIES
from triptych.figures.charts import save_curves, save_small_multiples
from triptych.figures.tables import markdown, with_interval

DIGITS = 3  # of every quantity


def reconstruction_table(rows: list[dict[str, Any]], class_names: list[str]) -> str:
    """All classes together at each t, then the classes at the t where they differ most in what is kept."""
    steps = []
    for row in rows:
        cells = (with_interval(row, key, DIGITS) for key in QUANTITIES)
        steps.append([row["t"], f"{row['snr_db']:+.1f}", *cells])
    spread = max(rows, key=lambda row: np.std([c["kept"] for c in row["per_class"].values()]))
    classes = [
        [name, *(with_interval(spread["per_class"][name], key, DIGITS) for key in QUANTITIES)] for name in class_names
    ]
    first = rows[0]
    note = (
        f"n = {first['n']:,} images of {first['data']}, {first['split']}; {first['scheduler']}, "
        f"{first['num_inference_steps']} steps from the last t, guidance {first['guidance_scale']:g}, seed "
        f"{first['seed']}."
    )
    at_each_t = markdown(["t", "SNR, dB", *QUANTITIES.values()], steps)
    by_class = markdown(["class", *QUANTITIES.values()], classes)
    return f"{at_each_t}\n\nBy class at t = {spread['t']}:\n\n{by_class}\n\n{note}\n"


def reconstruction_charts(rows: list[dict[str, Any]], class_names: list[str], output: Path) -> list[Path]:
    """All classes together against t; each class before the others, its PSNR and how often it is kept."""

    def curve(of_each_t: list[dict[str, float]], key: str) -> tuple[list[float], ...]:
        halves = [row.get(f"{key}_interval", 0.0) for row in of_each_t]
        return [row["t"] for row in rows], [row[key] for row in of_each_t], halves

    together = {title: {"all classes": curve(rows, key)} for key, title in QUANTITIES.items()}
    made = [save_curves(together, "t", output / "curves.png")]
    for key in ("psnr", "kept"):
        classes = {name: curve([row["per_class"][name] for row in rows], key) for name in class_names}
        made.append(save_small_multiples(classes, "t", QUANTITIES[key], output / f"classes_{key}.png"))
    return made
