"""Tables and charts of studies that draw images: samplers of one pipeline, and pipelines of several recipes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triptych.evaluation.denoising import SIGMAS
from triptych.evaluation.scores import NUMBERS
from triptych.figures.charts import save_curves
from triptych.figures.tables import markdown, with_interval
from triptych.measures import MEASURES

SHOWN = ("frechet_distance", "class_accuracy", "precision", "recall")  # in the charts

EVERYWHERE = (0.0, math.inf)  # a guidance interval
SETTING = ("scheduler", "num_inference_steps", "guidance_scale", "guidance_interval")


def sampler_settings(
    names: list[str], steps: list[int], scales: list[float], intervals: Sequence[Sequence[float]]
) -> list[dict[str, Any]]:
    """Every setting once; a guidance interval of None is everywhere, and what is not guided has no other."""
    values = {
        (name, count, scale, None if scale == 1 or (low, high) == EVERYWHERE else (low, high)): None
        for name, count, scale, (low, high) in itertools.product(names, sorted(steps), scales, intervals)
    }
    return [dict(zip(SETTING, (*rest, interval and list(interval)), strict=True)) for *rest, interval in values]


def place_of(row: dict[str, Any]) -> tuple[float, ...]:
    """The noise levels at which a row was guided, (low, high)."""
    return tuple(row.get("guidance_interval") or EVERYWHERE)


def newest_of_each(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of rows with the same setting the last, in the order of their settings."""
    by_setting = {(*(row[name] for name in SETTING[:-1]), place_of(row)): row for row in rows}
    return [by_setting[setting] for setting in sorted(by_setting)]


def sampler_table(rows: list[dict[str, Any]]) -> str:
    """All rows, and which to use."""
    shown = [key for key in (*NUMBERS, "class_accuracy") if key in rows[0]]
    titles = ["scheduler", "steps", "guidance", *(MEASURES[key].column for key in shown), "seconds an image"]
    lines = []
    for row in rows:
        cells = [row["scheduler"], str(row["num_inference_steps"]), guidance_in_words(row)]
        cells += [with_interval(row, key) for key in shown] + [f"{row['seconds_per_image']:.3f}"]
        lines.append(cells)
    best = min(rows, key=lambda row: row["frechet_distance"])
    good = [row for row in rows if row["frechet_distance"] - best["frechet_distance"] <= _error(row, best)]
    fast = min(good, key=lambda row: row["seconds_per_image"])
    first = rows[0]
    note = (
        f"n = {first['n']:,} images a row, seed {first['seed']}; {first['features']}; against {first['data']}, "
        f"{first['split']}; intervals of 95 %, of Frechet distances by resampling the images. Lowest Frechet distance: "
        f"{in_words(best)}. The fastest that so many images do not tell apart from it: {in_words(fast)}."
    )
    if "class_accuracy" in first:
        note += f" Most often the class asked for: {in_words(max(rows, key=lambda row: row['class_accuracy']))}."
    return f"{markdown(titles, lines)}\n\n{note}\n"


def _error(row: dict[str, Any], other: dict[str, Any]) -> float:
    """Half the interval of a difference of Frechet distances, as of independent drawings: those of one seed are closer
    to each other, so that this tells fewer apart than there are."""
    return math.hypot(*(one.get("frechet_distance_interval", 0.0) for one in (row, other)))


def in_words(row: dict[str, Any]) -> str:
    """A sampler's settings and how good and fast it is."""
    said = (
        f"{row['scheduler']}, {row['num_inference_steps']} steps, guidance {guidance_in_words(row)} (Frechet distance "
    )
    spread = f" ± {row['frechet_distance_interval']:.2g}" if "frechet_distance_interval" in row else ""
    said += f"{row['frechet_distance']:.3g}{spread}, {row['seconds_per_image']:.3f} s an image"
    return said + (f", class accuracy {row['class_accuracy']:.1%})" if "class_accuracy" in row else ")")


def guidance_in_words(row: dict[str, Any]) -> str:
    """How strong, and where if not everywhere."""
    low, high = place_of(row)
    where = "" if (low, high) == EVERYWHERE else f" for sigma in [{low:g}, {high:g}]"
    return f"{row['guidance_scale']:g}{where}"


def _point(row: dict[str, Any], x: str, key: str) -> tuple[float, ...]:
    return (row[x], row[key], row[f"{key}_interval"]) if f"{key}_interval" in row else (row[x], row[key])


def sampler_charts(rows: list[dict[str, Any]], output: Path) -> list[Path]:
    """Scores against steps, a chart for each guidance scale that has several, and against guidance likewise: paths."""
    made = []
    quantities = [key for key in SHOWN if key in rows[0]]
    guided_alike = len({place_of(row) for row in rows if row["guidance_scale"] != 1}) < 2

    def name_of(row: dict[str, Any]) -> str:
        low, high = place_of(row)
        alone = guided_alike or (low, high) == EVERYWHERE
        return row["scheduler"] if alone else f"{row['scheduler']}, sigma {low:g} to {high:g}"

    def chart(x: str, label: str, fixed: str, value: float, path: Path, log_x: bool = False) -> None:
        chosen = sorted((row for row in rows if row[fixed] == value), key=lambda row: row[x])
        points = Counter(name_of(row) for row in chosen)
        names = [name for name in sorted(points) if points[name] > 1]  # a single point is no curve
        if not names:
            return
        curves = {
            MEASURES[key].column: {
                name: tuple(zip(*(_point(row, x, key) for row in chosen if name_of(row) == name), strict=True))
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


def cost_table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Rows of several studies of samplers, by study, the cheapest first."""
    shown = [key for key in SHOWN if all(key in row for rows in found.values() for row in rows)]
    titles = ["", "scheduler", "steps", "guidance", "evaluations", *(MEASURES[key].column for key in shown)]
    lines = [
        [name, row["scheduler"], row["num_inference_steps"], guidance_in_words(row), row["evaluations"]]
        + [with_interval(row, key) for key in shown]
        for name, rows in found.items()
        for row in sorted(rows, key=lambda row: row["evaluations"])
    ]
    return markdown(titles, [[str(cell) for cell in line] for line in lines]) + "\n"


def cost_chart(found: dict[str, list[dict[str, Any]]], path: Path) -> Path:
    """Scores against evaluations of the network for an image, a curve for each study's schedulers and guidances."""
    curves: dict[str, dict[str, tuple[Any, ...]]] = {}
    for key in ("frechet_distance", "class_accuracy"):
        of_each: dict[str, list[tuple[float, ...]]] = {}
        for name, rows in found.items():
            several = len({(row["scheduler"], guidance_in_words(row)) for row in rows}) > 1
            for row in sorted((row for row in rows if key in row), key=lambda row: row["evaluations"]):
                said = f"{name}, {row['scheduler']}, guidance {guidance_in_words(row)}" if several else name
                of_each.setdefault(said, []).append(_point(row, "evaluations", key))
        if of_each:
            curves[MEASURES[key].column] = {said: tuple(zip(*points, strict=True)) for said, points in of_each.items()}
    return save_curves(curves, "evaluations of the network for an image", path, log_x=True)


def recipe_table(found: dict[str, dict[str, Any]], gains: dict[str, tuple[float, float]]) -> str:
    """Scores of each pipeline, and its denoising errors by noise level.

    Args:
        found: by pipeline, its row.
        gains: by pipeline, the difference of its Frechet distance to the first one's, and its interval.
    """
    distance, *others = (MEASURES[key].column for key in ("frechet_distance", "class_accuracy", "precision", "recall"))
    titles = ["", distance, "difference to the first", *others]
    lines = []
    for name, row in found.items():
        gain = f"{gains[name][0]:+.2f} ± {gains[name][1]:.2f}" if name in gains else ""
        accuracy = f"{row['class_accuracy']:.1%}" if "class_accuracy" in row else ""
        distance = f"{row['frechet_distance']:.2f} ± {row['frechet_distance_interval']:.2f}"
        lines.append([name, distance, gain, accuracy, f"{row['precision']:.2f}", f"{row['recall']:.2f}"])
    errors = [[name, *(f"{error:.5f}" for error in row["error_class"])] for name, row in found.items()]
    row = next(iter(found.values()))
    note = (
        f"n = {row['n']:,}, seed {row['seed']}, against {row['data']}, {row['split']}; intervals of 95 % by resampling "
        f"the images. Below, the mean squared error of {row['denoised']:,} denoised images in [-1, 1] whose class is "
        f"told, by sigma."
    )
    return f"{markdown(titles, lines)}\n\n{note}\n\n{markdown(['', *SIGMAS], errors)}\n"


def recipe_chart(found: dict[str, dict[str, Any]], path: Path) -> Path:
    """The denoising errors against sigma, as multiples of those of the first pipeline."""
    first = next(iter(found))
    curves = {
        f"squared error, {told} known": {
            name: (SIGMAS, [e / b for e, b in zip(row[key], found[first][key], strict=True)])
            for name, row in found.items()
        }
        for told, key in (("class", "error_class"), ("no class", "error_null"))
    }
    return save_curves(curves, f"sigma; errors as multiples of those of {first}", path, log_x=True)
