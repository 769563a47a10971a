"""Scalars of a run: left on the device while training, averaged over steps and processes, written as JSON lines."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from triptych.errors import UserError


class NotFinite(Exception):
    """A loss became NaN or infinite: its name, the value and the update."""

    def __init__(self, key: str, value: float, update: int):
        super().__init__(f"{key} became {value} at update {update}")

    def explained(self, folder: Path, checkpoints: list[Path]) -> UserError:
        """What to tell the user whose run in `folder` this ends, and what may help."""
        return UserError(
            f"{self} of {folder}, and training stopped. The last good checkpoint is kept "
            f"({checkpoints[-1].name if checkpoints else 'there was none yet'}). A lower optimizer.lr, more "
            f"optimizer.num_warmup_updates or a smaller optimizer.max_grad_norm usually help; --mixed_precision no "
            f"tells whether precision is the cause."
        )


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

    def newest(self) -> dict[str, float]:
        """The losses of the step recorded last, of this process alone; the device is waited for."""
        return {key: steps[-1][1].item() for key, steps in self._recorded.items() if key.startswith("loss")}

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
        """Append a row to each file.

        Raises:
            UserError: it cannot be written, for want of room say.
        """
        if self._writes:
            for name, content in (("log", row), ("timing", timing)):
                path = self.folder / f"{name}.jsonl"
                try:
                    with path.open("a") as file:
                        file.write(json.dumps(content) + "\n")
                except OSError as error:
                    raise UserError(
                        f"{path} cannot be written: {error.strerror}. Training stopped; the last checkpoint is kept. "
                        f"Mend that and go on with --resume latest."
                    ) from error
            self._bytes = (self.folder / "log.jsonl").stat().st_size

    def cut_back(self) -> None:
        """Drop the rows written after the state we start from: they will be written again.

        A log that is not the one which that state knew is begun afresh, and what there was is kept beside it.
        """
        path = self.folder / "log.jsonl"
        rows = path.read_bytes() if path.exists() else b""
        if not _are_rows(rows[: self._bytes], self._bytes):
            aside = None
            if rows:
                aside = path.with_name(f"log_until_{time.strftime('%Y%m%d_%H%M%S')}.jsonl")
                path.replace(aside)
            kept = f"what there was is kept in {aside.name}" if aside else "there was none"
            print(f"warning: {path} is not the log up to the checkpoint; it is begun afresh ({kept}).", file=sys.stderr)
            self._bytes = 0
        path.touch()
        os.truncate(path, self._bytes)

    def state_dict(self) -> dict[str, Any]:
        return {"bytes": self._bytes, "settled": self._settled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._bytes, self._settled = state["bytes"], dict(state["settled"])


def _are_rows(text: bytes, size: int) -> bool:
    """Whether `text` is `size` bytes of whole rows."""
    try:
        rows = [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return False
    return len(text) == size and all(isinstance(row, dict) for row in rows) and text[-1:] in (b"", b"\n")
