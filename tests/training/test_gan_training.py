"""The denoising GAN's training: what it logs, who trains whom, that it restores, and resumes exactly."""

from __future__ import annotations

from triptych.cli import command

import importlib
import sys

import pytest
import torch
from conftest import ROOT
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from stand_ins import gan_flags

from triptych.config.base import NoiseConfig
from triptych.config.gan import GanConfig
from triptych.data.degradations import degrade_by_index
from triptych.data.image_set import to_images
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.jsonl import read_rows
from triptych.training.run import Run

KINDS = ["non_saturating", "least_squares", "hinge", "relativistic"]


@pytest.fixture
def main(train_here):
    """The log of a tiny training."""

    def call(**changes: str) -> list[dict]:
        return read_rows(train_here("train_gan", GanConfig, gan_flags(**changes)) / "log.jsonl")

    return call


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_is_logged_apart(main, kind):
    rows = main(name="x", adversarial=kind, run__log_every=4)
    always = {"loss_generator", "loss_discriminator", "reconstruction", "psnr", "accuracy_real", "accuracy_restored"}
    assert all(always | {"grad_norm_generator", "grad_norm_discriminator", "r1"} <= row.keys() for row in rows)
    assert "adversarial" not in rows[0], "in the warm-up the generator minimises the reconstruction alone"
    for row in rows[1:]:
        parts = row["reconstruction"] + 0.01 * row["adversarial"] + 0.1 * row["feature_matching"]
        assert row["loss_generator"] == pytest.approx(parts, rel=1e-4)


def test_regression_has_no_game(main, tmp_path):
    """adversarial_weight 0: no discriminator anywhere in the log, and its weights stay as they were."""
    rows = main(name="x", adversarial_weight="0", feature_matching_weight="0")
    assert not any(key in row for row in rows for key in ("loss_discriminator", "adversarial", "accuracy_real"))
    states = [torch.load(p, weights_only=False) for p in (tmp_path / "runs/x/checkpoints").glob("*12/optimizer*.bin")]
    assert sum(bool(state["state"]) for state in states) == 2, "Muon and AdamW of the generator; nothing of the judge"


def test_the_generator_never_trains_the_judge(main, monkeypatch):
    """With a learning rate of next to nothing for the judge, only its own step could move it; gradients don't leak."""
    script = importlib.import_module("train_gan")
    seen = []
    original = script.take_step

    def watch(run, model, optimizers, norm, name):
        if name == "generator":
            judge = run.accelerator._models[1]
            seen.append(all(p.grad is None or not p.grad.any() for p in judge.parameters()))
        original(run, model, optimizers, norm, name)

    monkeypatch.setattr(script, "take_step", watch)
    main(name="x", gradient_accumulation_steps="1")
    assert seen and all(seen)


def test_training_restores(main, tmp_path):
    """Regression on the digits: far better than doing nothing, on test images it has not seen."""
    main(
        name="x",
        adversarial_weight="0",
        feature_matching_weight="0",
        num_updates="300",
        optimizer__name="adamw",
        optimizer__lr="2e-3",
        batch_size="32",
        gradient_accumulation_steps="1",
        generator__pixel_unshuffle="1",
        noise__sigma="[50, 50]",
        horizontal_flip="false",
    )
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "runs/x/pipeline", trust_remote_code=True)
    config = GanConfig(noise=NoiseConfig(sigma=(50, 50)))
    clean = to_images(load_images(config.data).__getitems__(range(200))["pixels"])
    noisy = degrade_by_index(clean, range(200), config.noise, seed=9)
    restored = torch.stack(pipeline(noisy / 2 + 0.5, output_type="pt").images) * 2 - 1
    before, after = ((x - clean).square().mean() for x in (noisy, restored))
    assert after < before / 2, f"{10 * torch.log10(before / after):.1f} dB gained"


def test_resume_is_exact_for_both_networks(main, tmp_path):
    whole = main(name="whole")
    original = Run.positions

    def dies(self, size):
        if self.update == 7:
            raise KeyboardInterrupt
        return original(self, size)

    Run.positions = dies
    try:
        with pytest.raises(KeyboardInterrupt):
            main(name="broken")
    finally:
        Run.positions = original
    assert main(name="broken", resume="latest") == whole
    for name in ("model.safetensors", "model_1.safetensors"):
        a, b = (load_file(tmp_path / f"runs/{run}/checkpoints/update_00000012/{name}") for run in ("whole", "broken"))
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_bad_input(main):
    for wrong in (
        {"noise__sigma": "[-5, 5]"},
        {"noise__sigma": "[0, 300]"},
        {"adversarial_weight": "0"},
        {"generator__prediction_type": "velocity"},
    ):
        with pytest.raises(SystemExit):
            main(name="x", **wrong)
    with pytest.raises(UserError, match="does not exist"):
        main(name="x", data__path="./nothing")


def test_the_demo_config_parses(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--config", str(ROOT / "configs/demo/gan_digits.yaml")])
    configs = []
    command(lambda config: configs.append(config), GanConfig)
    assert configs[0].noise.sigma == (50, 50)
