"""Where commands may write: nothing that is there is replaced unless the user says so, the same in every script."""

import importlib.util
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from triptych.errors import UserError
from triptych.outputs import claim_file, claim_folder, claim_study
from triptych.paths import project_path

SCRIPTS = sorted(project_path("scripts").rglob("*.py"))


def interface(script: Path, monkeypatch):
    """`script`'s main and its parameters, without starting it."""
    spec = importlib.util.spec_from_file_location(f"interface_of_{script.stem}", script)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module.main, inspect.signature(module.main).parameters


# Two ask for a folder inside the output, whose name they learn first; tests/publishing and tests/project see to them.
WRITING = [s for s in SCRIPTS if "output: Path" in s.read_text() and s.stem not in ("publish", "collect_records")]


@pytest.mark.parametrize("script", WRITING, ids=lambda s: s.stem)
def test_every_script_asks_before_it_replaces(script, tmp_path, monkeypatch):
    """Before it loads anything: what it would have to load is not there, and yet the output is what it speaks of."""
    monkeypatch.chdir(tmp_path)
    main, parameters = interface(script, monkeypatch)
    assert parameters["overwrite"].default is False
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("here.png")
    needed = {n: Path("here.png") for n, p in parameters.items() if p.default is p.empty}
    Path("mine").mkdir()
    Path("mine/diary.png").write_bytes(b"dear diary")
    Path("mine/mixture.json").write_bytes(b"dear diary")
    Path("mine/scores.json").write_bytes(b"dear diary")
    default = parameters["output"].default
    takes_file = script.stem == "score_vae" or (isinstance(default, Path) and default.suffix)
    for output in ("mine/diary.png", "mine/scores.json") if takes_file else ("mine",):
        with pytest.raises(UserError, match=r"(is there already|is not empty|must end in).*--output"):
            main(**needed | {"output": Path(output)})
    under_a_file = Path("mine/diary.png/deeper") / ("x.png" if takes_file else "")
    if script.stem == "score_vae":
        under_a_file = under_a_file.with_suffix(".json")
    with pytest.raises(UserError, match=r"(cannot be written: Not a directory|is no folder).*--output"):
        main(**needed | {"output": under_a_file, "overwrite": True})
    assert {p.read_bytes() for p in Path("mine").iterdir()} == {b"dear diary"}


def test_a_file(tmp_path):
    claim_file(tmp_path / "new/deep/x.png", False, ".png", ".svg")
    (tmp_path / "x.png").touch()
    claim_file(tmp_path / "x.png", True, ".png")
    for path, message in (("x.png", "already.*--overwrite"), ("x.gif", r"must end in \.png or \.svg"), (".", "png")):
        with pytest.raises(UserError, match=message):
            claim_file(tmp_path / path, False, ".png", ".svg")
    (tmp_path / "y.png").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        claim_file(tmp_path / "y.png", True, ".png")
    assert not (tmp_path / "new").exists()


def test_a_folder(tmp_path):
    claim_folder(tmp_path / "new", False)
    claim_folder(tmp_path, False)
    (tmp_path / "x").touch()
    claim_folder(tmp_path, True)
    with pytest.raises(UserError, match="is not empty"):
        claim_folder(tmp_path, False)
    with pytest.raises(UserError, match="is no folder"):
        claim_folder(tmp_path / "x", True)
    with pytest.raises(UserError, match="cannot be written: Not a directory at"):
        claim_folder(tmp_path / "x/y", True)


@pytest.mark.parametrize("trace", ["rows.jsonl", "drawn_0123/batch.npz", "features/0123.npz", "z2_seed0/run.json"])
def test_a_study_goes_on_in_its_own_folder_only(trace, tmp_path):
    (tmp_path / "holiday.png").touch()
    with pytest.raises(UserError, match="is not empty"):
        claim_study(tmp_path, False)
    claim_study(tmp_path, True)
    (tmp_path / trace).parent.mkdir(exist_ok=True)
    (tmp_path / trace).touch()
    claim_study(tmp_path, False)
