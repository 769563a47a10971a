"""Checks of the arguments of the pipelines' calls: a ValueError names what is wrong and what to give instead.

Saved in the file of every pipeline that imports it.
"""

from __future__ import annotations

import functools
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Sequence

import torch


def also_called(**names: str) -> Callable:
    """Let a call take arguments by the names they have in diffusers' own pipelines: ``alias="name"``."""

    def decorate(call: Callable) -> Callable:
        @functools.wraps(call)
        def renamed(self, *args, **kwargs):
            for alias, name in names.items():
                if alias in kwargs:
                    if name in kwargs or name in inspect.signature(call).bind_partial(self, *args).arguments:
                        raise ValueError(f"{alias} is called {name} here, and both were given. Give {name} alone.")
                    kwargs[name] = kwargs.pop(alias)
            return call(self, *args, **kwargs)

        return renamed

    return decorate


def check_output_type(output_type: str) -> None:
    """Raise a ValueError unless it is "pil", "np" or "pt"."""
    if output_type not in ("pil", "np", "pt"):
        raise ValueError(f"output_type must be 'pil', 'np' or 'pt', not {output_type!r}.")


def at_least_1(name: str, value: object) -> int:
    """`value` as an int of 1 or more; or a ValueError that names it."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}.")
    return number


def finite(name: str, value: object) -> float:
    """`value` as a finite float; or a ValueError that names it."""
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, not {value!r}.")
    return number


def ends(interval: object) -> tuple[float, float]:
    """Both ends of a guidance interval, the upper of which may be infinite; or a ValueError."""
    try:
        low, high = (math.nan if isinstance(end, str) else float(end) for end in interval)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 <= low < high:
        raise ValueError(f"guidance_interval must be (low, high) with 0 <= low < high, not {interval!r}.")
    return low, high


def check_generators(generator: object, count: int) -> torch.Generator | list[torch.Generator] | None:
    """One generator or None as it is, several as a list of `count`; or a ValueError."""
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    listed = list(generator) if isinstance(generator, Sequence) else [generator]
    if not all(isinstance(each, torch.Generator) for each in listed):
        raise ValueError(f"generator must be a torch.Generator, or a list with one per image, not {generator!r}.")
    if len(listed) != count:
        raise ValueError(f"{len(listed)} generators were given for {count} images.")
    return listed


def check_floats(name: str, images: object, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless `images` is a tensor of this shape, of finite floats."""
    check_is_float(name, images)
    if tuple(images.shape) != tuple(shape):
        raise ValueError(f"{name} must have the shape {tuple(shape)}, not {tuple(images.shape)}.")
    check_is_finite(name, images)


def check_batch(name: str, batch: object, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless `batch` is a tensor (B, *shape) of finite floats, B at least 1."""
    check_is_float(name, batch)
    if tuple(batch.shape[1:]) != tuple(shape) or not len(batch):
        raise ValueError(f"{name} must be (B, {', '.join(map(str, shape))}), not {tuple(batch.shape)}.")
    check_is_finite(name, batch)


def check_is_float(name: str, value: object) -> None:
    """Raise a ValueError unless `value` is a tensor of floats."""
    if not torch.is_tensor(value) or not value.is_floating_point():
        kind = value.dtype if torch.is_tensor(value) else type(value).__name__
        raise ValueError(
            f"{name} must be a tensor of floats, not {kind}. Of 8-bit images it is `images.float() / 255`."
        )


def check_is_finite(name: str, value: torch.Tensor) -> None:
    """Raise a ValueError if a value is NaN or infinite."""
    if not value.isfinite().all():
        raise ValueError(f"{name} hold NaN or infinite values.")


def check_noisy(images: object, sigma: float, shape: tuple[int, int, int]) -> None:
    """Raise a ValueError unless `images` are (B, *shape) in [0, 1] but for Gaussian noise of deviation `sigma`."""
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, not {sigma:g}.")
    check_floats("images", images, (len(images) if torch.is_tensor(images) else 0, *shape))
    beyond = (images - 0.5).abs().max() - 0.5 if len(images) else 0
    if beyond > 0.1 + 7 * sigma:  # Gaussian noise goes beyond that less than once in 10^11 pixels
        raise ValueError(
            f"images must lie in [0, 1] but for noise of sigma {sigma:g}; they go from {images.min():g} to "
            f"{images.max():g}. Divide 8-bit values, and their sigma, by 255; of images in [-1, 1] it is "
            f"`images / 2 + 0.5`, and half their sigma."
        )


def whole(value: object) -> int:
    """`value` as an int, -1 where it is none."""
    try:
        return operator.index(value)
    except TypeError:
        return -1


def class_ids(classes: object, names: Sequence[str]) -> list[int]:
    """Ids of classes given by name, by id, or as a list of either; None is the null class, the one after the last.

    Raises:
        ValueError: a class doesn't exist; the message lists those that do.
    """
    plain = [item.tolist() if hasattr(item, "tolist") else item for item in listed(classes)]  # torch, NumPy
    if not plain:
        raise ValueError("No class was asked for.")
    ids = []
    for item in plain:
        if item is None:
            ids.append(len(names))
        elif isinstance(item, str) and item in names:
            ids.append(names.index(item))
        elif hasattr(item, "__index__") and not isinstance(item, bool) and 0 <= operator.index(item) < len(names):
            ids.append(operator.index(item))
        else:
            known = ", ".join(f"{i} {name!r}" for i, name in enumerate(names))
            raise ValueError(f"There is no class {item!r}. The classes are: {known}.")
    return ids


def listed(values: object) -> list:
    """One value, or several of them, as a list; a text is one."""
    values = values.tolist() if hasattr(values, "tolist") else values
    return list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
