"""scripts/train_flow.py: what is interrupted goes on as if it had not been, and what is trained draws."""

from __future__ import annotations

from triptych.cli import command

import importlib
import json
import sys

import pytest
import torch
from conftest import ROOT, TINY
from safetensors.torch import load_file

from triptych.config.flow import FlowConfig
from triptych.errors import UserError
from triptych.evaluation.scores import draw
from triptych.pipelines.store import load_pipeline
from triptych.publishing import staging


def flow_flags(**changes: object) -> list[str]:
    taken = ("data.", "run.", "unet.", "batch", "num_", "grad", "opt", "hor", "sampling.")
    settings = {key: value for key, value in TINY.items() if key.startswith(taken)}
    settings |= {"unet.attention_resolutions": "[4]"} | {key.replace("__", "."): changes[key] for key in changes}
    return [part for key, value in settings.items() for part in (f"--{key}", str(value))]


def parse(monkeypatch, *arguments: str) -> FlowConfig:
    monkeypatch.setattr(sys, "argv", ["train_flow.py", *arguments])
    configs = []
    command(lambda config: configs.append(config), FlowConfig)
    return configs[0]


@pytest.fixture
def train(monkeypatch, tmp_path):
    """The tiny experiment in this process; the run's folder."""
    monkeypatch.chdir(tmp_path)

    def call(**changes: object):
        config = parse(monkeypatch, *flow_flags(**changes))
        importlib.import_module("train_flow").main(config)
        return tmp_path / "runs" / config.name

    return call


def test_resumed_bit_for_bit(train, monkeypatch):
    """Stopped between two checkpoints, dropout and accumulation included."""
    whole = train(name="whole")
    script = importlib.import_module("train_flow")
    kept, calls = script.interpolate, []

    def fails(*arguments):
        calls.append(1)
        if len(calls) > 2 * 6:  # two batches an update: in the seventh
            raise KeyboardInterrupt
        return kept(*arguments)

    monkeypatch.setattr(script, "interpolate", fails)
    with pytest.raises(KeyboardInterrupt):
        train(name="stopped")
    monkeypatch.setattr(script, "interpolate", kept)
    stopped = train(name="stopped", resume="latest")
    sessions = json.loads((stopped / "run.json").read_text())["sessions"]
    assert [session["from_update"] for session in sessions] == [0, 4]
    assert (stopped / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes()
    for part in ("checkpoints/update_00000012/model", "pipeline/unet/diffusion_pytorch_model"):
        first, second = (load_file(folder / f"{part}.safetensors") for folder in (whole, stopped))
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("distribution", ["uniform", "logit_normal"])
def test_what_is_saved(train, distribution):
    run = train(name="saved", num_updates=2, time__distribution=distribution, run__sample_every=2, sampling__shift=2)
    assert len(list((run / "samples").glob("*.png"))) == 1
    pipeline = load_pipeline(str(run / "pipeline"), "unet")
    assert pipeline.class_names == list("0123456789") and pipeline.config.num_inference_steps == 2
    assert pipeline.scheduler.config.shift == 2 and len(pipeline("7", 3).images) == 3
    card = (run / "pipeline/README.md").read_text()
    assert "scripts/train_flow.py" in card and distribution.replace("_", "-") in card and "rectified flow" in card
    assert staging.find(run).kind == "FlowPipeline", "it can be published"
    # and what was written before there was such a family draws from it
    images, labels, _ = draw(pipeline, {"num_inference_steps": 1}, 2, 20, 0, run / "drawn")
    assert images.shape == (20, 1, 8, 8) and labels.tolist() == [*range(10)] * 2
    importlib.import_module("generate").main(str(run / "pipeline"), run / "generated", num_images_per_class=2)
    assert len(list((run / "generated").glob("*.png"))) == 21


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--time.std", "0"], "time.std must be positive"),
        (["--time.distribution", "normal"], "logit_normal"),
        (["--sampling.shift", "-1"], "sampling.shift"),
        (["--label_dropout", "1"], "label_dropout"),
        (["--sampling.scheduler", "DDIM"], "sampling.scheduler"),
    ],
)
def test_bad_settings_are_named(monkeypatch, capsys, arguments, says):
    with pytest.raises(SystemExit) as left:
        parse(monkeypatch, *arguments)
    said = capsys.readouterr().err
    assert left.value.code == 2 and says in said and "Traceback" not in said


def test_the_demo_parses_and_fits(monkeypatch):
    config = parse(monkeypatch, "--config", str(ROOT / "configs/demo/flow_digits.yaml"))
    assert config.name == "demo_flow_digits" and config.unet.arguments(8, 1, 1)["sample_size"] == 8


def test_images_without_labels_are_refused(train, tmp_path):
    from PIL import Image

    (tmp_path / "plain").mkdir()
    for k in range(8):
        Image.new("L", (8, 8), k).save(tmp_path / f"plain/{k}.png")
    with pytest.raises(UserError, match="label"):
        train(name="new", data__path=tmp_path / "plain")
    assert not (tmp_path / "runs/new").exists()
