"""The repository's address: one setting, written everywhere by one command."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from blocks import LEFT_OUT
from conftest import ROOT, environment
from huggingface_hub import ModelCard
from project import set_address

from triptych.errors import UserError
from triptych.publishing.address import UNSET, checked_address, repository_address
from triptych.publishing.cards import publish

FORK = "https://github.com/some-one/a.fork"
# other people's, which the documents name too
FOREIGN = {"huggingface/diffusers", "huggingface/diffusion-models-class", "lucidrains/denoising-diffusion-pytorch"}
FOREIGN |= {"AntixK/PyTorch-VAE"}


@pytest.fixture
def copy(tmp_path) -> Path:
    shutil.copytree(ROOT, tmp_path / "copy", ignore=LEFT_OUT)
    return tmp_path / "copy"


def set_to(url: str, copy: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(copy / "scripts/project/set_address.py"), url],
        env=environment(PYTHONPATH=str(copy)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def named(folder: Path) -> dict[str, set[str]]:
    """The repositories on GitHub that each file of a checkout names, in addresses and in links to Colab."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".md", ".cff", ".toml", ".ipynb") and "tests" not in path.parts:
            text = path.read_text("utf-8")
            names = set(re.findall(r"(?:github\.com|research\.google\.com/github)/([\w.-]+/[\w.-]*\w)", text))
            found[str(path.relative_to(folder))] = {name.removesuffix(".git") for name in names} - FOREIGN
    return {name: names - {"OWNER/REPO"} for name, names in found.items() if names - {"OWNER/REPO"}}


def test_everywhere_and_once(copy):
    before = named(copy)
    current = repository_address().removeprefix("https://github.com/")
    assert set().union(*before.values()) == {current}, "one address, and no other that isn't known"
    assert {
        "README.md",
        "CITATION.cff",
        "pyproject.toml",
        "docs/notebooks.md",
        "notebooks/01_vae.ipynb",
        "notebooks/fa/01_vae.ipynb",
    } <= before.keys()
    said = set_to(f"{FORK}/", copy)
    assert named(copy) == {name: {"some-one/a.fork"} for name in before} and all(name in said for name in before)
    assert yaml.safe_load((copy / "CITATION.cff").read_text())["repository-code"] == FORK
    assert tomllib.loads((copy / "pyproject.toml").read_text())["project"]["urls"]["Repository"] == FORK
    texts = {name: (copy / name).read_bytes() for name in before}
    assert "everywhere already" in set_to(FORK, copy), "again"
    assert {name: (copy / name).read_bytes() for name in before} == texts
    set_to(f"https://github.com/{current}", copy)
    assert all((copy / name).read_bytes() == (ROOT / name).read_bytes() for name in before), "and back"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "some-one/fork",
        "https://github.com/owner",
        "https://gitlab.com/owner/name",
        "git@github.com:owner/name.git",
        "https://github.com/owner/..",
        "https://github.com/owner/name/tree/main",
        "https://github.com/-owner/name",
    ],
)
def test_what_is_no_address_is_refused_and_changes_nothing(url, tmp_path):
    (tmp_path / "pyproject.toml").write_text(f'Repository = "{UNSET}"\n')
    with pytest.raises(UserError, match=r"not of the form https://github\.com/OWNER/REPO"):
        set_address.main(url, tmp_path)
    assert UNSET in (tmp_path / "pyproject.toml").read_text()


def test_what_ends_an_address_is_left_out():
    for end in ("", "/", ".git", ".git/"):
        assert checked_address(FORK + end) == FORK


def test_addresses_that_begin_alike_stay():
    old, new = UNSET, FORK
    for end in (")", ".", ".git", "/blob/main", '"', " ", "\\n"):
        assert set_address.replaced(old + end, old, new) == new + end
    for other in (f"{old}-2", f"{old}.io", f"{old}_x", old.replace("triptych", "trip")):
        assert set_address.replaced(other, old, new) == other


def test_make_passes_the_address_on():
    done = subprocess.run(["make", "-n", "address", f"URL={FORK}"], cwd=ROOT, capture_output=True, text=True)
    assert f'scripts/project/set_address.py "{FORK}"' in done.stdout


def test_a_published_card_leads_to_the_project(monkeypatch):
    text = "---\nlicense: apache-2.0\n---\n# x\n\n## How it was trained\n\nBy Triptych's `scripts/train_vae.py`.\n"
    for address, said in ((FORK, f"By [Triptych]({FORK})'s `scripts"), (UNSET, "By Triptych's `scripts")):
        monkeypatch.setenv("TRIPTYCH_REPOSITORY", address)
        card = ModelCard(text)
        publish(card, "VAEPipeline", "you/vae")
        assert said in card.text
        publish(card, "VAEPipeline", "you/vae")
        assert said in card.text and "[Triptych]([" not in card.text, "published again"
