"""The rules of the house, held by machines."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from project import draw_architecture

from triptych.errors import UserError

FOLDERS = ("triptych", "triptych/*", "models", "scripts", "scripts/*", "benchmarks", "metrics/*", "space")
SOURCES = [path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.py")]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def test_import_contracts():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(lint)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_drawing_is_of_the_imports_as_they_are(tmp_path):
    """What is committed is what the script draws now: python scripts/project/draw_architecture.py mends it."""
    kept = (ROOT / "docs/architecture.md").read_text()
    (tmp_path / "page.md").write_text(kept.replace(" --> ", " --x "))
    draw_architecture.main(tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == kept
    arrows = draw_architecture.imports_of_rooms()
    assert arrows["losses"] == arrows["models"] == set(), "pure; travels alone"
    assert "losses" not in arrows["training"] and "models" in arrows["scripts"]
    with pytest.raises(UserError, match="does not hold the lines"):
        draw_architecture.main(ROOT / "LICENSE")


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.py")), ids=lambda p: p.name)
def test_model_files_need_torch_and_diffusers_only(path):
    """And what diffusers cannot be installed without: Pillow and NumPy."""
    assert imports(path) - sys.stdlib_module_names <= {"torch", "diffusers", "PIL", "numpy"}


def test_nothing_parses_arguments_by_hand_and_no_script_imports_a_script():
    scripts = {p.stem for p in (ROOT / "scripts").rglob("*.py")} | {"studies", "figures", "project"}
    for path in SOURCES:
        assert "argparse" not in imports(path), path
        assert not imports(path) & scripts, path


def test_no_script_hides_a_library():
    hidden = {"evaluate", "datasets", "accelerate", "transformers", "diffusers", "torch", "triptych", "models"}
    hidden |= sys.stdlib_module_names
    assert not {p.stem for p in (ROOT / "scripts").rglob("*") if "__pycache__" not in p.parts} & hidden


def test_public_functions_are_documented():
    folders = ("triptych", "triptych/*", "models", "metrics/*", "space")
    for path in [path for folder in folders for path in ROOT.glob(f"{folder}/*.py")]:
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def required(path: Path) -> set[str]:
    """What a requirements file names, as it is imported."""
    named = {"pyyaml": "yaml", "pillow": "PIL", "scikit-learn": "sklearn", "scikit-image": "skimage"}
    lines = path.read_text().splitlines()
    names = [re.match(r"[\w-]+", line).group().lower() for line in lines if re.match(r"[a-zA-Z]", line)]
    return {named.get(name, name.replace("-", "_")) for name in names}


def test_requirements_are_imported():
    """Every runtime dependency is used, and every third-party import is a dependency."""
    used = set().union(*(imports(path) for path in SOURCES)) - sys.stdlib_module_names - {"triptych", "models"}
    used -= {path.stem for folder in ("benchmarks", "space") for path in (ROOT / folder).glob("*.py")}
    by_name = {"tensorboard", "pywavelets"}  # imported by accelerate as a tracker, and by scikit-image
    # a licence without commercial use; typesets the report; the page in space/; execute notebooks; draws the rooms
    extras = {"bm3d", "typst", "gradio", "nbclient", "nbformat", "grimp"}
    assert used - extras == required(ROOT / "requirements.txt") - by_name


def test_the_space_travels_alone():
    """It needs nothing of the repository, and its requirements say what it imports; gradio is named in its card."""
    used = set().union(*(imports(path) for path in (ROOT / "space").glob("*.py"))) - sys.stdlib_module_names
    used -= {path.stem for path in (ROOT / "space").glob("*.py")}
    assert used - {"gradio"} == required(ROOT / "space/requirements.txt") - {"accelerate"}  # diffusers' own wish
