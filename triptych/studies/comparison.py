"""Restorers compared: means with confidence intervals, differences between methods, tables and charts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from triptych.evaluation.statistics import mean_and_interval, with_intervals
from triptych.figures.charts import save_by_class, save_curves, save_tradeoff
from triptych.figures.tables import markdown, with_interval
from triptych.measures import MEASURES

SHOWN = ("psnr", "ssim", "perceptual_distance", "frechet_distance")
REFERENCE = "BM3D"  # what every network is compared with, image by image


def summarize_each(folder: Path, name: str, each: dict[str, Sequence[float]]) -> dict[str, Any]:
    """Keep each image's scores, and its label, in ``folder/each/<name>.npz``.

    Args:
        folder: where the measurements are.
        name: the measurement's own, so that none overwrites another's.
        each: by score, one for each image; "labels" are kept beside them.

    Returns:
        Means and confidence intervals of the scores, and where they are kept.
    """
    path = folder / "each" / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{key: np.asarray(values) for key, values in each.items()})
    scores = {key: values for key, values in each.items() if key != "labels"}
    return {"each": str(path.relative_to(folder)), **with_intervals(scores)}


def report(
    found: dict[str, dict[str, dict[str, Any]]], class_names: list[str] | None, folder: Path
) -> list[str | Path]:
    """Write table.md and the charts of what has been measured.

    Args:
        found: rows by level, then by method, in the order they are shown.
        class_names: names of the classes, if there are any.
        folder: where everything is.

    Returns:
        The table, and the paths of all files.
    """
    each = {level: {m: dict(np.load(folder / row["each"])) for m, row in r.items()} for level, r in found.items()}
    parts = []
    for level in found:
        parts += [f"### {level}", "", scores_table(found[level]), "", *differences(each[level])]
        if class_names:
            parts += ["PSNR in dB, by class:", "", class_table(each[level], class_names), ""]
    text = "\n".join(parts)
    (folder / "table.md").write_text(text)
    return [text, folder / "table.md", *charts(found, each, class_names, folder)]


def scores_table(rows: dict[str, dict[str, Any]]) -> str:
    """A row for each method: mean ± half the 95 % confidence interval over the images."""
    shown = [key for key in SHOWN if any(key in row for row in rows.values())]
    lines = []
    for method, row in rows.items():
        cells = [method, f"{row['n']:,}", *(with_interval(row, key) if key in row else "" for key in shown)]
        cells.append("" if method == "noisy" else f"{1000 * row['seconds_per_image']:.1f}")
        lines.append(cells)
    return markdown(["method", "n", *(MEASURES[key].column for key in shown), "ms an image"], lines)


def differences(each: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """How far the others are above the reference, on the images that both have restored."""
    if REFERENCE not in each:
        return []
    reference = each[REFERENCE]["psnr"]
    others = {}
    for method, scores in each.items():
        if method not in (REFERENCE, "noisy"):
            n = min(len(reference), len(scores["psnr"]))
            others[method] = mean_and_interval(scores["psnr"][:n] - reference[:n])
    if not others:
        return []
    listed = "; ".join(f"{method} {mean:+.2f} ± {interval:.2f}" for method, (mean, interval) in others.items())
    return [f"PSNR above {REFERENCE}, image by image on its {len(reference):,} images, in dB: {listed}.", ""]


def class_table(each: dict[str, dict[str, np.ndarray]], class_names: Sequence[str]) -> str:
    """Mean PSNR ± half the 95 % confidence interval of each class by each method."""
    lines = []
    for label, name in enumerate(class_names):
        cells = (by_class(scores).get(label) for scores in each.values())
        lines.append([name, *("" if cell is None else f"{cell[0]:.2f} ± {cell[1]:.2f}" for cell in cells)])
    return markdown(["class", *each], lines)


def by_class(scores: dict[str, np.ndarray]) -> dict[int, tuple[float, float]]:
    """Mean PSNR and half its 95 % confidence interval by label, of the labels that occur."""
    labels, values = scores["labels"], scores["psnr"]
    return {int(label): mean_and_interval(values[labels == label]) for label in np.unique(labels)}


def charts(found: dict, each: dict, class_names: list[str] | None, folder: Path) -> list[Path]:
    """PSNR and SSIM against the level, the tradeoff of distortion and perception, perception against time, PSNR by
    class: what there is."""
    made = []
    methods = list(dict.fromkeys(m for of_level in found.values() for m in of_level))
    counts = {m: max(rows[m]["n"] for rows in found.values() if m in rows) for m in methods}
    most = max(counts.values())
    titles = {m: m if counts[m] == most else f"{m} (n = {counts[m]:,})" for m in methods}
    sigmas = {level: float(level.removeprefix("sigma ")) for level in found if level.startswith("sigma ")}
    if len(sigmas) > 1:
        curves: dict[str, dict] = {}
        for key in ("psnr", "ssim"):
            for m in methods:
                rows = {
                    sigma: found[level][m]
                    for level, sigma in sorted(sigmas.items(), key=lambda s: s[1])
                    if m in found[level]
                }
                points = [(sigma, row[key], row.get(f"{key}_interval") or 0.0) for sigma, row in rows.items()]
                curves.setdefault(MEASURES[key].column, {})[titles[m]] = tuple(zip(*points, strict=True))
        made.append(save_curves(curves, "sigma of 255", folder / "levels.png"))
    # Without the noisy images, whose distance is so large that all other points would coincide, and without methods
    # that had fewer images: a Frechet distance grows as their number falls.
    perception = [
        {m: row for m, row in rows.items() if "frechet_distance" in row and m != "noisy" and row["n"] == most}
        for rows in found.values()
    ]
    if any(perception):
        for xlabel, file, log_x, x in (
            (MEASURES["psnr"].column, "tradeoff.png", False, lambda row: row["psnr"]),
            ("ms an image", "cost.png", True, lambda row: 1000 * row["seconds_per_image"]),
        ):
            points = {
                level: {m: (x(row), row["frechet_distance"]) for m, row in rows.items()}
                for level, rows in zip(found, perception, strict=True)
            }
            made.append(save_tradeoff(points, xlabel, MEASURES["frechet_distance"].column, folder / file, log_x))
    if class_names:
        middle = list(each)[len(each) // 2]
        nothing = (np.nan, 0.0)
        values = {
            titles[m]: [by_class(scores).get(k, nothing) for k in range(len(class_names))]
            for m, scores in each[middle].items()
        }
        made.append(save_by_class(values, class_names, MEASURES["psnr"].column, middle, folder / "classes.png"))
    return made
