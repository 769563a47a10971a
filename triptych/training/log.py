"""Scalars of a run: left on the device while training, averaged over steps and processes, written as JSON lines."""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from triptych.errors import UserError


class TrainingFailed(Exception):
    """What was learned is lost, or will be: what happened at which update, and what usually helps."""

    def __init__(self, what: str, update: int, mend: str):
        super().__init__(what)
        self.update, self.mend = update, mend

    def explained(self, folder: Path, checkpoints: list[Path]) -> UserError:
        """What to tell the user whose run in `folder` this ends; of the `checkpoints`, those of before are good."""
        good = [path for path in checkpoints if int(path.name.rpartition("_")[2]) < self.update]
        kept = f"The last good checkpoint is kept ({good[-1]})" if good else "There is no good checkpoint"
        return UserError(f"{self} of {folder}, and training stopped. {kept}. {self.mend}")


GENTLER = "A lower optimizer.lr, more optimizer.num_warmup_updates or a smaller optimizer.max_grad_norm usually help"


def not_finite(key: str, value: float, update: int) -> TrainingFailed:
    """A loss became NaN or infinite."""
    mend = f"{GENTLER}; --mixed_precision no tells whether precision is the cause."
    return TrainingFailed(f"{key} became {value} at update {update}", update, mend)


COLLAPSE_NEEDS = 24  # rows of the log, to judge the newest four by those before them


def collapsed(losses: Sequence[tuple[int, float]]) -> TrainingFailed | None:
    """Whether a loss has risen back to where it began, and stays there: a rate too high may do that at any time.

    Args:
        losses: (update, mean) of the first row of the log, and of the newest COLLAPSE_NEEDS.

    Returns:
        What to tell if each of the newest four is above three times the median of those before them and above half of
        the first; else None. A loss that has been negative is never judged.
    """
    first, before, newest = losses[0][1], [loss for _, loss in losses[1:-4]], losses[-4:]
    usual = statistics.median(before) if len(losses) > COLLAPSE_NEEDS else 0
    lowest = min(loss for _, loss in newest)
    if usual <= 0 or lowest < 3 * usual or lowest < first / 2:
        return None
    update, last = newest[0][0], newest[-1]
    return TrainingFailed(
        f"loss rose from {usual:.3g} to {last[1]:.3g} at update {update}, and was still there at {last[0]}",
        update,
        f"{GENTLER}: branch off from there (--resume CHECKPOINT --name ANOTHER --optimizer.lr LOWER). "
        f"--run.stop_if_collapsed false goes on all the same.",
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
        self._losses: list[tuple[int, float]] = []  # of the first row, and of the newest
        self._bytes = 0

    def record(self, update: int, values: dict[str, torch.Tensor | float], device: torch.device) -> None:
        """Remember the scalars of one step of `update`."""
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                scalar = value.detach().to(device, torch.float32)
            else:  # made on the device: copying a number there would wait for all that the device still has to do
                scalar = torch.full((), value, dtype=torch.float32, device=device)
            self._recorded.setdefault(key, []).append((update, scalar))

    def newest(self) -> dict[str, float]:
        """The losses of the step recorded last, of this process alone; the device is waited for."""
        return {key: steps[-1][1].item() for key, steps in self._recorded.items() if key.startswith("loss")}

    def settle(self) -> None:
        """Average over the processes what was recorded.

        Raises:
            TrainingFailed: a scalar whose name begins with "loss" is NaN or infinite.
        """
        for key, recorded in self._recorded.items():
            means = self._average(torch.stack([scalar for _, scalar in recorded])).tolist()
            for (update, _), value in zip(recorded, means, strict=True):
                if key.startswith("loss") and not math.isfinite(value):
                    raise not_finite(key, value, update)
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

    def refuse_collapse(self, row: dict[str, Any], stop: bool = True) -> None:
        """Remember the "loss" of a new row, and look at it beside those before.

        Raises:
            TrainingFailed: it has risen back to where it began, and stays there; unless it is not to `stop`.
        """
        if "loss" in row:
            self._losses = [*self._losses[:1], *self._losses[1:][1 - COLLAPSE_NEEDS :], (row["update"], row["loss"])]
            if stop and (failed := collapsed(self._losses)):
                raise failed

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
        return {"bytes": self._bytes, "settled": self._settled, "losses": self._losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._bytes, self._settled = state["bytes"], dict(state["settled"])
        self._losses = list(state.get("losses", []))  # older checkpoints have none


def _are_rows(text: bytes, size: int) -> bool:
    """Whether `text` is `size` bytes of whole rows."""
    try:
        rows = [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return False
    return len(text) == size and all(isinstance(row, dict) for row in rows) and text[-1:] in (b"", b"\n")
