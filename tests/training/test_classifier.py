"""The judge: its training under accelerate, killed and resumed, its folder elsewhere, its configs."""

from __future__ import annotations

from triptych.cli import command

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, environment, launch_command
from conftest import launched as run_to_its_end
from PIL import Image
from safetensors.torch import load_file
from stand_ins import classifier_flags, write_images
from torch.utils.flop_counter import FlopCounterMode
from transformers import ResNetConfig, ResNetForImageClassification

from triptych.config.base import DataConfig
from triptych.config.classifier import ClassifierConfig
from triptych.data.image_set import to_images
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.evaluation.extraction import extract
from triptych.evaluation.judges import load_judge
from triptych.jsonl import read_rows
from triptych.training.whitening import whitening_kernels

SCRIPT = ROOT / "scripts/train_classifier.py"


# ---- training --------------------------------------------------------------------------------------------------


@pytest.fixture
def main(train_here):
    """The log of a tiny training."""

    def call(**changes: str) -> list[dict]:
        return read_rows(train_here("train_classifier", ClassifierConfig, classifier_flags(**changes)) / "log.jsonl")

    return call


def launch(folder: Path, *launcher: str, script: Path = SCRIPT, **changes: str) -> subprocess.CompletedProcess:
    command = [*launch_command(*launcher, script=script), *classifier_flags(**changes)]
    return run_to_its_end(command, folder, fresh=bool(launcher))


def result(run: Path) -> dict:
    """What two equal runs must share: log, scores, the weights trained, averaged and saved."""
    return {
        "log": (run / "log.jsonl").read_text(),
        "scores": json.loads((run / "scores.json").read_text()),
        "weights": load_file(run / "checkpoints/update_00000012/model.safetensors"),
        "classifier": load_file(run / "classifier/model.safetensors"),
    }


def same(a: object, b: object) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> Path:
    """A run under a real `accelerate launch`."""
    folder = tmp_path_factory.mktemp("classifier")
    done = launch(folder, name="whole", validate_every=6)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    return folder / "runs/whole"


def test_killed_and_resumed_ends_the_same(launched, tmp_path):
    """kill -9 in the middle of an update, two updates after a checkpoint."""
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, runpy, triptych.training.run as r; o = r.Run.rand\ndef rand(self, *s):\n"
        "    if self.update == 6 and self.updated: os.kill(os.getpid(), 9)\n    return o(self, *s)\n"
        f"r.Run.rand = rand\nrunpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    done = launch(tmp_path, script=script, name="killed", validate_every=6)
    assert done.returncode != 0 and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "runs/killed/classifier").exists()
    done = launch(tmp_path, name="killed", validate_every=6, resume="latest")
    assert done.returncode == 0 and "update_00000004" in done.stderr, done.stderr
    ended, expected = result(tmp_path / "runs/killed"), result(launched)
    for part, value in ended.items():
        assert same(value, expected[part]), f"{part} differs from the uninterrupted run"


TRAVELLER = """
import json, sys
sys.modules["models"] = sys.modules["triptych"] = None
from PIL import Image
from transformers import pipeline
classify = pipeline("image-classification", model="classifier", device="cpu")
paths = [f"{i}.png" for i in range(20)]
answers = [answer[0]["label"] for answer in classify([Image.open(path) for path in paths])]
print(json.dumps(answers))
print(json.dumps([classify(path)[0]["label"] for path in paths[:3]]))
"""


def test_the_folder_works_in_transformers_pipeline_elsewhere(launched, tmp_path):
    test = load_images(DataConfig(split="test"))
    pixels = test.__getitems__(range(20))["pixels"]
    for i, image in enumerate(pixels):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{i}.png")  # 8x8, grey, as the data is
    (tmp_path / "classifier").symlink_to(launched / "classifier")
    env = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = run_to_its_end([sys.executable, "-c", TRAVELLER], tmp_path, env)
    assert done.returncode == 0, done.stderr
    answers, from_paths = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    judge = load_judge(launched / "classifier")
    assert judge.name == "features of whole" and judge.class_names == test.class_names
    expected = [judge.class_names[i] for i in judge(pixels)["logits"].argmax(1)]
    assert answers == expected and from_paths == expected[:3]


def test_scores_and_card(launched):
    scores = json.loads((launched / "scores.json").read_text())
    test = load_images(DataConfig(split="test"))
    labels = test.__getitems__(range(len(test)))["labels"]
    recognised = extract(load_judge(launched / "classifier"), test)["logits"].argmax(1)
    assert scores["accuracy"] == pytest.approx((recognised == labels).float().mean().item())
    assert (scores["n"], scores["split"], scores["seed"], scores["half"]) == (360, "test", 0, None)
    matrix = torch.tensor(scores["confusion_matrix"])
    assert matrix.sum() == 360 and matrix.diagonal().sum() == (recognised == labels).sum()
    card = (launched / "classifier/README.md").read_text()
    assert "library_name: transformers" in card and f"{scores['accuracy']:.2%} of 360 images" in card
    assert not list(launched.glob(".*partial"))


def test_the_whitened_stem_is_measured_and_stays(launched):
    train = load_images(DataConfig(channels=3))
    pixels = to_images(train.__getitems__(range(len(train)))["pixels"])
    pixels = F.interpolate(pixels, scale_factor=2, mode="bilinear")
    saved = load_file(launched / "classifier/model.safetensors")
    expected = whitening_kernels(pixels, 8, kernel_size=7, stride=2)
    assert torch.allclose(saved["resnet.embedder.embedder.convolution.weight"], expected, rtol=1e-3, atol=1e-4)


def test_a_stem_that_is_not_whitened_learns(main, tmp_path):
    main(name="x", whitened_stem="false", model__embedding_size=7)
    first, last = (
        load_file(tmp_path / f"runs/x/checkpoints/update_{update:08d}/model.safetensors")[
            "resnet.embedder.embedder.convolution.weight"
        ]
        for update in (8, 12)
    )
    assert not torch.equal(first, last)


def test_two_processes_train_together(tmp_path):
    """Batch norm sees half a batch on each, so the numbers are not those of one; the draws are."""
    done = launch(tmp_path, "--multi_gpu", "--num_processes", "2", name="two", batch_size=4, num_updates=3)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "runs/two/scores.json").read_text())["n"] == 360


def test_training_learns_and_validation_measures_what_is_saved(main, tmp_path):
    rows = main(
        name="x",
        num_updates=60,
        batch_size=64,
        gradient_accumulation_steps=1,
        upsample=4,
        cutout=0,
        horizontal_flip="false",
        model__hidden_sizes="[16, 32]",
        ema__decay=0.9,
        optimizer__max_grad_norm="null",
        validate_every=30,
        run__log_every=15,
    )
    scores = json.loads((tmp_path / "runs/x/scores.json").read_text())
    assert rows[-1]["loss"] < rows[0]["loss"] and scores["accuracy"] > 0.8
    assert [row["update"] for row in rows if "validation_accuracy" in row] == [30, 60]
    # the image processor rounds to 8 bits after enlarging, validation does not: an image or two may differ
    assert rows[-1]["validation_accuracy"] == pytest.approx(scores["accuracy"], abs=0.01)


def test_validation_changes_nothing_of_the_training(main):
    with_it, without = main(name="a", validate_every=3), main(name="b")
    assert [{k: v for k, v in row.items() if not k.startswith("validation")} for row in with_it] == [
        {k: v for k, v in row.items() if not k.startswith("validation")} for row in without
    ]


def test_the_last_updates_blot_nothing_out(main):
    cut, plain = main(name="cut"), main(name="plain", cutout=0)
    assert cut[0] != plain[0]
    assert main(name="never", num_refining_updates=12) == plain
    half = main(name="half", num_refining_updates=6)
    first = [row["update"] <= 6 for row in cut].count(True)
    assert half[:first] == cut[:first] and half[first] != cut[first]


def test_a_judge_of_half_the_images(main, tmp_path):
    main(name="x", num_updates=1, run__log_every=1, half="odd")
    record = json.loads((tmp_path / "runs/x/run.json").read_text())
    assert record["data"]["num_images"] == 718
    assert json.loads((tmp_path / "runs/x/scores.json").read_text())["half"] == "odd"
    assert "every other image (odd)" in (tmp_path / "runs/x/classifier/README.md").read_text()


@pytest.mark.parametrize("limit", [2048, 0])
def test_the_halves_are_apart_and_whole(tmp_path, limit):
    """Held in memory and streamed."""
    write_images(tmp_path / "set", count=7)
    images = load_images(DataConfig(path=str(tmp_path / "set"), memory_limit_mb=limit))
    whole = images.__getitems__(range(7))
    for first in (0, 1):
        half = images.every_other(first)
        batch = half.__getitems__(range(len(half)))
        assert all(torch.equal(batch[key], whole[key][first::2]) for key in batch)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"max_shift": 8}, "max_shift 8 must be less than the images' 8 pixels"),
        ({"validation_split": "validation"}, "have the splits train and test"),
        ({"model__embedding_size": 7}, r"model\.embedding_size cannot be 7. Choose an even number"),
    ],
)
def test_bad_input(main, changes, says):
    with pytest.raises(UserError, match=says):
        main(name="bad", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"model__depths": "[1]"},
        {"upsample": 0},
        {"num_refining_updates": -1},
        {"label_smoothing": 1},
        {"validate_every": 4},
        {"half": "first"},
        {"optimizer__name": "adam"},
    ],
)
def test_bad_settings_are_refused_before_any_work(main, tmp_path, changes):
    with pytest.raises(SystemExit):
        main(name="bad", **changes)
    assert not (tmp_path / "runs").exists()


def test_splits_of_other_sizes_are_refused(main, tmp_path):
    write_images(tmp_path / "set/train")
    write_images(tmp_path / "set/test", size=(12, 12))
    with pytest.raises(UserError, match=r"'test' has images of 12 pixels .* Set data\.image_size"):
        main(name="bad", data__path=str(tmp_path / "set"))


# ---- configs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/**/classifier*.yaml")), ids=lambda p: p.stem)
def test_every_config_parses_and_costs_what_it_says(monkeypatch, path):
    monkeypatch.setattr(sys, "argv", ["train_classifier.py", "--config", str(path)])
    configs = []
    command(lambda config: configs.append(config), ClassifierConfig)
    (config,) = configs
    network = ResNetConfig(num_channels=3, num_labels=10, **dataclasses.asdict(config.model))
    model = ResNetForImageClassification(network)
    side = config.upsample * {"digits": 8, "ylecun/mnist": 28, "uoft-cs/cifar10": 32}[config.data.path]
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, side, side))
    said = {"classifier_cifar10": "0.66", "classifier_mnist": "0.028"}.get(path.stem)
    if said is not None:
        assert f"{said} GFLOP an image" in path.read_text()
        assert counter.get_total_flops() / 1e9 == pytest.approx(float(said), rel=0.05)
