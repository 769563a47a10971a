"""Charts of measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogFormatter, MaxNLocator

from triptych.figures.images import save, show


def save_schedules(alphas_cumprod: dict[str, np.ndarray], timesteps: Sequence[int], path: Path) -> Path:
    """Signal left (alpha_bar) and signal-to-noise ratio in dB against t, a curve per schedule; marks at `timesteps`."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, alpha_bar in alphas_cumprod.items():
        with np.errstate(divide="ignore"):
            snr_db = 10 * np.log10(alpha_bar / (1 - alpha_bar))
        snr_db[~np.isfinite(snr_db)] = np.nan
        for axis, values in zip(axes, (alpha_bar, snr_db), strict=True):
            axis.plot(values, label=name, marker="o", markersize=3, markevery=list(timesteps), linewidth=1.4)
    axes[0].set(xlabel="t", ylabel="alpha_bar", title="Share of the image's variance left")
    axes[1].set(xlabel="t", ylabel="SNR in dB", title="Signal-to-noise ratio", ylim=(-60, 45))
    axes[1].axhline(0, color="0.7", linewidth=0.8, zorder=0)
    for axis in axes:
        axis.grid(alpha=0.25)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(alphas_cumprod), frameon=False
    )
    return save(figure, path)


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


def save_curves(
    curves: dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]],
    xlabel: str,
    path: Path,
    ylabel: str = "",
    log_x: bool = False,
) -> Path:
    """Each quantity in a panel of its own, with a curve for each run.

    Args:
        curves: by quantity, then by run: (x, y).
        xlabel, ylabel: what x and y are.
        path: the PNG to write.
        log_x: logarithmic x.
    """
    width = 6.4 if len(curves) == 1 else 3.6 * len(curves)
    figure, axes = plt.subplots(1, len(curves), figsize=(width, 3.6), layout="constrained", squeeze=False)
    for axis, (quantity, runs) in zip(axes[0], curves.items(), strict=True):
        for name, (x, y) in runs.items():
            axis.plot(x, y, label=name, linewidth=1.4, marker="o" if len(x) < 40 else None, markersize=3)
        axis.set(xlabel=xlabel, title=quantity)
        long = any(len(x) >= 40 for x, _ in runs.values())
        if log_x:
            axis.set_xscale("log")
        if log_x and not long:  # a few settings: each is a tick
            ticks = sorted({value for x, _ in runs.values() for value in x})
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
        values = np.concatenate([y for _, y in runs.values()])
        # The first of many steps would flatten all that follows.
        low, high = np.quantile(values, [0, 0.97 if long else 1])
        axis.set_ylim(low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9)
        axis.grid(alpha=0.25)
    axes[0][0].set_ylabel(ylabel)
    named = {label: line for axis in axes[0] for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside lower center", ncols=min(3, len(named)), frameon=False)
    return save(figure, path)


class PlainLogFormatter(LogFormatter):
    """Ticks of a logarithmic axis as 0.2, not 2 x 10^-1."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of `x`, none where there is no room."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def save_tradeoff(
    points: dict[str, dict[str, tuple[float, float]]], xlabel: str, ylabel: str, path: Path, log_x: bool = False
) -> Path:
    """One score against another, as distortion against perception (Blau & Michaeli 2018), a panel for each level.

    Args:
        points: by level, then by method, every one a named dot: (x, y).
        xlabel, ylabel: what x and y are.
        path: the PNG to write.
        log_x: x spans orders of magnitude, as y does.
    """
    figure, axes = plt.subplots(1, len(points), figsize=(4.2 * len(points), 3.8), layout="constrained", squeeze=False)
    names = list(dict.fromkeys(name for methods in points.values() for name in methods))  # a level may lack some
    dots = {}
    for axis, (level, methods) in zip(axes[0], points.items(), strict=True):
        for name, (x, y) in methods.items():
            dots[name] = axis.scatter(x, y, s=36, color=f"C{names.index(name) % 10}", zorder=3)
        axis.set(xlabel=xlabel, title=level, xscale="log" if log_x else "linear", yscale="log")
        for ticks in (axis.xaxis, axis.yaxis) if log_x else (axis.yaxis,):
            ticks.set_major_formatter(PlainLogFormatter())
            ticks.set_minor_formatter(PlainLogFormatter(minor_thresholds=(2, 0.5)))
        axis.grid(alpha=0.25, which="both")
    axes[0][0].set_ylabel(ylabel)
    figure.legend(dots.values(), dots, loc="outside lower center", ncols=min(5, len(dots)), frameon=False)
    return save(figure, path)


def save_bars(scores: dict[str, dict[str, float]], title: str, path: Path) -> Path:
    """Each score in a panel of its own, a horizontal bar for each of what is compared.

    Args:
        scores: by score, then by what is compared.
        title: of the figure.
        path: the PNG to write.
    """
    rows = len(next(iter(scores.values())))
    size = (2.2 + 2.4 * len(scores), 1.2 + 0.3 * rows)
    figure, axes = plt.subplots(1, len(scores), figsize=size, layout="constrained", squeeze=False, sharey=True)
    for axis, (name, values) in zip(axes[0], scores.items(), strict=True):
        axis.barh(list(values), list(values.values()), color=[f"C{i % 10}" for i in range(rows)])
        axis.set_title(name, fontsize=9)
        axis.grid(alpha=0.25, axis="x")
    axes[0][0].invert_yaxis()
    figure.suptitle(title, fontsize=10)
    return save(figure, path)


def save_by_class(
    values: dict[str, Sequence[float]], class_names: Sequence[str], ylabel: str, title: str, path: Path
) -> Path:
    """A dot for each class and method.

    Args:
        values: by method, one for each class.
        class_names: names of the classes.
        ylabel: what the values are.
        title: of the chart.
        path: the PNG to write.
    """
    figure, axis = plt.subplots(figsize=(1.6 + 0.75 * len(class_names), 4), layout="constrained")
    for name, of_classes in values.items():
        axis.plot(range(len(class_names)), of_classes, "o-", linewidth=0.6, markersize=5, label=name)
    axis.set_xticks(range(len(class_names)), class_names, rotation=30, ha="right")
    axis.set(ylabel=ylabel, title=title)
    axis.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=min(5, len(values)), frameon=False)
    return save(figure, path)


def save_comparison(scores: dict[str, dict[int, list[float]]], xlabel: str, path: Path) -> Path:
    """Each score in a panel of its own: every run a dot, the mean over seeds a line; x is what is compared."""
    columns = min(3, len(scores))
    rows = -(-len(scores) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 2.7 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(scores) :]:
        axis.set_visible(False)
    for axis, (title, values) in zip(axes.flat, scores.items(), strict=False):
        places = range(len(values))
        axis.plot(places, [np.mean(v) for v in values.values()], color="0.6", linewidth=1, marker="_", markersize=16)
        for place, seeds in zip(places, values.values(), strict=True):
            axis.scatter([place] * len(seeds), seeds, s=18, zorder=3)
        axis.set_xticks(places, [str(key) for key in values])
        if all(isinstance(value, int) for seeds in values.values() for value in seeds):  # counts
            axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(xlabel=xlabel, title=title, xlim=(-0.5, len(values) - 0.5))
        axis.title.set_fontsize(9)
        axis.grid(alpha=0.25)
    return save(figure, path)
