"""Scalars of a run: left on the device while training, averaged over steps and processes, written as JSON lines."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class NotFinite(Exception):
    """A loss became NaN or infinite: its name, the value and the update."""

    def __init__(self, key: str, value: float, update: int):
        super().__init__(f"{key} became {value} at update {update}")


class ScalarLog:
    """``log.jsonl``, a function of the config alone, and ``timing.jsonl``, the clock and the memory.

    Recording costs no synchronisation with the device; :meth:`settle` pays it for many steps at once.

    Args:
        folder: the run's folder.
        average: averages a tensor over the processes.
        writes: whether this process writes the files.
    """

    def __init__(self, folder: Path, average: Callable[[torch.Tensor], torch.Tensor], writes: bool):
        self.folder, self._average, self._writes = folder, average, writes
        self._recorded: dict[str, list[tuple[int, torch.Tensor]]] = {}  # on the device, of this process
        self._settled: dict[str, list[float]] = {}  # averaged over the processes, not yet written
        self._bytes = 0

    def record(self, update: int, values: dict[str, torch.Tensor | float], device: torch.device) -> None:
        """Remember the scalars of one step of `update`."""
        for key, value in values.items():
            scalar = torch.as_tensor(value, device=device).detach().float()
            self._recorded.setdefault(key, []).append((update, scalar))

    def settle(self) -> None:
        """Average over the processes what was recorded.

        Raises:
            NotFinite: a scalar whose name begins with "loss" is NaN or infinite.
        """
        for key, recorded in self._recorded.items():
            means = self._average(torch.stack([scalar for _, scalar in recorded])).tolist()
            for (update, _), value in zip(recorded, means, strict=True):
                if key.startswith("loss") and not math.isfinite(value):
                    raise NotFinite(key, value, update)
            self._settled.setdefault(key, []).extend(means)
        self._recorded.clear()

    def take_means(self) -> dict[str, float]:
        """Means over the steps since the last call."""
        self.settle()
        means = {key: math.fsum(values) / len(values) for key, values in self._settled.items()}
        self._settled.clear()
        return means

    def write(self, row: dict[str, Any], timing: dict[str, Any]) -> None:
        """Append a row to each file."""
        if self._writes:
            for name, content in (("log", row), ("timing", timing)):
                with (self.folder / f"{name}.jsonl").open("a") as file:
                    file.write(json.dumps(content) + "\n")
            self._bytes = (self.folder / "log.jsonl").stat().st_size

    def cut_back(self) -> None:
        """Drop the rows written after the state we start from: they will be written again."""
        path = self.folder / "log.jsonl"
        path.touch()
        os.truncate(path, self._bytes)

    def state_dict(self) -> dict[str, Any]:
        return {"bytes": self._bytes, "settled": self._settled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._bytes, self._settled = state["bytes"], dict(state["settled"])
