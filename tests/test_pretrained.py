"""What we ship works right after cloning, offline."""

from __future__ import annotations

import pytest
import torch
from conftest import ROOT
from diffusers import DiffusionPipeline

SHIPPED = sorted(path.parent for path in (ROOT / "pretrained").glob("*/model_index.json"))


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda p: p.name)
def test_draws_right_after_cloning(folder):
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    name = pipeline.class_names[3]
    draw = [pipeline(name, generator=torch.Generator().manual_seed(s), output_type="pt").images for s in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])
    assert draw[0].std() > 0.05, "a picture, not a grey square"
    assert sum(f.stat().st_size for f in folder.rglob("*")) < 35e6


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda p: p.name)
def test_carries_the_code_of_this_repository(folder):
    assert (folder / "pipeline.py").read_text() == (ROOT / "models/pipeline_class_conditional.py").read_text()
    card = (folder / "README.md").read_text()
    assert "library_name: diffusers" in card and "images seen" in card


def test_the_cat():
    assert ROOT / "pretrained/cifar10-class-conditional" in SHIPPED
