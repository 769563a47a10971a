"""Charts of what is lost or learnt at each noise level, for a page 16 cm wide with letters of 7 points or more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from triptych.figures.charts import PlainLogFormatter
from triptych.figures.images import save
from triptych.figures.palette import look_of

Curve = tuple[Sequence[float], Sequence[float], Sequence[float]]  # x, y, half the 95 % interval of y
PRINTED = {"font.size": 8, "axes.titlesize": 8, "legend.fontsize": 7.5, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5}


def save_terms(terms: dict[str, Curve], sums: dict[str, Curve], path: Path) -> Path:
    """The terms of a bound against the step, and their sum up to it; both axes of the first panel logarithmic.

    Args:
        terms: by name: steps counted from 1, bits per dimension of one step, half their intervals.
        sums: likewise the bits of all steps up to each.
        path: the picture to write.
    """
    with plt.rc_context(PRINTED):
        figure, axes = plt.subplots(1, 2, figsize=(6.3, 2.7), layout="constrained")
        for axis, curves in zip(axes, (terms, sums), strict=True):
            lines = _draw(axis, curves)
            axis.set(xscale="log", xlabel="step t, counted from 1")
            axis.xaxis.set_major_formatter(PlainLogFormatter())
            axis.grid(alpha=0.25)
        axes[0].set(yscale="log", ylabel="bits per dimension", title="what one step costs")
        axes[1].set(ylim=(0, None), title="what all steps up to t cost")
        figure.legend(lines.values(), lines, loc="outside lower center", ncols=len(lines), frameon=False)
        return save(figure, path)


def save_shares(shares: dict[str, Curve], marks: Sequence[float], path: Path) -> Path:
    """The share of each training objective that lies below a noise level.

    Args:
        shares: by objective: noise levels sigma, shares in [0, 1], half their intervals.
        marks: levels at which a thin line is drawn.
        path: the picture to write.
    """
    with plt.rc_context(PRINTED):
        figure, axis = plt.subplots(figsize=(6.3, 3.1), layout="constrained")
        percent = {name: (x, np.multiply(100, y), np.multiply(100, half)) for name, (x, y, half) in shares.items()}
        lines = _draw(axis, percent)
        for mark in marks:
            axis.axvline(mark, color="0.85", linewidth=0.7, zorder=0)
        lowest = min(x[0] for x, *_ in shares.values())
        axis.set(xscale="log", xlim=(lowest * 0.9, 100), ylim=(0, 100))
        axis.set(xlabel="noise level sigma, on images in [-1, 1]", ylabel="share of the objective below sigma, %")
        axis.xaxis.set_major_formatter(PlainLogFormatter())
        axis.grid(alpha=0.25, axis="y")
        figure.legend(lines.values(), lines, loc="outside lower center", ncols=3, frameon=False)
        return save(figure, path)


def _draw(axis: plt.Axes, curves: dict[str, Curve]) -> dict[str, plt.Line2D]:
    """Each curve with a band for its interval and marks at some points; the lines by what the legend says of them."""
    looks = look_of(curves)
    lines = {}
    for place, (name, (x, y, half)) in enumerate(curves.items()):
        look = dict(looks[name])
        label = look.pop("label")
        every = max(1, len(x) // 8)
        look |= {"markersize": 3.5, "markevery": (place * every // len(curves), every)}
        (lines[label],) = axis.plot(x, y, **look, linewidth=1.2)
        axis.fill_between(x, np.subtract(y, half), np.add(y, half), color=look["color"], alpha=0.2, linewidth=0)
    return lines
