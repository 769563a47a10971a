"""What the README says can be done, can be done."""

from __future__ import annotations

import re
import runpy
import shlex
import sys

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
SCRIPTS = re.findall(r"(?:python|accelerate launch[^\n]*?) (scripts/[\w/]+\.py[^\n&#]*)", BLOCKS)


def test_there_are_commands():
    assert len(SCRIPTS) >= 5


@pytest.mark.parametrize("line", SCRIPTS)
def test_commands_parse(line, monkeypatch, capsys):
    """Every script command of the README is accepted by the script as it stands."""
    script, *arguments = shlex.split(line)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [script, *arguments, "--print_config"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(script, run_name="__main__")
    assert left.value.code == 0, capsys.readouterr().err


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", BLOCKS, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    tree = re.search(r"## What is where\n\n```\n(.*?)```", README, re.DOTALL).group(1)
    for name in re.findall(r"^(\w+)/", tree, re.MULTILINE):
        assert (ROOT / name).is_dir(), name
