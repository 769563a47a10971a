"""Means and their confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % confidence interval (normal; 0 for a single value)."""
    values = np.asarray(values, dtype=np.float64)
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    return float(values.mean()), float(1.96 * spread / np.sqrt(len(values)))


def with_intervals(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Means by name, and half their 95 % confidence intervals as name_interval, as rows of results hold them."""
    found = {}
    for name, each in values.items():
        found[name], found[f"{name}_interval"] = mean_and_interval(each)
    return found


def binomial_interval(share: float, n: int) -> float:
    """Half the 95 % confidence interval of a share of `n` cases, by the normal approximation."""
    return 1.96 * (share * (1 - share) / n) ** 0.5


def ratio_and_interval(parts: Sequence[float], wholes: Sequence[float]) -> tuple[float, float]:
    """Sum of `parts` over sum of `wholes`, of the same items, and half the width of its 95 % confidence interval.

    By the delta method: to first order the ratio errs as the mean of parts - ratio * wholes does.
    """
    parts, wholes = (np.asarray(values, dtype=np.float64) for values in (parts, wholes))
    ratio = float(parts.sum() / wholes.sum())
    _, interval = mean_and_interval(parts - ratio * wholes)
    return ratio, interval / float(wholes.mean())
