"""A judge of a second family: its network, how it is trained, and that everything a judge is used for works with it."""

from __future__ import annotations

from triptych.cli import command

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from stand_ins import classifier_flags
from torch import nn
from transformers import AutoModelForImageClassification, ConvNextConfig, ConvNextForImageClassification, ResNetConfig

from triptych.config.base import DataConfig
from triptych.config.classifier import ClassifierConfig, ClassifierModelConfig
from triptych.config.training import OptimizerConfig
from triptych.data.augmentation import enlarge
from triptych.data.image_set import to_images
from triptych.data.sources import load_images
from triptych.evaluation.extraction import extract
from triptych.evaluation.judges import load_judge
from triptych.evaluation.scores import load_metric
from triptych.training.optimizers import KernelMuon, make_optimizers
from triptych.training.whitening import whitening_kernels

CONVNEXT = {
    "model__model_type": "convnext",
    "model__patch_size": "2",
    "model__hidden_sizes": "8,16",
    "model__depths": "1,2",
    "optimizer__name": "muon",
    "optimizer__lr": "3e-3",
    "optimizer__muon_lr": "0.02",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of twelve updates, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("convnext")
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train_classifier.py", *classifier_flags(name="run", **CONVNEXT)])
        command(importlib.import_module("train_classifier").main, ClassifierConfig)
    return folder / "runs/run"


def test_what_is_saved_is_that_network(trained):
    model = AutoModelForImageClassification.from_pretrained(trained / "classifier")
    assert type(model) is ConvNextForImageClassification
    assert (model.config.patch_size, model.config.hidden_sizes, model.config.depths) == (2, [8, 16], [1, 2])
    assert not hasattr(model.config, "embedding_size"), "what belongs to the other family stays out"
    card = (trained / "classifier/README.md").read_text()
    assert "- convnext" in card and "Liu et al. 2022" in card and "resnet" not in card


def test_it_judges(trained):
    """Features are what its head sees, the accuracy is that of its answers, and maps are as large as stages are."""
    judge, test = load_judge(trained / "classifier"), load_images(DataConfig(split="test"))
    found = extract(judge, test)
    assert torch.allclose(judge.model.classifier(found["features"]), found["logits"], atol=1e-5)
    labels = test.__getitems__(range(len(test)))["labels"]
    scores = json.loads((trained / "scores.json").read_text())
    assert scores["accuracy"] == pytest.approx((found["logits"].argmax(1) == labels).float().mean().item())
    pixels = test.__getitems__(range(4))["pixels"]
    side = judge.processor.size["height"] // 2
    assert [tuple(maps.shape[1:]) for maps in judge.feature_maps(pixels)] == [
        (8, side, side), (8, side, side), (16, side // 2, side // 2)
    ]  # fmt: skip
    metric, images = load_metric("perceptual_distance"), (pixels / 255).numpy()
    same, other = (
        metric.compute(predictions=images, references=to, feature_maps=judge.feature_maps)["perceptual_distance"]
        for to in (images, images[::-1].copy())
    )
    assert same == pytest.approx(0, abs=1e-6) and other > 0.01


def test_its_stem_can_be_whitened(train_here):
    changes = CONVNEXT | {"whitened_stem": "true", "num_updates": "4"}
    run = train_here("train_classifier", ClassifierConfig, classifier_flags(name="white", **changes))
    train = load_images(DataConfig(channels=3))
    pixels = enlarge(to_images(train.__getitems__(range(len(train)))["pixels"]), 2)
    saved = load_file(run / "classifier/model.safetensors")
    expected = whitening_kernels(pixels, 8, kernel_size=2, stride=2)
    assert torch.allclose(saved["convnext.embeddings.patch_embeddings.weight"], expected, rtol=1e-3, atol=1e-4)


def test_muon_turns_what_mixes_channels():
    """Matrices and whole kernels; not kernels within a channel, nor what maps from pixels or to classes."""
    network = ConvNextForImageClassification(ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], depths=[1, 1]))
    adamw, muon = make_optimizers(network, OptimizerConfig(name="muon"), ends=("convnext.embed", "classifier"))
    assert isinstance(muon, KernelMuon)
    named = {id(p): name for name, p in network.named_parameters()}
    turned = {named[id(p)].split("layers.0.")[-1] for p in muon._kernels}
    assert turned == {"pwconv1.weight", "pwconv2.weight", "convnext.encoder.stages.1.downsampling_layer.1.weight"}
    others = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert len(others) + len(muon._kernels) == len(named)

    class Grouped(nn.Module):
        def __init__(self, groups: int):
            super().__init__()
            self.middle = nn.Conv2d(8, 8, 3, groups=groups)

    assert len(make_optimizers(Grouped(1), OptimizerConfig(name="muon"))) == 2
    assert all(not isinstance(o, KernelMuon) for o in make_optimizers(Grouped(8), OptimizerConfig(name="muon")))


def test_settings_are_those_of_transformers():
    """Each is a field of that library's configuration, so none is silently kept and never used."""
    for kind, layout in (("resnet", ResNetConfig), ("convnext", ConvNextConfig)):
        settings = ClassifierModelConfig(model_type=kind).settings()
        assert settings.pop("model_type") == kind == layout.model_type
        assert set(settings) <= set(layout().to_dict())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.model_type", "vit"], "model_type"),
        (["--model.patch_size", "0"], "model.patch_size must be at least 1"),
        (["--model.drop_path_rate", "1"], "model.drop_path_rate must lie in"),
    ],
)
def test_what_is_no_network_is_refused(flags, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_classifier.py", *flags])
    with pytest.raises(SystemExit) as left:
        command(lambda config: None, ClassifierConfig)
    assert left.value.code == 2 and message in capsys.readouterr().err
