"""The fenced blocks of the project's pages: what a reader pastes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT, environment
from warm_start import warm

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
# what a checkout has and a fresh clone hasn't, and what no page reads
LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", "runs", "__pycache__", ".*_cache", "records", "tests", "build")
# Prints every command of a block as the shell hands it over, variables, quotes and loops resolved, and runs none.
SPY = """
PATH=
print_it() { printf '%s\\0' "$@" $'\\n'; }
for name in accelerate hf make pip python source triptych; do eval "$name() { print_it $name \\"\\$@\\"; }"; done
"""
# The programs of the clone's .venv. A training takes two updates, whatever the page says, and draws one image a class.
PROGRAMS = {
    "python": 'exec {python} "$@"',
    "triptych": 'exec {python} -m triptych "$@"',
    "pip": 'echo "pip was called: $*" >&2; exit 1',
    "accelerate": """set -- "$@" --num_updates 2 --run.sample_every 0
case "$*" in *train_diffusion.py*) set -- "$@" --sampling.num_per_class 1;; esac
exec {python} -m accelerate.commands.accelerate_cli "$@\"""",
    "activate": "export PATH={programs}:$PATH",
}
# `make test` would start this test again: it is asked what it would do.
MAKE = 'if [ "$1" = test ]; then set -- -n test; fi; exec {make} "$@"'


class Block(NamedTuple):
    language: str
    code: str

    @property
    def needs(self) -> str | None:
        """What its first line says that it takes beyond a fresh clone, None if nothing."""
        found = re.match(r"# needs (\S.*)\n", self.code)
        return found and found[1]


def blocks_of(page: Path) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(python|bash)\n(.*?)^```", page.read_text(), re.M | re.S)]


def commands_in(*blocks: Block) -> list[list[str]]:
    """The arguments of every command of the bash blocks, in order, whether it can be run here or not."""
    code = "\n".join(block.code for block in blocks if block.language == "bash")
    code = SPY + code.replace(".venv/bin/python", "python")
    done = subprocess.run(["/bin/bash", "-euc", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split("\0")[:-1] for line in done.stdout.split("\n\0") if line]


def make_clone(folder: Path) -> Path:
    """A copy of the project as a fresh clone has it; its .venv is there, so that nothing is installed, and runs this
    interpreter, in processes that needn't import the libraries."""
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True)
    places = {"python": warm(environment()), "programs": programs, "make": shutil.which("make")}
    write_programs(programs, {name: line.format(**places) for name, line in PROGRAMS.items()})
    (folder / ".venv/.runtime").touch()
    (folder / "../programs").mkdir()
    write_programs(folder / "../programs", {"make": MAKE.format(**places)})
    return folder


def write_programs(folder: Path, lines: dict[str, str]) -> None:
    for name, line in lines.items():
        (folder / name).write_text(f"#!/bin/bash\n{line}\n")
        (folder / name).chmod(0o755)


def paste(code: str, clone: Path) -> None:
    """Run bash commands in `clone`; the first that fails fails the test, with what it said."""
    # no other environment's programs: they are to be found because the page said `source .venv/bin/activate`
    path = [place for place in os.environ["PATH"].split(":") if not (Path(place) / "accelerate").exists()]
    env = {**os.environ, "PATH": ":".join([str(clone.parent / "programs"), *path]), "PYTHONPATH": str(clone)}
    env |= {"HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["/bin/bash", "-euc", code], cwd=clone, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
