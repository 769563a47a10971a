"""What a class-conditional pipeline draws, for people to look at."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import DiffusionPipeline


def class_grid(pipeline: DiffusionPipeline, columns: int, seed: int) -> np.ndarray:
    """A row for each class, (classes, columns, H, W, C) in [0, 1]; a column's noise is the same in all rows, and for
    every network, so that grids can be compared."""
    pipeline.set_progress_bar_config(disable=True)
    names = pipeline.class_names
    generators = [torch.Generator().manual_seed(seed + k) for _ in names for k in range(columns)]
    pixels = pipeline(names, columns, generator=generators, output_type="np").images
    return pixels.reshape(len(names), columns, *pixels.shape[1:])
