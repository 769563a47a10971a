"""Random numbers that depend on what they are for, not on what was drawn before."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
import torch

from triptych.errors import UserError


def keyed_seed(purpose: str, *key: int) -> int:
    """A 63-bit seed that is a function of `purpose` and `key`, such as ("noise", seed, step).

    A run resumed at a step draws there exactly what an uninterrupted run draws. The key is hashed by numpy's
    ``SeedSequence``, so neighbouring keys give unrelated streams.

    Raises:
        UserError: a number of the key, the seed that is, is negative.
    """
    if any(number < 0 for number in key):
        raise UserError(f"seed must be 0 or more, not {min(key)}.")
    # Its length is part of the key: SeedSequence pads with zeros, and (1, 2) would be (1, 2, 0).
    entropy = (zlib.crc32(purpose.encode()), len(key), *key)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def keyed_generator(purpose: str, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded with :func:`keyed_seed`."""
    return torch.Generator(device).manual_seed(keyed_seed(purpose, *key))


def image_generators(seed: int, images: Iterable[tuple[int, int]]) -> list[torch.Generator]:
    """For a class-conditional pipeline's call, a generator for each (class, number): image `number` of that class is
    the same whoever draws it, whatever else is drawn."""
    return [keyed_generator("image", seed, class_id, number) for class_id, number in images]
