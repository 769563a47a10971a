"""What every command can be told: the data and its noise; settings on disk.

Defaults and their reasons are here, experiments in ``configs/*.yaml``. Everything can be overridden from the command
line by its dotted name (``--optimizer.lr 1e-4``); unknown or ill-typed keys are refused before any work begins.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from triptych.errors import check


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from and how they are read."""

    path: str = "digits"
    """What to read: "digits" (embedded), a Hub id ("uoft-cs/cifar10"), a local dataset or image folder, or a .zip of
    images."""

    split: str = "train"
    """Of a folder or zip: its folders train, validation and test at the top; without them, all is "train"."""

    image_column: str | None = None
    """Column of the images; null = found by its type, or called "image" or "img"."""

    label_column: str | None = None
    """Column of the classes; null = the one called "label" or "cls"."""

    channels: Literal[1, 3] | None = None
    """1 (grey) or 3 (RGB); null = 3 if any image has colours."""

    image_size: int | None = None
    """Side in pixels to which images are resized; null = refuse images that are not square and all alike."""

    on_corrupt: Literal["refuse", "skip"] = "refuse"
    """A file that cannot be decoded: name it and stop, or name it, count it and go on without it."""

    memory_limit_mb: int = 2048
    """Decoded sets up to this size are held in memory as uint8; larger ones are decoded as they stream."""

    num_workers: int = 0
    """Loader processes; 0 is best for sets held in memory."""

    def __post_init__(self) -> None:
        check(self.image_size is None or self.image_size >= 4, "data.image_size must be at least 4")
        check(self.num_workers >= 0, "data.num_workers must be 0 or more")
        check(self.memory_limit_mb >= 0, "data.memory_limit_mb must be 0 or more")


@dataclass(frozen=True)
class NoiseConfig:
    """How clean images are degraded (``triptych/data/degradations.py``).

    Each level is a range, drawn from anew for every image.
    """

    kinds: tuple[Literal["gaussian", "poisson", "salt_and_pepper", "speckle"], ...] = ("gaussian",)
    """gaussian, poisson, salt_and_pepper, speckle; two or more, such as [poisson, gaussian], follow each other."""

    sigma: tuple[float, float] = (25.0, 25.0)
    """Standard deviation of the Gaussian noise, on the scale of 0 to 255: [low, high]."""

    peak: tuple[float, float] = (30.0, 30.0)
    """Photons that a white pixel receives under Poisson noise, fewer are noisier: [low, high]."""

    amount: tuple[float, float] = (0.1, 0.1)
    """Fraction of pixels that salt and pepper makes white or black: [low, high]."""

    speckle: tuple[float, float] = (0.3, 0.3)
    """Standard deviation of the factor of speckle noise: [low, high]."""

    clip: bool = False
    """Clip to [0, 255] and round, as saving to a file does; false keeps Gaussian noise Gaussian."""

    def __post_init__(self) -> None:
        check(len(self.kinds) >= 1, "noise.kinds needs at least one kind")
        bounds = {"sigma": (0, 255), "peak": (0.1, 1e6), "amount": (0, 1), "speckle": (0, 10)}
        for name, (least, most) in bounds.items():
            low, high = getattr(self, name)
            check(
                least <= low <= high <= most,
                f"noise.{name} must be a range [low, high] within [{least}, {most:g}], not [{low:g}, {high:g}]",
            )

    def describe(self) -> str:
        """For people: "gaussian (sigma 0-55)", the kinds in their order."""
        levels = {"gaussian": "sigma", "poisson": "peak", "salt_and_pepper": "amount", "speckle": "speckle"}

        def level(name: str) -> str:
            low, high = getattr(self, name)
            return f"{name} {low:g}" if low == high else f"{name} {low:g}-{high:g}"

        return ", then ".join(f"{kind} ({level(levels[kind])})" for kind in self.kinds) + (
            ", in 8 bits" if self.clip else ""
        )


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain nested dicts and lists, ready for YAML; what ``--config`` reads back."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return plain(dataclasses.asdict(config))


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings of a saved ``config.yaml``."""
    return yaml.safe_load(path.read_text())


def write_yaml(config: Any, path: Path) -> None:
    """Save a config dataclass as YAML, in the order of its fields, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
    partial.replace(path)
