"""The notebooks: they run, at a small scale; what is kept is of a real run; the badge leads to the repository."""

from __future__ import annotations

import base64
import io
import json
import re

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from jupyter_client.provisioning import LocalProvisioner
from nbformat import NotebookNode
from PIL import Image
from project.run_notebooks import FETCH, main, repository_address, run, smaller, write_address
from warm_start import warmed

from triptych.errors import UserError

NAMES = ("01_vae", "02_denoising_gan", "03_conditional_diffusion", "04_three_families")
LOCAL_PATH = re.compile(r"(?<![\w/.:])(?:/[\w.-]+){2,}|[A-Z]:\\")


def load(name: str) -> NotebookNode:
    return nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(notebook: NotebookNode) -> str:
    """All that the outputs say."""
    parts = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            parts.append(output.get("text", ""))
            parts += [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join(parts)


def kinds(cell: NotebookNode) -> list[str]:
    """What a cell shows: text, pictures, tables."""
    shown = []
    for output in cell.outputs:
        shown += ["stream"] if output.output_type == "stream" else sorted(output.data)
    return list(dict.fromkeys(shown))  # a stream may arrive in pieces


def test_there_are_these_and_no_others():
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == list(NAMES)


def forked_kernels(monkeypatch) -> None:
    """Kernels and what they start needn't import the libraries."""
    start = LocalProvisioner.launch_kernel

    def launch(self, command: list[str], **how):
        # the kernel chooses this backend itself, but before matplotlib is imported
        how["env"] = how["env"] | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        return start(self, warmed(command, how["env"]), **how)

    monkeypatch.setattr(LocalProvisioner, "launch_kernel", launch)


@pytest.mark.parametrize("name", NAMES)
def test_runs_from_top_to_bottom_without_data(name, monkeypatch):
    """Small, on the embedded digits; every cell shows what the kept run shows there."""
    for variable in ("TRIPTYCH_MNIST", "TRIPTYCH_CIFAR10", "MPLBACKEND"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in {"TRIPTYCH_SMALL": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    forked_kernels(monkeypatch)
    kept, fresh = load(name), load(name)
    run(fresh, ROOT / f"notebooks/{name}.ipynb", timeout=600)
    assert "within reach" in text_of(fresh), "it says which images it took"
    for before, after in zip(code_cells(kept), code_cells(fresh), strict=True):
        # what a script prints reaches a notebook beside the kernel's own output, in time or not
        late = {"stream"} if "stages.train" in before.source else set()
        assert set(kinds(before)) - late == set(kinds(after)) - late, before.source


@pytest.mark.parametrize("name", NAMES)
def test_outputs_kept_are_of_one_real_run(name):
    notebook = load(name)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5
    text = text_of(notebook)
    assert "within reach" not in text, "executed with the real images"
    assert LOCAL_PATH.findall(text) == []
    assert (ROOT / f"notebooks/{name}.ipynb").stat().st_size < 1_500_000


@pytest.mark.parametrize("name", NAMES)
def test_reads_as_a_lesson(name):
    """Words before code, mathematics among them, and what is said of the CIFAR-10 copy where it was used."""
    cells = load(name).cells
    words = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert re.match(r"# [^#]", words[1]) and sum(source.startswith("## ") for source in words) >= 5
    assert sum("$" in source for source in words) >= (2 if name.startswith("04") else 5)
    runs_of_code = "".join("c" if cell.cell_type == "code" else "m" for cell in cells)
    assert "cccc" not in runs_of_code
    said = "JPEG copy" in " ".join(" ".join(words).split())
    assert said == ("TRIPTYCH_CIFAR10" in "".join(cell.source for cell in cells))


@pytest.mark.parametrize("name", NAMES)
def test_badge_and_colab_cell_have_the_repository_s_address(name):
    notebook, address = load(name), repository_address()
    owner = address.removeprefix("https://github.com/")
    target = f"https://colab.research.google.com/github/{owner}/blob/main/notebooks/{name}.ipynb"
    assert target in notebook.cells[0].source and "colab-badge.svg" in notebook.cells[0].source
    assert code_cells(notebook)[0].source == FETCH.format(address=address)
    assert target in (ROOT / "docs/notebooks.md").read_text()
    elsewhere = "".join(cell.source for cell in notebook.cells[3:])
    assert "github.com" not in elsewhere and owner not in elsewhere


def test_a_fork_changes_one_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIPTYCH_REPOSITORY", "https://github.com/someone/three-models")
    notebook = load("01_vae")
    write_address(notebook, repository_address(), "01_vae.ipynb")
    assert "github/someone/three-models/blob/main/notebooks/01_vae.ipynb" in notebook.cells[0].source
    assert "clone --quiet --depth 1 https://github.com/someone/three-models" in code_cells(notebook)[0].source
    path = tmp_path / "01_vae.ipynb"
    nbformat.write(load("01_vae"), path)
    main(str(path), execute=False)
    assert "someone/three-models" in json.loads(path.read_text())["cells"][0]["source"][0]


def test_wrong_addresses_and_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="does not exist"):
        main(str(tmp_path / "none.ipynb"), execute=False)
    monkeypatch.setenv("TRIPTYCH_REPOSITORY", "gitlab.com/someone/else")
    with pytest.raises(UserError, match=r"project\.urls"):
        repository_address()


def test_a_failing_cell_leaves_the_notebook_as_it_was(tmp_path):
    notebook = load("01_vae")
    notebook.cells = [*notebook.cells[:3], nbformat.v4.new_code_cell("raise ValueError('broken here')")]
    path = tmp_path / "01_vae.ipynb"
    nbformat.write(notebook, path)
    before = path.read_text()
    with pytest.raises(UserError, match="broken here"):
        main(str(path))
    assert path.read_text() == before


@pytest.mark.parametrize("colours", [1, 2, 4000, 20000])
def test_pictures_are_kept_smaller_and_look_the_same(colours):
    """Few colours to the last bit, a chart's many shades nearly, a photograph within two bits; no transparency."""
    values = np.random.default_rng(0).integers(256, size=(colours, 3), dtype=np.uint8)
    pixels = values[np.arange(200 * 200).reshape(200, 200) % colours]
    encoded = io.BytesIO()
    Image.fromarray(pixels).convert("RGBA").save(encoded, "png")
    before = base64.b64encode(encoded.getvalue()).decode()
    after = Image.open(io.BytesIO(base64.b64decode(smaller(before))))
    assert "A" not in after.getbands() and len(smaller(before)) < len(before)
    error = np.abs(np.asarray(after.convert("RGB"), int) - pixels)
    assert error.max() <= (0 if colours <= 256 else 3 if colours > 4096 else 255) and error.mean() < 16
