"""A saved class-conditional pipeline elsewhere: loaded, refused without trust, saved again."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from conftest import environment, launched
from diffusers import DiffusionPipeline
from drawing import draw
from stand_ins import make_diffusion

TRAVELLER = """
import sys
sys.modules["models"] = sys.modules["triptych"] = None  # this process cannot import the repository
import torch
from diffusers import DiffusionPipeline, DDIMScheduler, UNet2DModel
for folder, again in (("saved", "again"), ("again", "third")):
    pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(["frog", 0], generator=[torch.Generator().manual_seed(s) for s in (1, 2)], output_type="pt").images
    torch.save(images, folder + ".pt")
    pipe.save_pretrained(again)
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
pipe("cat", eta=0.5)
UNet2DModel.from_pretrained("again", subfolder="unet")
"""


@pytest.fixture(scope="module")
def travelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    pipeline = make_diffusion()
    pipeline.save_pretrained(folder / "original")
    shutil.copytree(folder / "original", folder / "saved")
    env = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = launched([sys.executable, "-c", TRAVELLER], folder, env)
    assert done.returncode == 0, done.stderr
    return folder, draw(pipeline, ["frog", 0], [1, 2])


def test_travels_and_is_saved_again_there(travelled):
    folder, expected = travelled
    for name in ("saved", "again"):
        torch.testing.assert_close(torch.load(folder / f"{name}.pt"), expected)
    for name in ("original", "third"):
        index = json.loads((folder / name / "model_index.json").read_text())
        assert index["_class_name"] == ["pipeline_class_conditional", "ClassConditionalPipeline"]
        assert "_name_or_path" not in index
        for file in ("pipeline_class_conditional.py", "pipeline.py"):
            assert (folder / name / file).read_text() == (folder / "original" / file).read_text()


def test_loading_without_trust_is_refused(travelled):
    folder, _ = travelled
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(folder / "saved")


def test_half_precision_weights_draw_in_single(tmp_path):
    pipeline = make_diffusion()
    expected = draw(pipeline, "cat", [1])
    pipeline.to(torch.float16).save_pretrained(tmp_path / "half")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "half", trust_remote_code=True)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.unet.dtype == torch.float32
    torch.testing.assert_close(draw(loaded, "cat", [1]), expected, atol=5e-3, rtol=1e-2)
