"""Work shared by the processes of one ``accelerate launch``: each draws or judges some of the images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object

from triptych.devices import join_processes
from triptych.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among `count` that were launched together, each on a device of its own where there are several."""

    index: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.index == 0

    def gather(self, value: T) -> list[T]:
        """The `value` of every process, in their order; all must call it."""
        return gather_object([value]) if self.count > 1 else [value]

    def from_main(self, value: T) -> T:
        """The `value` of the main process, on every process; all must call it."""
        return self.gather(value)[0]

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            PartialState().wait_for_everyone()


def require_one_process() -> None:
    """For a command whose work isn't shared.

    Raises:
        UserError: several processes were launched; each would do all of the work, and write the same files.
    """
    if (count := _launched()) > 1:
        raise UserError(
            f"{count} processes were launched, but this command does its work in one: each would do all of it, and "
            "write the same files. Start it by python, without accelerate launch."
        )


def join() -> Processes:
    """Join the processes that were launched together, before a device is chosen; without a launcher this is alone."""
    if _launched() < 2:
        return Processes()
    state = join_processes()
    return Processes(state.process_index, state.num_processes)


def _launched() -> int:
    """How many processes the launcher started; it tells each of them."""
    return int(os.environ.get("WORLD_SIZE", "1"))
