"""Drawing from class-conditional pipelines."""

from __future__ import annotations

from triptych.cli import listed

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

from triptych.errors import UserError


def chosen_classes(pipeline: Any, classes: list[str | int] | str | None) -> list[int]:
    """Class ids from the command line: names or ids separated by commas, a list of them, or None for all.

    Raises:
        UserError: a class doesn't exist; the message lists those that do.
    """
    names = pipeline.class_names
    if classes is None:
        return list(range(len(names)))
    if isinstance(classes, str):
        classes = [classes] if classes in names else listed(classes)
    # "3" is a name where there is such a name (digits), an id otherwise.
    parts = [int(c) if isinstance(c, str) and c.isdigit() and c not in names else c for c in classes]
    try:
        return pipeline.class_ids(parts)
    except ValueError as error:
        raise UserError(str(error)) from None


def class_grid(pipeline: DiffusionPipeline, columns: int, seed: int) -> np.ndarray:
    """A row for each class, (classes, columns, H, W, C) in [0, 1]; a column's noise is the same in all rows, and for
    every network, so that grids can be compared."""
    pipeline.set_progress_bar_config(disable=True)
    names = pipeline.class_names
    generators = [torch.Generator().manual_seed(seed + k) for _ in names for k in range(columns)]
    pixels = pipeline(names, columns, generator=generators, output_type="np").images
    return pixels.reshape(len(names), columns, *pixels.shape[1:])


def evaluations_per_image(
    pipeline: DiffusionPipeline,
    num_inference_steps: int,
    guidance_scale: float,
    guidance_interval: Sequence[float] | None = None,
) -> int:
    """How often a network is asked for one image: once a step of the pipeline's scheduler, twice where it is guided.

    Args:
        pipeline: a class-conditional pipeline.
        num_inference_steps, guidance_scale, guidance_interval: of its call; an interval of None is everywhere.
    """
    scheduler = copy.deepcopy(pipeline.scheduler)
    scheduler.set_timesteps(num_inference_steps)
    low, high = guidance_interval or (0, math.inf)
    guided = 0 if guidance_scale == 1 else sum(low <= pipeline._sigma(t) <= high for t in scheduler.timesteps)
    return len(scheduler.timesteps) + guided
