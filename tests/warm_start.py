"""Scripts started by Python or `accelerate launch`, in processes forked from one that has imported the libraries.

Importing torch and diffusers takes longer than most trainings of the tests. A process of Python's own fork server
imports them once for each worker of pytest; what a script imports of this repository it imports anew.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

LIBRARIES = ["accelerate.commands.launch", "datasets", "diffusers.training_utils", "matplotlib.pyplot", "torchvision"]
LIBRARIES += ["diffusers.pipelines.pipeline_utils", "diffusers.models.unets.unet_2d", "transformers", "jsonargparse"]
READ_AT_IMPORT = ("HF_", "HUGGING", "TRANSFORMERS_", "DIFFUSERS_", "PYTHONPATH", "XDG_", "HOME")
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]

_started: dict[str, str] | None = None  # the environment in which the libraries were imported


def can_start(command: list[str], env: dict[str, str], usual: dict[str, str]) -> bool:
    """Whether `command` starts a script, in one process, in the tests' `usual` environment."""
    return (
        (command[:3] == LAUNCH or (command[0] == sys.executable and command[1].endswith(".py")))
        and not {"--multi_gpu", "--num_processes"} & set(command)
        and _read(env) == _read(usual)
        and (_started is None or _read(env) == _read(_started))
    )


def run(command: list[str], cwd: Path, env: dict[str, str], timeout: float) -> subprocess.CompletedProcess:
    """Like ``subprocess.run(command, capture_output=True, text=True)`` for a `command` that :func:`can_start`."""
    global _started
    context = multiprocessing.get_context("forkserver")
    if _started is None:
        context.set_forkserver_preload(LIBRARIES)
        with patch.dict(os.environ, env, clear=True):
            multiprocessing.forkserver.ensure_running()
        _started = env
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{name}" for name in ("out", "err")]
        process = context.Process(target=_become, args=(command, str(cwd), env, *files))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout)
        said = [Path(file).read_text() if Path(file).exists() else "" for file in files]
        failed = 1 if command[:3] == LAUNCH else process.exitcode  # the launcher itself ends with 1, whatever failed
        return subprocess.CompletedProcess(command, failed if process.exitcode else 0, *said)


def _read(env: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in env.items() if key.startswith(READ_AT_IMPORT)}


def _become(command: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    """In the forked process: become the script, in the environment that `accelerate launch` makes for it."""
    os.chdir(cwd)
    for path, number, mode in ((os.devnull, 0, os.O_RDONLY), (out, 1, os.O_WRONLY), (err, 2, os.O_WRONLY)):
        os.dup2(os.open(path, mode | os.O_CREAT, 0o600), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(env)
    sys.argv = command[1:]
    if command[:3] == LAUNCH:
        from accelerate.commands.launch import _validate_launch_command, launch_command_parser
        from accelerate.utils.launch import prepare_simple_launcher_cmd_env

        launch, _, _ = _validate_launch_command(launch_command_parser().parse_args(command[3:]))
        os.environ.update(prepare_simple_launcher_cmd_env(launch)[1])
        sys.argv = [launch.training_script, *launch.training_script_args]
    libraries = [path for path in sys.path if path.startswith(sys.prefix) or path.startswith(sys.base_prefix)]
    sys.path[:] = [str(Path(sys.argv[0]).resolve().parent), *env.get("PYTHONPATH", "").split(os.pathsep), *libraries]
    runpy.run_path(sys.argv[0], run_name="__main__")
