"""Python processes that are forked from one that has imported the libraries.

Importing torch and diffusers takes longer than most commands of the tests. :func:`warm` gives an interpreter of which
every process, also one that `accelerate launch` or a shell starts by it, is forked from a server (``warm_server.py``)
that has imported them; what is imported of this repository is imported anew. Where a start itself is what is tested,
or the launch of several processes, the tests start ``sys.executable``.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = Path(__file__).with_name("warm_server.py")
# What Python and the libraries read of the environment when they are imported, not later.
READ_AT_IMPORT = ("HF_", "HUGGING", "TRANSFORMERS_", "DIFFUSERS_", "XDG_", "HOME", "PYTHON", "LD_")
TAKEN_OVER = ("PYTHONPATH", "HF_MODULES_CACHE", "HF_TOKEN")  # the forked process sees to these

# Hands its arguments, environment and open files to the server and ends as the forked process does. It imports little,
# and becomes a fresh interpreter where the server was started in another environment or doesn't know how to do it.
INTERPRETER = """#!{python} -SE
import os, signal, socket, sys

def exactly(count):
    data = b""
    while len(data) < count:
        data += server.recv(count - len(data)) or sys.exit("the process that has imported the libraries is gone")
    return int.from_bytes(data, "big", signed=True)

env = dict(os.environ)
read = {{k: v for k, v in env.items() if k.startswith({read!r}) and k not in {taken_over!r}}}
first = next((argument for argument in sys.argv[1:] if argument != "-u"), "-i")
if read != {wanted!r} or not (first in ("-c", "-m", "-") or first.endswith(".py")):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = repr((sys.argv, env, os.getcwd())).encode()
socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
server.sendall(asked)
process = exactly(8)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(process, number))
status = exactly(8)
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if status != -9 else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""

_started: dict[tuple, str] = {}


def read_at_import(env: dict[str, str]) -> dict[str, str]:
    return {key: env[key] for key in sorted(env) if key.startswith(READ_AT_IMPORT) and key not in TAKEN_OVER}


def warm(env: dict[str, str]) -> str:
    """An interpreter to take in place of ``sys.executable`` for processes with the environment `env`.

    There is one server for all environments in which the libraries would be imported alike.
    """
    read = read_at_import(env)
    key = tuple(read.items())
    if key not in _started:
        folder = Path(tempfile.mkdtemp(prefix="warm_"))
        interpreter, address = folder / "python", folder / "socket"
        fill = {"read": READ_AT_IMPORT, "taken_over": TAKEN_OVER, "wanted": read}
        interpreter.write_text(INTERPRETER.format(python=sys.executable, address=str(address), **fill))
        interpreter.chmod(0o755)
        env = {name: value for name, value in env.items() if name != "PYTHONPATH"}
        server = subprocess.Popen(
            [sys.executable, str(SERVER), str(address)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        server.stdout.readline()  # it listens; what is asked before the libraries are there waits
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        atexit.register(server.stdin.close)
        _started[key] = str(interpreter)
    return _started[key]


def warmed(command: list[object], env: dict[str, str]) -> list[str]:
    """`command`, to be run with the environment `env`, with :func:`warm`'s interpreter if it names this one."""
    return [warm(env) if part == sys.executable else str(part) for part in command]
