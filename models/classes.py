"""The classes of a class-conditional pipeline: their names, and their ids by name.

Saved in the file of every pipeline that imports it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import UNet2DModel

from .arguments import class_ids


class NamedClasses:
    """A base to name before `DiffusionPipeline`, for a pipeline that keeps ``id2label`` in its config."""

    @staticmethod
    def checked_names(unet: UNet2DModel, id2label: dict | None) -> dict[str, str]:
        """``id2label`` as a config holds it: keys are strings, which is what JSON makes of them; ids if None.

        Raises:
            ValueError: not all of the network's classes are named, or others are.
        """
        num_classes = unet.config.num_class_embeds - 1
        names = {str(k): str(v) for k, v in (id2label or {i: i for i in range(num_classes)}).items()}
        if sorted(map(int, names)) != list(range(num_classes)):
            raise ValueError(
                f"id2label must name the classes 0..{num_classes - 1} (num_class_embeds - 1 = {num_classes}; the last "
                f"embedding is the null class), but it names {sorted(map(int, names))}."
            )
        return names

    @property
    def class_names(self) -> list[str]:
        """Names by class id."""
        return [self.config.id2label[str(i)] for i in range(len(self.config.id2label))]

    def class_ids(self, classes: str | int | Sequence[str | int | None] | torch.Tensor | None) -> list[int]:
        """Ids of classes given by name, by id, or as a list of either; None is the null class: none in particular.

        Raises:
            ValueError: a class doesn't exist; the message lists those that do.
        """
        return class_ids(classes, self.class_names)
