"""Ctrl-C and the termination of a process, which a training heeds when an update is whole."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class StopSignal:
    """While it is entered, the first SIGINT or SIGTERM is only remembered; a second one means now.

    Attributes:
        received: the signal's number, 0 as long as there was none.
    """

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> StopSignal:
        self._handlers = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, signal.SIG_DFL)
