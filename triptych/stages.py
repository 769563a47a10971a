"""Scripts run one after another by a study, each in a process of its own, talking through run folders alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from triptych.config import UserError

ROOT = Path(__file__).resolve().parents[1]


def run(script: str, *arguments: object) -> None:
    """``python scripts/<script> <arguments>``.

    Raises:
        UserError: it failed; its own message has been printed.
    """
    _call(ROOT / "scripts" / script, *arguments)


def train(script: str, *arguments: object) -> None:
    """``accelerate launch --config_file accelerate_config.yaml scripts/<script> <arguments>``.

    Raises:
        UserError: it failed; its own message has been printed.
    """
    launch = ["accelerate.commands.launch", "--quiet", "--config_file", ROOT / "accelerate_config.yaml"]
    _call("-m", *launch, ROOT / "scripts" / script, *arguments)


def train_once(script: str, experiment: Path, output: Path, name: str, *flags: object) -> Path:
    """Train ``output/name`` by `experiment` with `flags`: resumed where it was interrupted, kept where it is done.

    Returns:
        The run's folder.

    Raises:
        UserError: there is no such experiment, or the training failed.
    """
    if not experiment.exists():
        raise UserError(f"{experiment} does not exist.")
    run_folder = output / name
    if not (run_folder / "pipeline").exists():
        where = ["--name", name, "--run.output_dir", output, "--resume", "latest"]
        train(script, "--config", experiment, *where, *flags)
    return run_folder


def _call(*arguments: object) -> None:
    done = subprocess.run([sys.executable, *map(str, arguments)])
    if done.returncode:
        raise UserError("stopped there; run the same command again to go on.")
