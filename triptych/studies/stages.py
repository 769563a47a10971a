"""Scripts that a study runs one after another, each in its own process; they exchange data by run folders alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from triptych.errors import UserError
from triptych.evaluation.work_sharing import require_one_process
from triptych.paths import project_path


def run(script: str, *arguments: object) -> None:
    """``python scripts/<script> <arguments>``.

    Raises:
        UserError: it failed; its own message has been printed.
    """
    _call(project_path("scripts", script), *arguments)


def train(script: str, *arguments: object) -> None:
    """``accelerate launch --config_file accelerate_config.yaml scripts/<script> <arguments>``.

    Raises:
        UserError: it failed; its own message has been printed.
    """
    launch = ["accelerate.commands.launch", "--quiet", "--config_file", project_path("accelerate_config.yaml")]
    _call("-m", *launch, project_path("scripts", script), *arguments)


def train_once(script: str, experiment: Path, output: Path, name: str, *flags: object) -> Path:
    """Train ``output/name`` by `experiment` with `flags`: resumed where it was interrupted, kept where it is done.

    It is not published, whatever `experiment` says: all parts of a study would go to one repository.

    Returns:
        The run's folder.

    Raises:
        UserError: there is no such experiment, `flags` ask for publishing, or the training failed.
    """
    if not experiment.exists():
        raise UserError(f"{experiment} does not exist.")
    if any(str(flag).partition("=")[0] == "--run.push_to" for flag in flags):
        raise UserError(
            "--run.push_to is not for the parts of a study, which would all go to one repository. Leave it out, and "
            f"publish the one you choose: python scripts/publish.py {output / name} user/name"
        )
    run_folder = output / name
    if not any((run_folder / saved).exists() for saved in ("pipeline", "classifier")):
        where = ["--name", name, "--run.output_dir", output, "--resume", "latest", "--run.push_to", "null"]
        train(script, "--config", experiment, *flags, *where)
    return run_folder


def device_flags(device: str | None) -> list[str]:
    """The flags that make a script compute on `device`; none for the best there is."""
    return ["--device", device] if device else []


def _call(*arguments: object) -> None:
    require_one_process()
    done = subprocess.run([sys.executable, *map(str, arguments)])
    if done.returncode:
        raise UserError("stopped there; run the same command again to go on.")
