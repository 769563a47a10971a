"""A run of twelve updates, a copy of it to be damaged, and trainings in this process."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from conftest import ROOT, flags, launched
from stand_ins import classifier_flags, gan_flags, vae_flags

from triptych.config.classifier import ClassifierConfig
from triptych.config.diffusion import DiffusionConfig
from triptych.config.gan import GanConfig
from triptych.config.vae import VaeConfig

TRAININGS = {
    "train_diffusion": (DiffusionConfig, flags),
    "train_vae": (VaeConfig, vae_flags),
    "train_gan": (GanConfig, gan_flags),
    "train_classifier": (ClassifierConfig, classifier_flags),
}


@pytest.fixture
def start(train_here):
    """A training in this process, from its command line on; the run's folder."""
    return lambda script, *arguments: train_here(script, TRAININGS[script][0], arguments)


@pytest.fixture
def train(start):
    """The tiny experiment of one of the scripts."""

    def call(name: str, script: str = "train_vae", **changes: object) -> Path:
        return start(script, *TRAININGS[script][1](name=name, **{k: str(v) for k, v in changes.items()}))

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of twelve updates with checkpoints of 8 and 12."""
    folder = tmp_path_factory.mktemp("trained")
    script = [sys.executable, str(ROOT / "scripts/train_vae.py"), *vae_flags(name="run")]
    done = launched(script, folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("Training run: cpu, 1 thread, precision fp32.\n")
    return folder / "runs/run"


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of it, stopped before its pipeline was saved."""
    shutil.copytree(trained, tmp_path / "runs/run")
    shutil.rmtree(tmp_path / "runs/run/pipeline")
    return tmp_path / "runs/run"
