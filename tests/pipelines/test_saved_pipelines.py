"""Saved folders: each holds its own code, whatever else is loaded in the process and whoever shares its cache."""

from __future__ import annotations

import ast
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, environment
from diffusers import DiffusionPipeline
from stand_ins import make_denoiser, make_diffusion, make_vae
from warm_start import warmed

from models.saving import gather

KINDS = {
    "diffusion": ("pipeline_class_conditional", "ClassConditionalPipeline", "scheduler", None),
    "vae": ("pipeline_vae", "VAEPipeline", "vae", "vae/vae.py"),
    "denoiser": ("pipeline_denoiser", "DenoiserPipeline", "denoiser", "denoiser/gan.py"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for name, make in (("diffusion", make_diffusion), ("vae", make_vae), ("denoiser", make_denoiser)):
        make().save_pretrained(folder / name)
    return folder


def load(folder: Path, **kwargs) -> DiffusionPipeline:
    return DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, **kwargs)


def run_elsewhere(script: str, folder: Path, *arguments: str) -> subprocess.Popen:
    """Start a process that cannot import this repository."""
    script = 'import sys\nsys.modules["models"] = sys.modules["triptych"] = None\n' + script
    env = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    env["HF_MODULES_CACHE"] = str(folder / "modules")
    command = warmed([sys.executable, "-c", script, *arguments], env)
    return subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)


TOGETHER = """
from diffusers import DiffusionPipeline
names = ("diffusion", "vae", "denoiser")
pipelines = [DiffusionPipeline.from_pretrained(name, trust_remote_code=True) for name in names]
for name, pipeline in zip(names, pipelines):
    pipeline.save_pretrained("again/" + name)
"""

AGAIN = """
from diffusers import DiffusionPipeline
for name in ("denoiser", "diffusion", "vae"):
    DiffusionPipeline.from_pretrained("again/" + name, trust_remote_code=True).save_pretrained("third/" + name)
"""


def test_each_folder_holds_its_own_code(saved):
    """Three loaded in one process, then saved; loaded in a fresh one, in another order."""
    for script in (TOGETHER, AGAIN):
        done = run_elsewhere(script, saved)
        assert done.communicate() and done.returncode == 0
    for name, (file, kind, _, component) in KINDS.items():
        original = saved / name
        for again in (saved / "again" / name, saved / "third" / name):
            assert json.loads((again / "model_index.json").read_text())["_class_name"] == [file, kind]
            codes = sorted(path.relative_to(original) for path in original.rglob("*.py"))
            assert sorted(path.relative_to(again) for path in again.rglob("*.py")) == codes
            assert Path(f"{file}.py") in codes and (component is None or Path(component) in codes)
            assert all((again / code).read_bytes() == (original / code).read_bytes() for code in codes)


MANY = """
from diffusers import DiffusionPipeline
for turn in range(8):
    DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
"""


def test_several_processes_share_one_cache_of_modules(saved):
    processes = [run_elsewhere(MANY, saved, name) for name in KINDS]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said


@pytest.mark.parametrize("name", KINDS)
def test_the_code_is_saved_as_it_was_imported(saved, name, tmp_path):
    """Whatever became of the files it was read from: another version loaded since, a cache emptied."""
    folder = shutil.copytree(saved / name, tmp_path / "own")
    pipeline = load(folder)
    _, _, part, component = KINDS[name]
    kinds = [type(pipeline)] + ([type(getattr(pipeline, part))] if component else [])
    for kind in kinds:
        Path(inspect.getfile(kind)).write_text("raise SystemError('another version')")
    shutil.rmtree(folder)
    pipeline.save_pretrained(tmp_path / "again")
    for code in (saved / name).rglob("*.py"):
        assert (tmp_path / "again" / code.relative_to(saved / name)).read_bytes() == code.read_bytes()
    assert type(load(tmp_path / "again")).__name__ == type(pipeline).__name__


@pytest.mark.parametrize("name", KINDS)
def test_folders_of_the_former_layout_load_and_are_saved_again(saved, name, tmp_path):
    """The code in `pipeline.py`, as every kind of pipeline called it."""
    file, kind, _, _ = KINDS[name]
    folder = shutil.copytree(saved / name, tmp_path / "former")
    (folder / f"{file}.py").replace(folder / "pipeline.py")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": ["pipeline", kind]}))
    pipeline = load(folder)
    for target in (folder, tmp_path / "again"):  # in its own place too
        pipeline.save_pretrained(target)
        assert type(load(target)).__name__ == kind
        assert (target / f"{file}.py").read_bytes() == (saved / name / f"{file}.py").read_bytes()


@pytest.mark.parametrize("name", KINDS)
def test_custom_pipeline_takes_the_folder(saved, name, tmp_path):
    """Its own, and for weights whose index names no code."""
    file, kind, _, _ = KINDS[name]
    bare = shutil.copytree(saved / name, tmp_path / "bare")
    for code in bare.glob("*.py"):
        code.unlink()
    index = json.loads((bare / "model_index.json").read_text())
    (bare / "model_index.json").write_text(json.dumps(index | {"_class_name": kind}))
    for folder in (saved / name, bare):
        pipeline = load(folder, custom_pipeline=str(saved / name))
        pipeline.save_pretrained(tmp_path / folder.name)
        assert (tmp_path / folder.name / f"{file}.py").read_bytes() == (saved / name / f"{file}.py").read_bytes()
        assert type(load(tmp_path / folder.name)).__name__ == kind


@pytest.mark.parametrize("name", KINDS)
def test_a_compiled_network_is_saved_as_what_it_wraps(saved, name, tmp_path):
    part = {"diffusion": "unet"}.get(name, name)
    pipeline = load(saved / name)
    setattr(pipeline, part, torch.compile(getattr(pipeline, part)))
    pipeline.save_pretrained(tmp_path / "compiled")
    index, expected = (
        json.loads((at / "model_index.json").read_text()) for at in (tmp_path / "compiled", saved / name)
    )
    assert index == expected
    weights = [getattr(load(at), part).state_dict() for at in (tmp_path / "compiled", saved / name)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_pipeline_derived_from_ours_brings_its_own_file(tmp_path, monkeypatch):
    (tmp_path / "pipeline_mine.py").write_text(
        "from models.pipeline_vae import VAEPipeline\n\n\nclass Mine(VAEPipeline):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = __import__("pipeline_mine").Mine(make_vae().vae)
    mine.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine/pipeline_mine.py").read_text() == (tmp_path / "pipeline_mine.py").read_text()
    assert json.loads((tmp_path / "mine/model_index.json").read_text())["_class_name"] == ["pipeline_mine", "Mine"]


# Copies a file slowly, as a busy machine may; loads a pipeline several times when told to.
SLOWLY = """
import shutil, sys, time
from pathlib import Path
from triptych.pipelines.store import load_pipeline

def copy(source, target):
    with open(target, "wb") as file:
        time.sleep(float(sys.argv[2]))
        file.write(Path(source).read_bytes())
    time.sleep(float(sys.argv[2]))

shutil.copyfile = copy
print("ready", flush=True)
sys.stdin.readline()
for _ in range(6):
    for name in [name for name in sys.modules if name.startswith("diffusers_modules")]:
        del sys.modules[name]  # as the first time
    load_pipeline(sys.argv[1])
"""


def test_processes_that_load_at_the_same_moment_meet_no_half_a_file(saved, tmp_path):
    env = environment(HF_MODULES_CACHE=str(tmp_path / "modules"), OMP_NUM_THREADS="1")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = warmed([sys.executable, "-c", SLOWLY, saved / "vae"], env)
    both = [subprocess.Popen([*command, seconds], env=env, **pipes) for seconds in ("0.05", "0.07")]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], "".join(told)


def bound_names(text: str) -> dict[str, str]:
    """The names that a file binds at its top, with what an import brings under that name, or "" for its own."""
    names = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = node.module if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = f"{module}:{alias.name}"
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names[node.name] = ""
        else:
            stored = (n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            names |= dict.fromkeys((n.id for n in stored), "")
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("pipeline_*.py")), ids=lambda p: p.stem)
def test_files_joined_into_one_share_no_name(path):
    """A function of one would silently take the place of another's; only the same import may stand in several."""
    joined: dict[str, tuple[str, str]] = {}
    parts = gather(path, done=set())
    assert len(parts) > 1
    for module, text in parts:
        for name, brings in bound_names(text).items():
            before, brought = joined.setdefault(name, (module, brings))
            assert before == module or (brings and brings == brought), f"{name} is in {before}.py and in {module}.py"


def test_a_name_in_two_joined_files_would_be_found(tmp_path):
    (tmp_path / "first.py").write_text("import torch\n\ndef listed(): pass\n")
    (tmp_path / "second.py").write_text("import torch\nfrom .first import listed\n\nlisted = 3\n")
    names = [bound_names(text) for _, text in gather(tmp_path / "second.py", done=set())]
    assert names == [{"torch": ":torch", "listed": ""}] * 2
