"""Lines of equal height of a function of the plane, as points: the report draws them in the language of its page."""

from __future__ import annotations

from collections.abc import Callable

import torch
from skimage.measure import find_contours

from triptych.losses.mixture import plane


def contours(
    height: Callable[[torch.Tensor], torch.Tensor], levels: list[float], half: float, n: int = 120
) -> list[dict]:
    """Where a function has the given heights.

    Args:
        height: (N, 2) -> (N,).
        levels: the heights.
        half: the square [-half, half]^2 is searched.
        n: cells of the grid along each side.

    Returns:
        For each level {"level": it, "lines": lists of points [x, y], rounded to a thousandth}.
    """
    x, _ = plane(half, n)
    values = height(x).reshape(n, n).numpy()

    def to_plane(line) -> torch.Tensor:  # (row, column) -> (x, y)
        return (torch.as_tensor(line.copy()).flip(1) + 0.5) / n * 2 * half - half

    return [
        {
            "level": level,
            "lines": [rounded(to_plane(line)[::2]) for line in find_contours(values, level) if len(line) > 5],
        }
        for level in levels
    ]


def rounded(points: torch.Tensor) -> list[list[float]]:
    """Rows of numbers, (N, D), rounded to a thousandth: finer than a pixel of any drawing, and short in a file."""
    return [[round(value, 3) for value in point] for point in points.tolist()]
