"""Charts of measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter, LogFormatter, MaxNLocator

from triptych.figures.images import save
from triptych.figures.palette import COLOURS, in_words, look_of

Score = float | tuple[float, float]  # a number, or a number and half its 95 % confidence interval


def save_schedules(alphas_cumprod: dict[str, np.ndarray], timesteps: Sequence[int], path: Path) -> Path:
    """Signal left (alpha_bar) and signal-to-noise ratio in dB against t, a curve per schedule; marks at `timesteps`."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    looks = look_of(alphas_cumprod)
    for name, alpha_bar in alphas_cumprod.items():
        with np.errstate(divide="ignore"):
            snr_db = 10 * np.log10(alpha_bar / (1 - alpha_bar))
        snr_db[~np.isfinite(snr_db)] = np.nan
        for axis, values in zip(axes, (alpha_bar, snr_db), strict=True):
            axis.plot(values, **looks[name], markersize=3, markevery=list(timesteps), linewidth=1.4)
    axes[0].set(xlabel="t", ylabel="alpha_bar", title="Share of the image's variance left")
    axes[1].set(xlabel="t", ylabel="SNR in dB", title="Signal-to-noise ratio", ylim=(-60, 45))
    axes[1].axhline(0, color="0.7", linewidth=0.8, zorder=0)
    for axis in axes:
        axis.grid(alpha=0.25)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(alphas_cumprod), frameon=False
    )
    return save(figure, path)


def save_curves(
    curves: dict[str, dict[str, tuple[Sequence[float], ...]]],
    xlabel: str,
    path: Path,
    ylabel: str = "",
    log_x: bool = False,
) -> Path:
    """Each quantity in a panel of its own, with a curve for each run.

    Args:
        curves: by quantity, then by run: (x, y), or (x, y, half the interval of y), which is drawn around y.
        xlabel, ylabel: what x and y are.
        path: the picture to write.
        log_x: logarithmic x.
    """
    width = 6.4 if len(curves) == 1 else 3.6 * len(curves)
    figure, axes = plt.subplots(1, len(curves), figsize=(width, 3.6), layout="constrained", squeeze=False)
    looks = look_of(dict.fromkeys(name for runs in curves.values() for name in runs))
    drawn: dict[str, plt.Line2D] = {}
    for axis, (quantity, runs) in zip(axes[0], curves.items(), strict=True):
        for name, (x, y, *half) in runs.items():
            look = looks[name] | ({} if len(x) < 40 else {"marker": None})
            (drawn[name],) = axis.plot(x, y, **look, linewidth=1.4, markersize=3.5)
            if half:
                low, high = np.subtract(y, half[0]), np.add(y, half[0])
                if len(x) < 40:
                    axis.vlines(x, low, high, color=look["color"], linewidth=0.9, zorder=1.5)
                else:
                    axis.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)
        axis.set(xlabel=xlabel, title=in_words(quantity))
        long = any(len(x) >= 40 for x, *_ in runs.values())
        if log_x:
            axis.set_xscale("log")
        if log_x and not long:  # a few settings: each is a tick
            ticks = sorted({value for x, *_ in runs.values() for value in x})
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
        if not log_x and max(max(x) for x, *_ in runs.values()) >= 10_000:
            axis.xaxis.set_major_formatter(EngFormatter())  # 800 k, 1.5 M: the zeros of millions run together
        values = np.concatenate([y for _, y, *_ in runs.values()])
        # The first of many steps would flatten all that follows.
        low, high = np.quantile(values, [0, 0.97 if long else 1])
        if not long:
            ends = [np.add(y, sign * np.asarray(h[0])) for _, y, *h in runs.values() if h for sign in (-1, 1)]
            low, high = min([low, *map(np.min, ends)]), max([high, *map(np.max, ends)])
        axis.set_ylim(low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9)
        axis.grid(alpha=0.25)
    axes[0][0].set_ylabel(ylabel)
    names = [looks[name]["label"] for name in drawn]
    figure.legend(drawn.values(), names, loc="outside lower center", ncols=min(3, len(drawn)), frameon=False)
    return save(figure, path)


class PlainLogFormatter(LogFormatter):
    """Ticks of a logarithmic axis as 0.2, not 2 x 10^-1."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of `x`, none where there is no room."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def save_tradeoff(
    points: dict[str, dict[str, tuple[float, Score]]], xlabel: str, ylabel: str, path: Path, log_x: bool = False
) -> Path:
    """One score against another, as distortion against perception (Blau & Michaeli 2018), a panel for each level.

    Args:
        points: by level, then by method, every one a named dot: (x, y), y with or without its interval.
        xlabel, ylabel: what x and y are.
        path: the picture to write.
        log_x: x spans orders of magnitude, as y does.
    """
    figure, axes = plt.subplots(1, len(points), figsize=(4.2 * len(points), 3.8), layout="constrained", squeeze=False)
    looks = look_of(dict.fromkeys(name for methods in points.values() for name in methods))  # a level may lack some
    dots = {}
    for axis, (level, methods) in zip(axes[0], points.items(), strict=True):
        for name, (x, score) in methods.items():
            y, half = _parts(score)
            dots[name] = _dot(axis, x, y, half, looks[name])
        axis.set(xlabel=xlabel, title=level, xscale="log" if log_x else "linear", yscale="log")
        for ticks in (axis.xaxis, axis.yaxis) if log_x else (axis.yaxis,):
            ticks.set_major_formatter(PlainLogFormatter())
            ticks.set_minor_formatter(PlainLogFormatter(minor_thresholds=(2, 0.5)))
        axis.grid(alpha=0.25, which="both")
    axes[0][0].set_ylabel(ylabel)
    names = [looks[name]["label"] for name in dots]
    figure.legend(dots.values(), names, loc="outside lower center", ncols=min(5, len(dots)), frameon=False)
    return save(figure, path)


def _parts(score: Score) -> tuple[float, float]:
    """A score and half its interval, 0 where it has none."""
    return score if isinstance(score, tuple) else (score, 0.0)


def _dot(axis: plt.Axes, x: float, y: float, half: float, look: dict[str, Any]) -> plt.Line2D:
    """A mark at (x, y) with its interval; returns the mark, for the legend."""
    if half:
        axis.vlines(x, y - half, y + half, color=look["color"], linewidth=1, zorder=1.5)
    marker = {key: look[key] for key in ("color", "marker", "markerfacecolor")}
    return axis.plot(x, y, **marker, linestyle="", markersize=5.5, zorder=3)[0]


def save_bars(scores: dict[str, dict[str, Score]], title: str, path: Path) -> Path:
    """Each score in a panel of its own, a horizontal bar for each of what is compared, the first in another colour.

    Args:
        scores: by score, then by what is compared, with or without intervals.
        title: of the figure.
        path: the picture to write.
    """
    rows = len(next(iter(scores.values())))
    size = (2.2 + 2.4 * len(scores), 1.2 + 0.3 * rows)
    figure, axes = plt.subplots(1, len(scores), figsize=size, layout="constrained", squeeze=False, sharey=True)
    for axis, (name, of_all) in zip(axes[0], scores.items(), strict=True):
        values, halves = zip(*map(_parts, of_all.values()), strict=True)
        colours = [COLOURS[1], *[COLOURS[0]] * (rows - 1)]
        error = {"xerr": halves, "error_kw": {"linewidth": 1}} if any(halves) else {}
        axis.barh([in_words(one) for one in of_all], values, color=colours, **error)
        axis.set_title(name, fontsize=9)
        axis.grid(alpha=0.25, axis="x")
    axes[0][0].invert_yaxis()
    figure.suptitle(title, fontsize=10)
    return save(figure, path)


def save_by_class(
    values: dict[str, Sequence[Score]], class_names: Sequence[str], ylabel: str, title: str, path: Path
) -> Path:
    """A dot for each class and method, those of a class side by side.

    Args:
        values: by method, one for each class, with or without intervals.
        class_names: names of the classes.
        ylabel: what the values are.
        title: of the chart.
        path: the picture to write.
    """
    figure, axis = plt.subplots(figsize=(1.6 + 0.75 * len(class_names), 4), layout="constrained")
    looks, dots = look_of(values), []
    for place, (name, of_classes) in enumerate(values.items()):
        shift = 0.6 * ((place + 0.5) / len(values) - 0.5)
        for k, score in enumerate(of_classes):
            dot = _dot(axis, k + shift, *_parts(score), looks[name])
        dots.append(dot)
    axis.set_xticks(range(len(class_names)), class_names, rotation=30, ha="right")
    axis.set_xticks(np.arange(len(class_names) - 1) + 0.5, minor=True)
    axis.set(ylabel=ylabel, title=title, xlim=(-0.5, len(class_names) - 0.5))
    axis.grid(alpha=0.25, axis="y")
    axis.grid(alpha=0.25, axis="x", which="minor")
    axis.tick_params(which="minor", length=0)
    names = [look["label"] for look in looks.values()]
    figure.legend(dots, names, loc="outside lower center", ncols=min(5, len(values)), frameon=False)
    return save(figure, path)


def save_small_multiples(
    curves: dict[str, tuple[Sequence[float], ...]], xlabel: str, ylabel: str, path: Path, columns: int = 5
) -> Path:
    """A panel for each curve, with all the others in grey behind it: for more curves than one panel can tell apart.

    Args:
        curves: by title: (x, y), or (x, y, half the interval of y), which is drawn around y.
        xlabel, ylabel: what x and y are, the same in all panels.
        path: the picture to write.
        columns: panels beside each other.
    """
    columns = min(columns, len(curves))
    rows = -(-len(curves) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.1 * columns + 0.6, 2 * rows + 0.3), layout="constrained", squeeze=False, sharex=True,
        sharey=True,
    )  # fmt: skip
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    for axis, (title, (x, y, *half)) in zip(axes.flat, curves.items(), strict=False):
        for other, (other_x, other_y, *_) in curves.items():
            if other != title:
                axis.plot(other_x, other_y, color="0.85", linewidth=0.8, zorder=1)
        axis.plot(x, y, color=COLOURS[0], marker="o", markersize=3, linewidth=1.4, zorder=3)
        if half:
            axis.vlines(x, np.subtract(y, half[0]), np.add(y, half[0]), color=COLOURS[0], linewidth=0.9, zorder=2)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.25)
    figure.supxlabel(xlabel, fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    return save(figure, path)


def save_comparison(scores: dict[str, dict[int, list[float]]], xlabel: str, path: Path) -> Path:
    """Each score in a panel of its own: every run a dot, the mean over seeds a dash; x is what is compared."""
    columns = min(3, len(scores))
    rows = -(-len(scores) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 2.7 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(scores) :]:
        axis.set_visible(False)
    for axis, (title, values) in zip(axes.flat, scores.items(), strict=False):
        places = range(len(values))
        means = [np.mean(v) for v in values.values()]
        axis.plot(places, means, color=COLOURS[1], linestyle="", marker="_", markersize=22, markeredgewidth=1.6)
        for place, seeds in zip(places, values.values(), strict=True):
            axis.scatter([place] * len(seeds), seeds, s=18, zorder=3, color=COLOURS[0])
        axis.set_xticks(places, [str(key) for key in values])
        if all(isinstance(value, int) for seeds in values.values() for value in seeds):  # counts
            axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(xlabel=xlabel, title=title, xlim=(-0.5, len(values) - 0.5))
        axis.title.set_fontsize(9)
        axis.grid(alpha=0.25)
    return save(figure, path)
