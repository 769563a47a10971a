"""How images are changed while a classifier learns from them: the draws of a step, and what they do."""

from __future__ import annotations

import torch

from triptych.config.classifier import ClassifierConfig
from triptych.data.augmentation import cut_out, flip_horizontally, shift_with_reflection
from triptych.training.run import Run


def augment(x: torch.Tensor, run: Run, config: ClassifierConfig) -> torch.Tensor:
    """Flip, shift and cut out at random; the draws are those of this step, whoever shares it: (B, C, H, W)."""
    size, side = len(x), x.shape[-1]
    if config.horizontal_flip:
        x = flip_horizontally(x, run.rand(size) < 0.5)
    if config.max_shift:
        down, right = (run.randint(2 * config.max_shift + 1, size) - config.max_shift for _ in range(2))
        x = shift_with_reflection(x, down, right, config.max_shift)
    if config.cutout and run.update < config.num_updates - config.num_refining_updates:
        top, left = (run.randint(side, size) - config.cutout // 2 for _ in range(2))
        x = cut_out(x, top, left, config.cutout)
    return x
