"""Studies started in several processes: the work is shared, every row is measured and written once."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from conftest import ROOT, launch_command, launched
from diffusers import UNet2DModel
from stand_ins import make_diffusion, make_judge

from models.pipeline_class_conditional import ClassConditionalPipeline

# Runs a study and notes which process drew a batch: what is drawn asks for its generators once.
NOTING = """
import os, runpy, sys
from triptych.evaluation import scores

ask = scores.image_generators

def note(*arguments):
    with open(f"drawn_by_{os.environ['RANK']}", "a") as file:
        file.write("a batch\\n")
    return ask(*arguments)

scores.image_generators = note
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(os.path.dirname(sys.argv[0])))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def saved(tmp_path) -> Path:
    """Two pipelines of the ten digits, and a judge of them, in the folder that is returned."""
    few = make_diffusion(channels=1)
    unet = UNet2DModel.from_config(few.unet.config, num_class_embeds=11)
    pipeline = ClassConditionalPipeline(unet, few.scheduler, dict(enumerate("0123456789")), 2, num_inference_steps=2)
    for name in ("one", "two"):
        pipeline.save_pretrained(tmp_path / name)
        unet.conv_out.weight.data += 0.1
    for part in make_judge(dict(enumerate("0123456789")), size=8, channels=1):
        part.save_pretrained(tmp_path / "judge")
    (tmp_path / "noting.py").write_text(NOTING)
    return tmp_path


@pytest.mark.parametrize(
    ("study", "what", "settings"),
    [
        ("sampling", "one", {"schedulers": "DDIM", "num_inference_steps": [1, 2, 2], "guidance_scales": [1.0]}),
        ("recipes", "one=one,two=two", {"num_denoised": 9}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*feature dimensions")
def test_two_processes_share_a_study(saved, study, what, settings, monkeypatch):
    """They draw half of the batches each, and write the rows that one process writes."""
    monkeypatch.chdir(saved)
    settings = {"judge": "judge", "num_images_per_class": 2, "batch_size": 10, "num_bootstrap": 2} | settings
    script = ROOT / f"scripts/studies/{study}.py"
    command = launch_command("--multi_gpu", "--num_processes", "2", script=saved / "noting.py")
    flags = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    command += [str(script), what, *flags, "--output", "shared"]
    done = launched(command, saved)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("table.md") == 1, "one process writes and prints"
    drawn = [len((saved / f"drawn_by_{rank}").read_text().splitlines()) for rank in (0, 1)]
    assert drawn == [2, 2]

    importlib.import_module(f"studies.{study}").main(what, **settings, output=Path("alone"))
    shared, alone = (
        [json.loads(line) for line in (saved / folder / "rows.jsonl").read_text().splitlines()]
        for folder in ("shared", "alone")
    )
    assert len(shared) == len(alone) == 2
    for a, b in zip(shared, alone, strict=True):
        assert a.keys() == b.keys() and a["n"] == 20
        assert a["frechet_distance"] == pytest.approx(b["frechet_distance"], rel=1e-3)
        for key in a.keys() & {"error_class", "error_null"}:
            assert a[key] == pytest.approx(b[key], rel=1e-5)
