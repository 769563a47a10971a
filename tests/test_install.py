"""A built wheel in an environment of its own: the ``triptych`` command trains and draws, from any directory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from conftest import ROOT, flags
from packaging.requirements import Requirement

from triptych.__main__ import command_for, from_the_project, is_training, overview, subcommands
from triptych.errors import UserError

# what a wheel is made of; copied, so that building leaves nothing in the checkout
PARTS = ("triptych", "models", "scripts", "metrics", "configs", "accelerate_config.yaml", "requirements.txt")
PARTS += ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
OFFLINE = ("--no-deps", "--no-index", "--no-build-isolation")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run([*PIP, "wheel", *OFFLINE, "--wheel-dir", str(target), str(source)], check=True, timeout=120)
    (built,) = target.glob("*.whl")
    return built


def make_environment(folder: Path, *what: object) -> Path:
    """A virtual environment with `what` alone installed; the libraries it needs are seen through a .pth file."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    (site,) = folder.glob("lib/python*/site-packages")
    # a line of a .pth file adds a folder but not that folder's own .pth files: no editable install is seen
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [*PIP, "--python", str(folder / "bin/python"), "install", "--ignore-installed", *OFFLINE]
    subprocess.run([*pip, *map(str, what)], check=True, timeout=120, env=alone())
    return folder


def alone() -> dict[str, str]:
    """This environment without what leads to the checkout."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {"HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def environment_of_its_own(wheel, tmp_path_factory) -> Path:
    return make_environment(tmp_path_factory.mktemp("environment") / "venv", wheel)


@pytest.fixture
def triptych(environment_of_its_own, tmp_path):
    """The installed command in a directory that holds nothing of the project."""

    def call(*arguments: object) -> subprocess.CompletedProcess:
        command = [str(environment_of_its_own / "bin/triptych"), *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=alone(), capture_output=True, text=True, timeout=300)

    return call


def test_the_wheel_takes_one_name_and_brings_its_dependencies(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(about))
        info = about.rpartition("/")[0]
        assert archive.read(f"{info}/top_level.txt").split() == [b"triptych"]
    assert {name.partition("/")[0] for name in names} == {"triptych", info}
    for folder, pattern in (("scripts", "**/*.py"), ("models", "*.py"), ("metrics", "**/*"), ("configs", "**/*.yaml")):
        for path in (ROOT / folder).glob(pattern):
            if path.is_file() and not {"__pycache__", "project"} & set(path.parts[len(ROOT.parts) :]):
                assert f"triptych/lab/{path.relative_to(ROOT)}" in names
    assert "triptych/publishing/templates/VAEPipeline.md" in names
    assert "triptych/lab/accelerate_config.yaml" in names and not any("scripts/project" in name for name in names)
    wanted = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if re.match(r"\w", line)]
    brought = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    assert {str(one) for one in brought if one.marker is None} == {str(Requirement(line)) for line in wanted}
    floor = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert metadata["Requires-Python"] == floor == ">=3.11"


def test_help_and_a_name_that_is_nearly_right(triptych):
    start = time.perf_counter()
    done = triptych("--help")
    seconds = time.perf_counter() - start
    assert done.returncode == 0 and seconds < 2, f"{seconds:.1f} s: nothing heavy is imported for it"
    for name in ("generate", "train-diffusion", "figures vae", "studies sampling"):
        assert re.search(rf"^  {name}  +[A-Z].*\.$", done.stdout, re.MULTILINE), name
    assert "project" not in re.findall(r"^  (\w+)", done.stdout, re.MULTILINE), "that is for a checkout"
    done = triptych("trian-vae")
    assert done.returncode == 2 and "Did you mean 'train-vae'?" in done.stderr and "Traceback" not in done.stderr


def test_a_training_and_what_it_saved(triptych, tmp_path):
    """A run whose config is the package's, judged by what it leaves; then its pipeline draws."""
    small = flags(num_updates=2, run__sample_every=2, name="mine")
    config = "configs/demo/diffusion_digits.yaml"
    done = triptych("train-diffusion", "--config", config, *small, "--", "--mixed_precision", "no")
    assert done.returncode == 0, done.stderr
    assert f"note: {config} is not in this directory; taking " in done.stderr
    record = (tmp_path / "runs/mine/run.json").read_text()
    assert '"commit": null' in record and '"no"' in record, "no commit of another repository; accelerate was told"
    assert len(list((tmp_path / "runs/mine/samples").glob("*.png"))) == 1
    done = triptych("generate", "runs/mine/pipeline", "--output", "drawn", "--num_images_per_class", "1")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "drawn").glob("*_00000.png"))) == 10


def test_an_installed_metric_and_no_package_called_models(environment_of_its_own, tmp_path):
    code = (
        "import importlib.util as found\nfrom triptych.evaluation.scores import load_metric\n"
        "assert not any(map(found.find_spec, ('models', 'scripts', 'metrics', 'configs')))\n"
        "print(load_metric('psnr').compute(predictions=[[[[0.5]]]], references=[[[[0.6]]]])['psnr'])"
    )
    python = environment_of_its_own / "bin/python"
    done = subprocess.run([python, "-c", code], cwd=tmp_path, env=alone(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(20, abs=1e-3)


def test_an_editable_install_uses_the_checkout(source, tmp_path):
    folder = make_environment(tmp_path / "venv", "--editable", source)
    run = {"cwd": tmp_path, "env": alone(), "capture_output": True, "text": True, "timeout": 60, "check": True}
    told = subprocess.run([folder / "bin/python", "-c", "import models; print(models.__file__)"], **run).stdout
    assert told.strip() == str(source / "models/__init__.py"), "as the scripts of a checkout need it"
    assert "project build-report" in subprocess.run([folder / "bin/triptych", "--help"], **run).stdout


# ---- what a command becomes, without starting it ------------------------------------------------------------------


def test_subcommands_are_the_scripts():
    known = subcommands()
    assert set(known.values()) == set((ROOT / "scripts").rglob("*.py"))
    for script in known.values():
        trains = script.stem.startswith(("train_", "distill_"))
        assert is_training(script) == trains, f"{script.name}: its docstring begins with how it is started"
    for line in overview().splitlines():
        assert line.endswith("."), line


def test_what_a_command_becomes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scripts = ROOT / "scripts"
    for words in (["figures", "vae"], ["figures", "vae.py"]):
        assert command_for([*words, "x", "--seed", "1"]) == [
            sys.executable,
            str(scripts / "figures/vae.py"),
            "x",
            "--seed",
            "1",
        ]
    assert command_for(["score_vae"]) == command_for(["score-vae"]) == [sys.executable, str(scripts / "score_vae.py")]
    machine = str(ROOT / "accelerate_config.yaml")
    launch = [sys.executable, "-m", "triptych.training.launch", "--config_file", machine]
    train = str(scripts / "train_gan.py")
    assert command_for(["train-gan", "--seed", "1"]) == [*launch, train, "--seed", "1"]
    assert command_for(["train-gan", "--seed", "1", "--", "--num_processes", "2"]) == [
        *(*launch, "--num_processes", "2", train, "--seed", "1")
    ]
    for words, says in (
        (["studies"], "studies sampling"),
        (["studies", "smapling"], "Did you mean 'studies sampling'"),
        (["xyzzy"], "no subcommand 'xyzzy'. `triptych --help`"),
    ):
        with pytest.raises(UserError, match=re.escape(says)):
            command_for(words)


def test_files_of_the_project_are_found_from_elsewhere(tmp_path, monkeypatch, capsys):
    name = "configs/demo/vae_digits.yaml"
    monkeypatch.chdir(tmp_path)
    assert from_the_project(f"--config={name}") == f"--config={ROOT / name}" and "note: " in capsys.readouterr().err
    assert from_the_project(f"a={name},b=x/{name}") == f"a={ROOT / name},b=x/{name}"
    for kept in ("configs/none.yaml", f"./{name}", f"my{name}", "runs/x"):
        assert from_the_project(kept) == kept
    capsys.readouterr()
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    assert from_the_project(name) == name, "one's own comes first"
    assert capsys.readouterr().err == ""
