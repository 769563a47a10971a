"""Imports the libraries once, and forks the processes that ``warm_start.py``'s interpreter asks for."""

from __future__ import annotations

import ast
import atexit
import contextlib
import gc
import importlib
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import types
from pathlib import Path

LIBRARIES = [
    "accelerate.commands.launch", "datasets", "diffusers.guiders", "diffusers.models.unets.unet_2d",
    "diffusers.pipelines.pipeline_utils", "diffusers.training_utils", "docstring_parser", "evaluate",
    "jsonargparse", "matplotlib.backends.backend_agg", "matplotlib.pyplot", "scipy.io", "skimage.metrics",
    "sklearn.datasets", "sklearn.linear_model", "sklearn.manifold", "sklearn.metrics", "torchvision",
    "transformers.pipelines",
]  # fmt: skip


def serve(address: str) -> None:
    """Fork until the standard input is closed. Each connection is one process: its id is told, and how it ended."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("listening", flush=True)
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is there is never looked at again, so its pages stay shared
    woken, wakes = os.pipe()
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    selector = selectors.DefaultSelector()
    for source in (listener, woken, sys.stdin):
        selector.register(source, selectors.EVENT_READ)
    asking: dict[int, socket.socket] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection = listener.accept()[0]
                if (told := receive(connection)) is None:
                    connection.close()
                    continue
                process = os.fork()
                if process == 0:
                    selector.close()
                    for other in (listener, connection, *asking.values()):
                        other.close()
                    os.close(woken), os.close(wakes)
                    become(*told)
                for file in told[-1]:
                    os.close(file)
                connection.sendall(process.to_bytes(8, "big"))
                selector.register(connection, selectors.EVENT_READ, process)
                asking[process] = connection
            elif key.fileobj is woken:
                os.read(woken, 4096)
                bury(asking, selector)
            elif key.fileobj is sys.stdin:
                for process in asking:
                    os.kill(process, signal.SIGKILL)
                os._exit(0)
            elif key.data in asking:  # who asked has been killed
                os.kill(key.data, signal.SIGKILL)
                selector.unregister(key.fileobj)


def receive(connection: socket.socket) -> tuple | None:
    """Arguments, environment, working directory, and the files to be standard input, output and error."""
    size, files, _, _ = socket.recv_fds(connection, 8, 3)
    data = b""
    while len(data) < int.from_bytes(size, "big"):
        data += connection.recv(1 << 20)
    return (*ast.literal_eval(data.decode()), files) if files else None


def bury(asking: dict[int, socket.socket], selector: selectors.BaseSelector) -> None:
    while asking:
        process, status = os.waitpid(-1, os.WNOHANG)
        if not process:
            return
        connection = asking.pop(process)
        if connection.fileno() in selector.get_map():
            selector.unregister(connection)
            with contextlib.suppress(OSError):  # who asked has been killed at this moment
                connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))
        connection.close()


def become(arguments: list[str], env: dict[str, str], cwd: str, files: list[int]) -> None:
    """In the forked process: what Python does with these `arguments`, the first of which is the interpreter."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    os.chdir(cwd)
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    unbuffered = arguments[1] == "-u"
    sys.stdout.reconfigure(write_through=unbuffered)
    sys.executable, sys.argv = arguments[0], arguments[1 + unbuffered :]
    sys.path[0] = ""  # that of a script is set below
    sys.path[1:1] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.path_importer_cache.clear()
    take_over(before)
    leave(execute)


def take_over(before: dict[str, str]) -> None:
    """What the libraries have read of the environment, and what may differ here."""
    here = os.environ.get("HF_MODULES_CACHE")
    for module in list(sys.modules.values()) if here else ():
        if vars(module).get("HF_MODULES_CACHE") == before.get("HF_MODULES_CACHE") is not None:
            module.HF_MODULES_CACHE = here
    if "MPLBACKEND" in os.environ:
        sys.modules["matplotlib"].rcParams["backend"] = os.environ["MPLBACKEND"]
    if "OMP_NUM_THREADS" in os.environ:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def execute() -> None:
    first = sys.argv[0]
    if first in ("-c", "-"):
        code = sys.argv.pop(1) if first == "-c" else sys.stdin.read()
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(code, "<string>" if first == "-c" else "<stdin>", "exec"), vars(main))
    elif first == "-m":
        sys.argv = sys.argv[1:]
        sys.path[0] = str(Path.cwd())
        sys.modules.pop(sys.argv[0], None)
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(first).absolute().parent)
        runpy.run_path(first, run_name="__main__")


def leave(function) -> None:
    """Call `function`, and end as an interpreter ends after it."""
    code, interrupted = 0, False
    try:
        function()
    except SystemExit as left:
        code = left.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = code or 120
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit((code or 0) & 0xFF)


if __name__ == "__main__":
    serve(sys.argv[1])
