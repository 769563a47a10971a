"""Whoever pastes the blocks of the README and of docs/, in order, into a fresh clone without a network gets what they
say; a block that takes more says so in its first line."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from blocks import PAGES, Block, blocks_of, commands_in, make_clone, paste
from conftest import ROOT

from triptych.__main__ import command_for, subcommands

ACTIVATE = "source .venv/bin/activate"
DEMO = "runs/demo_diffusion_digits/generated/grid.png"
README, DOCS = PAGES[0], PAGES[1:]


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    return make_clone(tmp_path_factory.mktemp("fresh") / "clone")


def test_the_readme_pasted_in_order(clone):
    """Every block of it, but for the one that says it needs GPUs. The shell and the interpreter stay open."""
    blocks = blocks_of(README)
    assert [block.language for block in blocks] == ["bash", "python", "bash", "bash"]
    assert [bool(block.needs) for block in blocks] == [False, False, False, True]
    first, code, training, _ = blocks
    paste(first.code, clone)
    assert (clone / DEMO).stat().st_size > 1000
    paste(f"{ACTIVATE}\npython - <<'END'\n{code.code}END", clone)
    assert (clone / "horse.png").exists()
    assert ACTIVATE in training.code, "nothing has put the environment's programs on the path before"
    paste(training.code, clone)
    assert len(list((clone / "runs/vae").glob("*.png"))) >= 4


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_a_page_pasted_in_order(page, clone, monkeypatch):
    """Code and scripts in one interpreter, this one, which has imported everything; the demo is trained once."""
    monkeypatch.chdir(clone)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names: dict[str, object] = {"__name__": "pasted"}
    for block in blocks_of(page):
        if block.language == "python":
            code = compile(block.code, page.name, "exec")
            if not block.needs:
                exec(code, names)
        elif not block.needs:
            for command in commands_in(block):
                perform(command, clone, monkeypatch)


def perform(command: list[str], clone: Path, monkeypatch) -> None:
    program, *arguments = command
    if program == "triptych" and arguments != ["--help"]:
        program, arguments = "python", command_for(arguments)[1:]
    if program == "python" and arguments[0].endswith(".py"):
        monkeypatch.setattr(sys, "argv", arguments)
        runpy.run_path(arguments[0], run_name="__main__")
    elif command != ["make", "demo"] or not (clone / DEMO).exists():
        paste(f"{ACTIVATE}; {shlex.join(command)}", clone)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_is_one_that_its_program_takes(page, monkeypatch, capsys):
    """Those of the blocks that can't be run here as well: the real parsers see the real arguments."""
    monkeypatch.chdir(ROOT)
    for command in commands_in(*blocks_of(page)):
        assert accepted(command, monkeypatch), f"{command}\n{capsys.readouterr().err}"


def accepted(command: list[str], monkeypatch) -> bool:
    program, *arguments = command
    if program == "accelerate":
        assert arguments[:3] == ["launch", "--config_file", "accelerate_config.yaml"]
        launch = launch_command_parser().parse_args(arguments[1:])
        return accepted(["python", launch.training_script, *launch.training_script_args], monkeypatch)
    if program == "triptych":
        return arguments == ["--help"] or accepted(["python", *command_for(arguments)[1:]], monkeypatch)
    if program == "make":
        return subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True).returncode == 0
    if program == "python" and arguments[0] == "-c":
        return bool(compile(arguments[1], "-c", "exec"))
    if program == "python":
        monkeypatch.setattr(sys, "argv", [*arguments, "--print_config"])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(arguments[0], run_name="__main__")
        return left.value.code == 0
    return program in ("hf", "pip", "source")


def test_a_block_that_leaves_the_clone_says_so():
    """Data of the Hub, eight GPUs, an account: not in a block that looks as if it could be pasted."""
    for page in PAGES:
        for block in blocks_of(page):
            if re.search(r"uoft-cs/|ylecun/|multi_gpu|pip install|hf auth|publish\.py|space\b.*7860", block.code):
                assert block.needs, f"{page.name}: {block.code}"


def test_mistakes_on_a_page_are_found(clone, tmp_path, monkeypatch):
    loop = Block("bash", "x=a\nfor k in 1 2; do\n  python scripts/generate.py $x --seed $k --classes 'a b'\ndone\n")
    commands = commands_in(loop, Block("python", "1"))
    assert commands == [["python", "scripts/generate.py", "a", "--seed", k, "--classes", "a b"] for k in "12"]
    monkeypatch.chdir(ROOT)
    assert accepted(commands[0], monkeypatch)
    assert not accepted(["python", "scripts/generate.py", "a", "--sede", "1"], monkeypatch)
    assert not accepted(["make", "dmeo"], monkeypatch)
    with pytest.raises(AssertionError, match="no_such_program"):
        commands_in(Block("bash", "no_such_program\n"))
    for code in ("accelerate launch --help", f"{ACTIVATE}; python none.py"):
        with pytest.raises(AssertionError, match=r"not found|No such file"):
            paste(code, clone)
    assert Block("bash", "# needs a GPU\nx\n").needs == "a GPU" and Block("bash", "x  # needs a GPU\n").needs is None


def test_links_lead_somewhere():
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("http"):
                continue
            name, _, anchor = target.partition("#")
            there = (page.parent / name).resolve() if name else page
            assert there.exists(), f"{page.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)", there.read_text(), re.M)
                assert anchor in map(anchor_of, headings), f"{page.name}: {target}"


def anchor_of(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-")


def test_the_contents_name_every_page_and_every_script_stands_among_the_commands():
    contents = (ROOT / "docs/README.md").read_text()
    for page in DOCS:
        assert page.name == "README.md" or f"]({page.name})" in contents, page.name
    commands = (ROOT / "docs/commands.md").read_text()
    for script in subcommands().values():
        assert re.search(rf"`(scripts/)?{script.stem}(\.py)?`| scripts/{script.stem}\.py", commands), script.name


def test_folders_that_are_explained_exist():
    architecture = (ROOT / "docs/architecture.md").read_text()
    tree = re.search(r"## What is where\n\n```\n(.*?)```", architecture, re.S)[1]
    names = re.findall(r"^(\w+)/", tree, re.M)
    assert len(names) >= 10
    for name in names:
        assert (ROOT / name).is_dir(), name


def test_the_readme_is_short():
    assert len(README.read_text().split()) <= 1000
