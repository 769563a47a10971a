"""What a notebook's first cell installs in Colab: what is missing or too old, and nothing that suffices and fits."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

SPEC = importlib.util.spec_from_file_location("colab", ROOT / "notebooks/colab.py")
colab = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(colab)
WANTED = colab.read(ROOT / "requirements.txt")

# Colab's own list of 2026-08-19: pip-freeze.gpu.txt of github.com/googlecolab/backend-info, Python 3.13. What isn't
# here isn't there.
COLAB = {
    "accelerate": "1.14.0",
    "datasets": "4.0.0",
    "diffusers": "0.39.0",
    "huggingface_hub": "1.27.0",
    "matplotlib": "3.10.0",
    "numpy": "2.1.3",
    "pillow": "11.3.0",
    "pyarrow": "18.1.0",
    "PyWavelets": "1.9.0",
    "PyYAML": "6.0.3",
    "safetensors": "0.8.0",
    "scikit-image": "0.25.2",
    "scikit-learn": "1.6.1",
    "tensorboard": "2.20.0",
    "torch": "2.11.0+cu128",
    "torchvision": "0.26.0+cu128",
    "tqdm": "4.67.3",
    "transformers": "5.15.0",
}


def test_what_colab_lacks():
    lacks = {one.name for one in colab.lacking(WANTED, COLAB.get)}
    floors = {one.name: one for one in WANTED}
    assert {"evaluate", "torch-fidelity", "jsonargparse"} <= lacks, "these it has not"
    for name in lacks & COLAB.keys():
        assert not floors[name].specifier.contains(COLAB[name]), name
    assert not lacks & {"torch", "torchvision", "numpy", "diffusers", "accelerate", "matplotlib", "scikit-image"}
    assert set(colab.held(WANTED, COLAB.get)) == {"torch==2.11.0+cu128", "torchvision==0.26.0+cu128"}


def test_too_old_too_new_missing_and_extras():
    wanted = [Requirement(text) for text in ("a>=2,<3", "b>=1", "c[more]>=1", "torch>=2.9,<3")]
    asks = {"c": ["d>=1", 'e>=2; extra == "more"', 'f; extra == "other"']}.get
    versions = {"a": "2.5", "b": "1.0rc1", "c": "1", "e": "2", "torch": "2.8.0+cu128"}

    def lacking(**changes: str) -> list[str]:
        now = {**versions, **changes}
        return [one.name for one in wanted if not colab.suffices(one, now.get, asks)]

    assert lacking() == ["b", "torch"] and lacking(b="1", torch="2.9.0+cu130") == []
    assert lacking(a="1.9") == lacking(a="3.0") == ["a", "b", "torch"]
    assert lacking(e="1", b="1") == ["c", "torch"], "the package is there, what its extra asks for is too old"
    assert colab.held(wanted, versions.get) == [], "a torch that is too old is replaced"


def test_the_session_is_told_what_it_had_loaded():
    before = {"diffusers": "0.39.0", "evaluate": None, "pyarrow": "18.1.0", "numpy": "2.1.3"}
    after = {"diffusers": "0.42.1", "evaluate": "0.4.6", "pyarrow": "26.0.1", "numpy": "2.1.3"}
    assert colab.replaced(before, after, {"numpy", "pyarrow", "torch"}) == ["pyarrow"]
    assert {"packaging", "pytest"} <= colab.loaded_packages()


def test_nothing_is_installed_where_nothing_lacks(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append(command))
    monkeypatch.setattr(colab, "lacking", lambda wanted: [])
    colab.main()
    assert [call[-3:] for call in calls] == [["--no-deps", "--editable", str(ROOT)]]
    assert capsys.readouterr().out == ""


# ---- pip itself, on stand-ins of the packages that consist of a name, a version and their dependencies ---------------


def metadata_of(name: str, version: str, *requires: str) -> str:
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(
        f"Requires-Dist: {one}\n" for one in requires
    )


def write_wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    stem = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{stem}.dist-info/METADATA", metadata_of(name, version, *requires))
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


@pytest.fixture
def session(tmp_path) -> Path:
    """An environment with the packages of Colab, and a folder of everything newer to install from."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "session")], check=True)
    (site,) = (tmp_path / "session").glob("lib/python*/site-packages")
    # the dependencies that decide: as these versions declare them
    asks = {"diffusers": ["huggingface_hub<2.0,>=0.34.0"], "transformers": ["huggingface_hub<2.0,>=1.5.0"]}
    for name, version in COLAB.items():
        place = site / f"{name.replace('-', '_')}-{version}.dist-info"
        place.mkdir()
        (place / "METADATA").write_text(metadata_of(name, version, *asks.get(name, ())))
        (place / "RECORD").write_text("")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for one in WANTED:
        ceiling = re.search(r"<(\d+)", str(one.specifier))
        write_wheel(wheels, one.name, f"{int(ceiling[1]) - 1 if ceiling else 99}.999")
    for extra in ("docstring-parser", "typeshed-client"):
        write_wheel(wheels, extra, "1.0")
    return tmp_path


def test_pip_replaces_what_is_too_old_and_what_no_longer_fits(session, monkeypatch):
    where = ["--python", str(session / "session/bin/python"), "install", "--no-index", "--find-links"]
    where += [str(session / "wheels"), "--dry-run", "--report", str(session / "report.json")]
    started = subprocess.run

    def run(command: list[str], check: bool) -> None:
        started([*command[: command.index("install")], *where, *command[command.index("install") + 1 :]], check=check)

    monkeypatch.setattr(subprocess, "run", run)
    for name in ("lacking", "held"):
        decide = getattr(colab, name)
        monkeypatch.setattr(colab, name, lambda wanted, versions=COLAB.get, decide=decide: decide(wanted, versions))
    colab.install_requirements()
    report = json.loads((session / "report.json").read_text())["install"]
    found = {one["metadata"]["name"]: one["metadata"]["version"] for one in report}
    lacks = {one.name for one in colab.lacking(WANTED)}
    # of what suffices, diffusers alone is replaced: the one here refuses the huggingface_hub that transformers needs
    assert found.keys() - {"docstring-parser", "typeshed-client"} == lacks | {"diffusers"}
    assert found["diffusers"] == "0.999"
