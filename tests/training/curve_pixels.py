"""How much of a curve a picture shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from triptych.figures.palette import COLOURS


def curve_pixels(path: Path, colour: str = COLOURS[0]) -> int:
    """How much of a picture is of a curve's own colour."""
    wanted = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return int((np.abs(np.asarray(Image.open(path).convert("RGB")).astype(int) - wanted).max(-1) < 40).sum())
