"""Pictures of networks, drawn from what flows through them, so that they cannot differ from the code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import FancyArrowPatch, Rectangle

from triptych.figures.images import save
from triptych.figures.palette import COLOURS

PICTURE, ATTENTION, VECTOR, JOINT = COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[3]


@dataclass
class Stage:
    """Layers one after another whose answers have the same shape.

    Attributes:
        shape: (C, H, W), or (D,) for vectors.
        num_parameters: of those layers.
        attention: whether attention is among them.
    """

    shape: tuple[int, ...]
    num_parameters: int = 0
    attention: bool = False


@torch.no_grad()
def trace(network: torch.nn.Module, *inputs: Any, vectors: bool = True, **named: Any) -> list[Stage]:
    """Call `network` once, and write down the shapes that its layers answer with.

    Args:
        network: any module.
        inputs, named: what it is called with, a batch of one.
        vectors: whether vectors are stages too. In a U-Net they are embeddings beside the way of the image.

    Returns:
        The stages in the order they are passed, the first being the first input.
    """
    stages = [Stage(tuple(inputs[0].shape[1:]))]
    of_attention = [name for name, module in network.named_modules() if hasattr(module, "to_q")]

    def note(name: str, layer: torch.nn.Module, answer: Any) -> None:
        inside = any(name.startswith(f"{attention}.") for attention in of_attention)
        counted = sum(p.numel() for p in layer.parameters())
        # layers without matrices keep the shape they are given, which may be two pictures joined for the next layer
        maps = any(p.dim() > 1 for p in layer.parameters())
        is_stage = maps and (answer.dim() == 4 or (answer.dim() == 2 and vectors))
        if is_stage and not inside and tuple(answer.shape[1:]) != stages[-1].shape:
            stages.append(Stage(tuple(answer.shape[1:])))
        stages[-1].num_parameters += counted
        stages[-1].attention |= inside

    leaves = [  # a layer whose weights are computed from others (spectral norm) holds those in a part of that name
        (name, module)
        for name, module in network.named_modules()
        if {child for child, _ in module.named_children()} <= {"parametrizations"} and "parametrizations" not in name
    ]
    hooks = [
        layer.register_forward_hook(lambda module, _, answer, name=name: note(name, module, answer))
        for name, layer in leaves
    ]
    try:
        network(*inputs, **named)
    finally:
        for hook in hooks:
            hook.remove()
    return stages


def save_networks(networks: dict[str, tuple[Sequence[Stage], bool]], path: Path) -> Path:
    """Networks below each other, their stages as boxes: as high as the picture, as wide as there are channels.

    Args:
        networks: by title: the stages, and whether what is on the way down is joined to what is at the same height on
            the way up (a U-Net).
        path: the picture to write.
    """
    figure, axes = plt.subplots(
        len(networks), 1, figsize=(10.5, 2.1 * len(networks) + 0.4), layout="constrained", squeeze=False
    )
    for axis, (title, (stages, joined)) in zip(axes[:, 0], networks.items(), strict=True):
        count = sum(stage.num_parameters for stage in stages)
        axis.set_title(f"{title}: {count:,} parameters", fontsize=11, loc="left")
        _draw(axis, stages, joined)
    widest = max(axis.get_xlim()[1] for axis in axes.flat)
    for axis in axes.flat:
        axis.set_xlim(-0.1, widest)
    kinds = {"pictures (channels, height x width)": PICTURE, "with attention": ATTENTION, "vectors": VECTOR}
    handles = [Rectangle((0, 0), 1, 1, facecolor=c, alpha=0.35, edgecolor=c, label=name) for name, c in kinds.items()]
    handles.append(plt.Line2D([], [], linestyle=":", color=JOINT, label="joined again on the way up"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return save(figure, path)


def _draw(axis: plt.Axes, stages: Sequence[Stage], joined: bool) -> None:
    tallest = max(stage.shape[-1] for stage in stages if len(stage.shape) == 3)
    x, boxes = 0.0, []
    for stage in stages:
        is_picture = len(stage.shape) == 3
        width = 0.12 + 0.06 * np.log2(stage.shape[0]) if is_picture else 0.12
        height = 0.2 + 0.8 * stage.shape[-1] / tallest if is_picture else 0.2 + 0.08 * np.log2(stage.shape[0])
        colour = ATTENTION if stage.attention else PICTURE if is_picture else VECTOR
        axis.add_patch(Rectangle((x, -height / 2), width, height, facecolor=colour, alpha=0.35, edgecolor=colour))
        said = f"{stage.shape[0]}\n{stage.shape[1]} x {stage.shape[2]}" if is_picture else f"{stage.shape[0]}"
        axis.text(x + width / 2, -0.55, said, ha="center", va="top", fontsize=9, linespacing=1.3)
        boxes.append((x, x + width, height))
        x += width + max(0.34, 0.86 - width)
    arrow = {"arrowstyle": "-|>", "mutation_scale": 8, "shrinkA": 1, "shrinkB": 1}
    for (_, right, _), (left, _, _) in pairwise(boxes):
        axis.add_patch(FancyArrowPatch((right, 0), (left, 0), color="0.3", **arrow))
    for start, end in _joined(stages) if joined else ():
        (a, b, height), (c, d, _) = boxes[start], boxes[end]
        ends = [((a + b) / 2, height / 2), ((c + d) / 2, height / 2)]
        # the flatter the longer: all rise by the same
        bend = f"arc3,rad={-0.9 * (0.72 - height / 2) / (ends[1][0] - ends[0][0]):.3f}"
        axis.add_patch(FancyArrowPatch(*ends, connectionstyle=bend, linestyle=":", color=JOINT, linewidth=1.4, **arrow))
    axis.set(xlim=(-0.1, x), ylim=(-0.95, 0.75))
    axis.set_axis_off()


def _joined(stages: Sequence[Stage]) -> list[tuple[int, int]]:
    """For each height on the way down, the last stage there, and the first one on the way up."""
    heights = [stage.shape[-1] if len(stage.shape) == 3 else 0 for stage in stages]
    bottom = heights.index(min(heights))
    pairs = []
    for height in sorted(set(heights[1:bottom]), reverse=True):
        down = max(i for i in range(1, bottom) if heights[i] == height)
        up = [i for i in range(bottom, len(heights)) if heights[i] == height]
        if up:
            pairs.append((down, up[0]))
    return pairs
