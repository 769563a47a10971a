"""A classifier trained on drawn images is asked about real ones; the same on real images stands beside it."""

from __future__ import annotations

import importlib
import json
import re

import datasets
import pytest
import torch
from conftest import ROOT
from PIL import Image
from stand_ins import make_diffusion

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.data.tables import save_table
from triptych.evaluation.reconstruction import first_of_each_class


@pytest.mark.parametrize("channels", [1, 3])
def test_a_table_is_read_as_it_was_saved(tmp_path, channels):
    pixels = torch.randint(0, 256, (6, channels, 8, 8), dtype=torch.uint8)
    labels, names = torch.tensor([2, 0, 1, 1, 0, 2]), ["ship", "cat / dog", "3"]
    save_table(tmp_path / "a/table", {"train": (pixels, labels), "test": (pixels[:3], labels[:3])}, names)
    for split, n in (("train", 6), ("test", 3)):
        images = load_images(DataConfig(str(tmp_path / "a/table"), split=split), need_labels=True)
        read = images.__getitems__(range(n))
        assert torch.equal(read["pixels"], pixels[:n]) and torch.equal(read["labels"], labels[:n])
        assert images.class_names == names
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["table"], "nothing half done is left"


def test_a_table_is_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    def interrupted(self, path, *_, **__):
        (tmp_path / path).mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets.DatasetDict, "save_to_disk", interrupted)
    pixels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(KeyboardInterrupt):
        save_table(tmp_path / "table", {"train": (pixels, torch.tensor([0, 1]))}, ["a", "b"])
    assert not list(tmp_path.iterdir())


@pytest.fixture
def digits(tmp_path):
    """What the study is told: a pipeline of digits that has learned nothing, and a training of minutes made short."""
    make_diffusion(channels=1, class_names=[str(k) for k in range(10)]).save_pretrained(tmp_path / "pipeline")
    flags = ["--run.num_threads", "1", "--run.tracker", "null", "--run.progress", "false", "--num_updates", "60"]
    flags += ["--optimizer.num_warmup_updates", "10", "--ema.decay", "0.9", "--validate_every", "0"]
    experiment = str(ROOT / "configs/demo/classifier_digits.yaml")
    return ["pipeline", experiment, "--data.split", "test", "--train_flags", json.dumps(flags)]


def test_what_was_learned_from_drawn_images_is_asked_of_real_ones(study, digits, monkeypatch, tmp_path):
    """Real images in place of the drawn ones teach as much, to the last digit; noise teaches nothing."""
    training = load_images(DataConfig("digits"))
    real = training.__getitems__(first_of_each_class(training, 100))
    script = importlib.import_module("studies.classification_accuracy")
    monkeypatch.setattr(script, "draw", lambda *_: (real["pixels"], real["labels"], 0.0))
    command = ["classification_accuracy", *digits, "--num_images_per_class", "100", "--output"]
    done = study(*command, "same")
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "same/scores.json").read_text())
    (of_real,), (of_drawn,) = scores["real"], scores["drawn"]
    assert of_real["accuracy"] == of_drawn["accuracy"] > 0.6 and of_real["n"] == 360
    assert of_real["confusion_matrix"] == of_drawn["confusion_matrix"]
    table, share = (tmp_path / "same/table.md").read_text(), of_real["accuracy"]
    said = f"{share:.1%} ± {1.96 * (share * (1 - share) / 360) ** 0.5:.1%}"
    assert f"| all | {said} | {said} |" in table
    assert "Accuracy on 360 real images after training on 1,000" in table and "seeds" not in table
    assert Image.open(tmp_path / "same/classes.png").convert("L").getextrema() == (0, 255)

    noise = torch.randint(0, 256, real["pixels"].shape, dtype=torch.uint8)
    monkeypatch.setattr(script, "draw", lambda *_: (noise, real["labels"], 0.0))
    assert study(*command, "noise").returncode == 0
    scores = json.loads((tmp_path / "noise/scores.json").read_text())
    assert scores["drawn"][0]["accuracy"] < 0.35 < scores["real"][0]["accuracy"] == share


def test_it_goes_on_where_it_was_interrupted(study, digits, tmp_path):
    """The images of the pipeline itself; a second seed draws nothing and trains two more."""
    flags = [
        "--num_updates",
        "4",
        "--optimizer.num_warmup_updates",
        "1",
        "--run.tracker",
        "null",
        "--run.num_threads",
        "1",
    ]
    few = ["--num_images_per_class", "3", "--num_inference_steps", "2", "--train_flags", json.dumps(flags)]
    command = ["classification_accuracy", *digits[:4], *few, "--output", "runs/cas", "--seeds"]
    done = study(*command, "0")
    assert done.returncode == 0, done.stderr
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs/cas").glob("*/*") if path.is_file()}
    assert study(*command, "0,1").returncode == 0
    assert "the mean of 2 seeds, whose standard deviation is" in (tmp_path / "runs/cas/table.md").read_text()
    assert all(path.stat().st_mtime_ns == at for path, at in made.items()), "nothing is made twice"
    names = sorted(re.sub("_[0-9a-f]+_", "_", path.name) for path in (tmp_path / "runs/cas").glob("*_seed*"))
    assert names == [f"{source}_seed{seed}" for source in ("drawn", "real") for seed in range(2)]
    swapped = [{"test": "train"}.get(word, word) for word in command]
    assert study(*swapped, "0", "--train_split", "test").returncode == 0
    assert len(list((tmp_path / "runs/cas").glob("images_*"))) == 4, "no table of other images is taken for these"


def test_it_refuses(study, digits, tmp_path):
    make_diffusion(channels=3).save_pretrained(tmp_path / "colour")
    for wrong, message in (
        (["--train_split", "test"], "images that were not learned"),
        (["--num_images_per_class", "1000"], "a class has only"),
        (["--num_images_per_class", "1", "--train_flags", '["--run.push_to", "me/x"]'], "--run.push_to is not for"),
    ):
        done = study("classification_accuracy", *digits, *wrong)
        assert done.returncode == 2 and message in done.stderr, done.stderr
    make_diffusion(channels=1).save_pretrained(tmp_path / "animals")
    for other, message in (("colour", "draws images of (3, 8, 8)"), ("animals", "has other classes")):
        done = study("classification_accuracy", other, *digits[1:])
        assert done.returncode == 2 and message in done.stderr, done.stderr
