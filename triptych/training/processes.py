"""The processes that train together: how they are started, how an error of one stops all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from triptych.devices import effective_precision, join_processes, on_cpu
from triptych.errors import UserError, plain


def start(tracker: str | None, gradient_accumulation_steps: int, folder: Path) -> Accelerator:
    """Join the processes that the launcher started, in the precision it asked for where the device has it.

    Raises:
        UserError: there is no such tracker, or it isn't installed.
    """
    state = join_processes()
    precision, note = effective_precision(os.environ.get("ACCELERATE_MIXED_PRECISION", "no"), state.device)
    if note:
        state.print(f"note: {note}", file=sys.stderr)
    try:
        accelerator = Accelerator(
            cpu=on_cpu(),
            mixed_precision=precision,
            gradient_accumulation_steps=gradient_accumulation_steps,
            log_with=tracker,
            project_dir=folder,
        )
    except ValueError as error:
        raise UserError(f"run.tracker {tracker!r}: {error}") from None
    if tracker and not accelerator.log_with:
        raise UserError(
            f"run.tracker {tracker!r} is not installed. `pip install {tracker}`, or set "
            f"run.tracker to tensorboard, or to null for log.jsonl alone."
        )
    return accelerator


def on_main(is_main: bool, function: Callable[[], Any]) -> Any:
    """Run `function` on the main process alone; all get what it returns, or stop where it fails."""
    return together(function if is_main else lambda: None)[0]


def together(function: Callable[[], Any]) -> list[Any]:
    """Run `function` on every process; what they return, in order, or an error on all if one fails."""
    answer, failure = None, None
    try:
        answer = function()
    except Exception as error:
        failure = error
    told = None if failure is None else (isinstance(failure, UserError), plain(failure))
    answers = gather_object([(answer, told)])
    if failure is not None:
        raise failure
    for process, (_, problem) in enumerate(answers):
        if problem is not None:
            raise UserError(problem[1] if problem[0] else f"Process {process} stopped: {problem[1]}")
    return [answer for answer, _ in answers]
