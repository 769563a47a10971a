"""Pictures of latent spaces: where images land in them, and what their points decode to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from triptych.figures.images import save, show


def save_latent_space(
    points: np.ndarray, labels: np.ndarray, names: Sequence[str], axes: tuple[str, str], title: str, path: Path
) -> Path:
    """Points of the latent space coloured by class.

    Args:
        points: (N, 2).
        labels: (N,), 0 to len(names) - 1.
        names: of the classes.
        axes: names of the two axes.
        title: what is shown, and how many.
        path: the PNG to write.
    """
    figure, axis = plt.subplots(figsize=(6.6, 5.6), layout="constrained")
    handles = scatter_classes(axis, points, labels, names)
    axis.set(xlabel=axes[0], ylabel=axes[1], title=title)
    if axes[0].startswith("z"):
        axis.set_aspect("equal", adjustable="datalim")
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return save(figure, path)


def scatter_classes(axis: plt.Axes, points: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list:
    """Draw (N, 2) points coloured by their labels, (N,); returns the legend's entries."""
    colours = plt.get_cmap("tab10" if len(names) <= 10 else "tab20")
    order = np.random.default_rng(0).permutation(len(points))  # no class is painted over the others
    size = float(np.clip(6000 / len(points), 4, 20))
    axis.scatter(*points[order].T, c=colours(labels[order] % colours.N), s=size, alpha=0.7, linewidths=0)
    axis.grid(alpha=0.2)
    return [
        plt.Line2D([], [], marker="o", linestyle="", markersize=5, color=colours(i % colours.N), label=name)
        for i, name in enumerate(names)
    ]


def save_latent_planes(
    models: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    labels: np.ndarray,
    names: Sequence[str],
    path: Path,
) -> Path:
    """Models with two latent variables side by side: where images land, the decoded plane, samples of the prior.

    Args:
        models: by title: latent points (N, 2); the plane decoded at quantiles of the prior, (rows, columns, H, W, C);
            images decoded from samples of the prior, (rows, columns, H, W, C).
        labels: class of each point, (N,).
        names: of the classes.
        path: the PNG to write.
    """
    figure, axes = plt.subplots(
        3, len(models), figsize=(4.6 * len(models) + 0.8, 12), layout="constrained", squeeze=False
    )
    circle = 2.4477 * np.exp(1j * np.linspace(0, 2 * np.pi, 200))  # holds 95 % of a standard normal in the plane
    for (top, middle, bottom), (title, (points, plane, drawn)) in zip(axes.T, models.items(), strict=True):
        handles = scatter_classes(top, points, labels, names)
        handles.append(*top.plot(circle.real, circle.imag, color="black", linewidth=1.2, label="95 % of\nthe prior"))
        top.set_aspect("equal", adjustable="datalim")
        top.set(xlabel="z1", ylabel="z2", title=title)
        for axis, tiles, what in ((middle, plane, "decoded at quantiles of N(0, I)"), (bottom, drawn, "z ~ N(0, I)")):
            show(axis, np.concatenate(np.concatenate(tiles, axis=1), axis=1))  # (rows H, columns W, C)
            axis.set_title(what, fontsize=10)
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return save(figure, path)
