"""Features whose distances are known."""

from __future__ import annotations

import numpy as np
from conftest import ROOT

NAMES = sorted(path.parent.name for path in ROOT.glob("metrics/*/*.py"))


def correlated(n: int, seed: int, dimensions: int = 16) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.abs(rng.normal(size=(n, dimensions)) @ rng.normal(size=(dimensions, dimensions)) + 0.3 * seed)
    return x.astype(np.float32)
