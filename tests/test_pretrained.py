"""What we ship works right after cloning, offline."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import ROOT
from diffusers import DiffusionPipeline

SHIPPED = sorted(path.parent for path in (ROOT / "pretrained").glob("*/model_index.json"))
DIFFUSION = [folder for folder in SHIPPED if (folder / "unet").exists()]
VAES = [folder for folder in SHIPPED if (folder / "vae").exists()]


def megabytes(*folders) -> float:
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file()) / 1e6


def test_what_the_readme_names_is_there():
    names = {"cifar10-class-conditional", "vae-mnist-z2", "vae-mnist-z4", "vae-mnist-z16"}
    assert {folder.name for folder in SHIPPED} == names


@pytest.mark.parametrize("folder", DIFFUSION, ids=lambda p: p.name)
def test_diffusion_draws_right_after_cloning(folder):
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    name = pipeline.class_names[3]
    draw = [pipeline(name, generator=torch.Generator().manual_seed(s), output_type="pt").images for s in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])
    assert draw[0].std() > 0.05, "a picture, not a grey square"
    assert megabytes(folder) < 35


@pytest.mark.parametrize("folder", VAES, ids=lambda p: p.name)
def test_vae_draws_and_reconstructs_right_after_cloning(folder):
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    assert pipeline.vae.config.latent_dim == int(folder.name.split("z")[-1])
    drawn = pipeline(16, generator=torch.Generator().manual_seed(0), output_type="pt").images
    # Digits as MNIST has them: mostly black, with white strokes; and its own drawings survive a reconstruction.
    assert drawn.shape == (16, 1, 28, 28) and 0.05 < drawn.mean() < 0.25 and drawn.flatten(1).amax(1).mean() > 0.8
    assert (pipeline.reconstruct(drawn) - drawn).square().mean() < 0.005


def test_vaes_are_small():
    assert megabytes(*VAES) < 5


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda p: p.name)
def test_carries_the_code_of_this_repository(folder):
    name = "pipeline_class_conditional" if folder in DIFFUSION else "pipeline_vae"
    assert (folder / "pipeline.py").read_text() == (ROOT / f"models/{name}.py").read_text()
    if folder in VAES:
        assert (folder / "vae/vae.py").read_text() == (ROOT / "models/vae.py").read_text()
    for path in folder.rglob("*.json"):
        assert "_name_or_path" not in path.read_text(), "no folder of the machine it was made on"
    card = (folder / "README.md").read_text()
    assert "library_name: diffusers" in card and "images seen" in card
    assert json.loads((folder / "model_index.json").read_text())["_class_name"][0] == "pipeline"
