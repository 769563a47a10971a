"""One device policy: what computes goes where the user says, results come back, and processes share the work."""

from __future__ import annotations

import ast
import json

import numpy as np
import pytest
import torch
from conftest import ROOT, launch_command, launched
from stand_in_device import stand_in_device
from stand_ins import make_denoiser, make_diffusion, make_judge, make_vae

from triptych import devices
from triptych.devices import find_device
from triptych.evaluation import scores
from triptych.evaluation.extraction import extract
from triptych.evaluation.judges import Judge
from triptych.evaluation.latents import encode_means
from triptych.evaluation.restorers import load_restorers
from triptych.training.machine import peak_memory_mb


@pytest.fixture(autouse=True)
def _one_thread(_threads) -> None:
    torch.set_num_threads(1)


def test_the_stand_in_refuses_what_an_accelerator_would():
    with stand_in_device() as device:
        x = torch.ones(2, 3).to(device)
        net = torch.nn.Linear(3, 2).to(device)
        assert x.device == device == next(net.parameters()).device and net(x).device == device
        assert (x * 2).cpu().numpy().sum() == 12, "what has come back is readable, and right"
        for mixed in (lambda: net(torch.ones(1, 3)), lambda: x + torch.ones(2, 3), lambda: torch.cat([x, x.cpu()])):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        for read in (x.numpy, lambda: np.asarray(x)):
            with pytest.raises(TypeError, match=r"use \.cpu\(\) first"):
                read()


def test_the_device_asked_for_or_the_best(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    assert find_device(None) == torch.device("cuda") and find_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert find_device(None) == torch.device("cpu"), "accelerate launch --cpu"


def test_seconds_and_memory_are_those_of_the_device(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda device: 3 * 2**20)
    cuda = torch.device("cuda")
    assert devices.seconds_now(cuda) <= devices.seconds_now(torch.device("cpu")) and waited == [cuda]
    assert peak_memory_mb(cuda) == 3
    assert peak_memory_mb() == pytest.approx(peak_memory_mb(torch.device("cpu")), rel=0.01)
    assert peak_memory_mb() > 50, "Python and torch alone take as much"


@pytest.mark.filterwarnings("ignore:.*feature dimensions")
def test_a_drawing_and_its_scores_cross_the_device_once(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.torch.accelerator, "synchronize", lambda device: None)
    here = scores.draw(make_diffusion(), {"num_inference_steps": 2}, 4, 5, 0, tmp_path / "here")
    model, processor = make_judge()
    expected = extract(Judge(model, processor, "judge"), here[0])
    with stand_in_device() as device:
        there = scores.draw(make_diffusion().to(device), {"num_inference_steps": 2}, 4, 5, 0, tmp_path / "there")
        critic = Judge(model.to(device), processor, "judge")
        seen = extract(critic, there[0], cache=tmp_path / "features")
        recognised = scores.recognised(critic.class_names, critic.class_names, seen["logits"], there[1])
        found = scores.distances(critic, seen, seen, 2, 0)
    assert torch.equal(here[0], there[0]) and torch.equal(here[1], there[1])
    torch.testing.assert_close(seen, expected, atol=0.02, rtol=0)  # torchvision resizes bytes to other last bits there
    assert recognised["class_accuracy"] == pytest.approx(
        sum(row["accuracy"] for row in recognised["per_class"].values()) / 3
    )
    assert found["frechet_distance"] == pytest.approx(0, abs=1e-3)


def test_restorers_take_and_give_on_the_cpu(tmp_path):
    make_denoiser().save_pretrained(tmp_path / "denoiser")
    make_diffusion().save_pretrained(tmp_path / "diffusion")
    noisy = [torch.rand(3, 8, 8), torch.rand(3, 8, 8)]
    models = f"denoiser={tmp_path / 'denoiser'},diffusion={tmp_path / 'diffusion'}"
    here = {name: restore(noisy, 0.1) for name, (restore, _) in load_restorers(models, [2], device="cpu").items()}
    with stand_in_device() as device:
        for name, (restore, _) in load_restorers(models, [2], device=device).items():
            restored = restore(noisy, 0.1)
            assert [type(image) for image in restored] == [torch.Tensor] * 2
            torch.testing.assert_close(torch.stack(list(restored)), torch.stack(list(here[name])))


def test_latent_means_are_read_on_the_cpu():
    pixels = torch.rand(5, 1, 8, 8)
    expected = encode_means(make_vae(), pixels, "vae")
    with stand_in_device() as device:
        np.testing.assert_allclose(encode_means(make_vae().to(device), pixels, "vae"), expected, rtol=1e-5)


def test_every_script_that_computes_takes_a_device():
    """In the same words; those that train are told by accelerate."""
    words = "device: cpu, cuda, mps; the best there is if not given."
    loads = ("load_pipeline(", "load_judge(", "load_critic(", "load_restorers(")
    asked = []
    for path in sorted((ROOT / "scripts").rglob("*.py")):
        text = path.read_text()
        if path.stem.startswith(("train_", "distill", "average", "export", "publish")):
            continue
        if any(part in text for part in loads):
            asked.append(path.stem)
            (main,) = (n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == "main")
            assert "device" in [argument.arg for argument in main.args.args], path
            assert words in ast.get_docstring(main), path
    assert {"score", "score_vae", "score_denoiser", "restore", "generate", "sampling", "recipes", "banner"} <= set(
        asked
    )


@pytest.mark.filterwarnings("ignore:.*feature dimensions")
def test_two_processes_share_a_scoring_and_write_it_once(tmp_path):
    """Each draws and looks at its half; the scores are those of one process."""
    make_vae().save_pretrained(tmp_path / "vae")
    for part in make_judge():
        part.save_pretrained(tmp_path / "judge")
    flags = [str(tmp_path / "vae"), "--judge", str(tmp_path / "judge"), "--num_images_per_class", "3"]
    flags += ["--batch_size", "8", "--num_bootstrap", "2"]
    found = {}
    for count in ("1", "2"):
        several = ["--multi_gpu", "--num_processes", "2"] if count == "2" else []  # for all its name, on a CPU too
        launch = launch_command(*several, script=ROOT / "scripts/score.py")
        command = [*launch, *flags, "--output", str(tmp_path / count)]
        done = launched(command, tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("scores.json") == 1
        found[count] = json.loads((tmp_path / count / "scores.json").read_text())
        assert len(list((tmp_path / count / "features").iterdir())) == 2
    assert found["1"].keys() == found["2"].keys() and found["2"]["n"] == 30
    assert found["2"]["frechet_distance"] == pytest.approx(found["1"]["frechet_distance"], rel=1e-3)
