"""The state of a run: saved with the weights, found again, loaded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from triptych.config.training import ExperimentConfig
from triptych.errors import UserError, plain
from triptych.training import checkpoints, processes, run_folder
from triptych.training.log import ScalarLog


class Resumable:
    """What of a :class:`triptych.training.run.Run` goes into its checkpoints.

    Attributes:
        update, step: optimizer updates done, and steps, of which gradient accumulation makes several an update.
        seconds: time spent training, over all sessions.
    """

    config: ExperimentConfig
    folder: Path
    accelerator: Accelerator
    is_main: bool
    num_processes: int
    update: int
    step: int
    seconds: float
    _log: ScalarLog
    _seconds_before: float

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands; accelerate saves it with the weights."""
        return {
            "update": self.update,
            "step": self.step,
            "seconds": self.seconds,
            "log": self._log.state_dict(),
            "images_per_step": self.config.batch_size * self.num_processes,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        now = self.config.batch_size * self.num_processes
        if state["images_per_step"] != now:
            raise UserError(
                f"{self.folder} was trained with {state['images_per_step']} images a step over all processes; "
                f"{self.num_processes} processes of batch_size {self.config.batch_size} make {now}. Choose "
                f"--num_processes and --batch_size so that the product stays."
            )
        self.update, self.step, self._seconds_before = state["update"], state["step"], state["seconds"]
        self._log.load_state_dict(state["log"])

    def save_checkpoint(self) -> None:
        """Save everything a resumed run needs; a checkpoint is there whole or not at all.

        Raises:
            UserError: it cannot be written; those before it stay.
        """
        self._log.settle()
        folder = self.folder / "checkpoints"
        partial = folder / f".writing_{self.update:08d}"
        try:
            processes.on_main(self.is_main, lambda: checkpoints.begin(folder, self.update))
            processes.together(lambda: self.accelerator.save_state(str(partial)))  # each saves its own random state
            processes.on_main(self.is_main, lambda: self._seal(partial))
        except Exception as error:
            shutil.rmtree(partial, ignore_errors=True)
            kept = [c.name for c in checkpoints.listed(folder)]
            free = f", {shutil.disk_usage(self.folder).free / 1e6:,.0f} MB free there" if self.folder.exists() else ""
            raise UserError(
                f"The checkpoint of update {self.update} cannot be written to {folder} ({plain(error)}{free}). "
                f"Kept: {', '.join(kept) or 'none, it is the first'}. Make room, or mend what is named, and go on with "
                f"--resume latest."
            ) from error

    def _seal(self, partial: Path) -> None:
        run_folder.keep_records(self.folder, partial)
        checkpoints.commit(partial, self.config.run.keep_checkpoints)

    def _find_checkpoint(self) -> Path | None:
        """What to go on from; a branch that was killed before its first checkpoint begins again."""
        folder = self.folder / "checkpoints"
        found, beginning = checkpoints.find(folder, self.config.resume), run_folder.branched_from(self.folder)
        return checkpoints.find(folder, beginning) if found is None and beginning else found

    def _load(self, checkpoint: Path) -> None:
        try:
            self.accelerator.load_state(str(checkpoint))
        except UserError:
            raise
        except Exception as error:
            others = [str(c) for c in checkpoints.listed(checkpoint.parent) if c != checkpoint]
            raise UserError(
                f"{checkpoint} cannot be loaded ({type(error).__name__}: {plain(error)}). Resume from another one "
                f"(--resume; there {'are ' + ', '.join(others) if others else 'is none'}), or train anew under another "
                f"--name."
            ) from error
        if self.update > self.config.num_updates:
            raise UserError(
                f"num_updates {self.config.num_updates} is less than the {self.update} that {checkpoint} has done. "
                f"Give {self.update} or more, or resume from an earlier checkpoint."
            )
