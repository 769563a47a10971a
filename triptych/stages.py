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


def _call(*arguments: object) -> None:
    done = subprocess.run([sys.executable, *map(str, arguments)])
    if done.returncode:
        raise UserError("stopped there; run the same command again to go on.")
