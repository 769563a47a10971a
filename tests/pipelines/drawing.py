"""Drawing from a pipeline with a seed."""

from __future__ import annotations

import torch


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(s) for s in seeds]


def draw(pipeline, classes, seeds, **kwargs) -> torch.Tensor:
    return pipeline(classes, generator=seeded(*seeds), output_type="pt", **kwargs).images
