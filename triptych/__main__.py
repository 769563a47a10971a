"""The command ``triptych``: starts the scripts, from a checkout or from an installed copy.

A subcommand is a script's path with dashes: ``triptych generate`` is scripts/generate.py, ``triptych train-diffusion``
scripts/train_diffusion.py, ``triptych figures vae`` scripts/figures/vae.py. A new script is a new subcommand, and its
first line is what ``triptych --help`` says of it. Scripts whose own first example begins with ``accelerate launch`` are
started by that, with the project's accelerate_config.yaml.
"""

from __future__ import annotations

import ast
import difflib
import os
import re
import sys
from pathlib import Path

from triptych.errors import UserError, quiet_where_nobody_reads
from triptych.paths import project_path

USAGE = """usage: triptych SUBCOMMAND [ARGUMENTS]

`triptych SUBCOMMAND --help` lists the arguments of one. For a training, what follows a lone `--` is for `accelerate
launch`: `triptych train-vae --config configs/vae_mnist.yaml -- --multi_gpu --num_processes 8`. Files such as
configs/vae_mnist.yaml that are not in the working directory are taken from the installed package.
"""
# a file of the project in an argument: alone, as name=file, or among others
PROJECT_FILE = re.compile(r"(?<![^=,])(?:configs|metrics|pretrained)/[^=,]+")


def main(arguments: list[str] | None = None) -> None:
    """Become the process that `arguments` (of the command line, if None) ask for; whatever is wrong is said at once."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        with quiet_where_nobody_reads():
            print(f"{USAGE}\n{overview()}")
        return
    try:
        command = command_for(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    # What scripts import as `models` lies beside them, and beside this package only in a checkout.
    path = os.pathsep.join(filter(None, [str(project_path()), os.environ.get("PYTHONPATH")]))
    sys.stdout.flush()
    os.execve(command[0], command, os.environ | {"PYTHONPATH": path})


def subcommands() -> dict[str, Path]:
    """The scripts by the words that start them, such as "figures vae"; those of a folder after those of scripts/."""
    root = project_path("scripts")
    scripts = sorted(root.rglob("*.py"), key=lambda path: (len(path.parts), path))
    return {" ".join(path.relative_to(root).with_suffix("").parts).replace("_", "-"): path for path in scripts}


def overview() -> str:
    """The subcommands, a line each."""
    about = {name: docstring(path).partition("\n")[0] for name, path in subcommands().items()}
    width = max(map(len, about))
    return "\n".join(f"  {name:{width}}  {text}" for name, text in about.items())


def docstring(script: Path) -> str:
    """What a script says of itself, read without running it."""
    return ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""


def command_for(arguments: list[str]) -> list[str]:
    """What is to be run, program first, for a subcommand and its arguments.

    Raises:
        UserError: there is no such subcommand; the message names the nearest one.
    """
    known = subcommands()
    words = [word.replace("_", "-").removesuffix(".py") for word in arguments[:2]]
    name = next((" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in known), None)
    if name is None:
        inside = [each for each in known if each.startswith(f"{words[0]} ")]
        if inside and (len(words) < 2 or words[1] in ("--help", "-h")):
            raise UserError(f"{words[0]} is a group. Its subcommands: {', '.join(inside)}.")
        asked = " ".join(words) if inside else words[0]
        near = difflib.get_close_matches(asked, inside or known, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UserError(f"there is no subcommand '{asked}'.{hint} `triptych --help` lists them all.")
    script, rest = known[name], [from_the_project(argument) for argument in arguments[name.count(" ") + 1 :]]
    if not is_training(script):
        return [sys.executable, str(script), *rest]
    mark = rest.index("--") if "--" in rest else len(rest)
    launch = [
        "-m",
        "triptych.training.launch",
        "--config_file",
        str(project_path("accelerate_config.yaml")),
    ]
    return [sys.executable, *launch, *rest[mark + 1 :], str(script), *rest[:mark]]


def is_training(script: Path) -> bool:
    """Whether the first command in a script's docstring is an ``accelerate launch``."""
    first = re.search(r"^\s*(python|accelerate launch) ", docstring(script), re.MULTILINE)
    return first is not None and first[1] == "accelerate launch"


def from_the_project(argument: str) -> str:
    """`argument` with the files that it names and that lie in the project, not here, named by where they are."""

    def located(match: re.Match) -> str:
        here, there = Path(match[0]), project_path(match[0])
        if here.exists() or not there.exists():
            return match[0]
        print(f"note: {here} is not in this directory; taking {there}.", file=sys.stderr)
        return str(there)

    return PROJECT_FILE.sub(located, argument)


if __name__ == "__main__":
    main()
