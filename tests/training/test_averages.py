"""Averages whose width is chosen after training, against the same average kept from the start."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, flags, launch_command, launched
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from triptych.errors import UserError
from triptych.training.averages import PowerAverages, average_of, combine, exponent, profiles_overlap


def moved(model: torch.nn.Module, update: int) -> None:
    """A training: the weights go somewhere, at first fast, and shake on the way."""
    generator = torch.Generator().manual_seed(update)
    with torch.no_grad():
        for parameter in model.parameters():
            shake = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(torch.ones_like(parameter) * 10 * (1 - np.exp(-update / 60)) + 0.3 * shake)


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """320 updates with two averages saved every 20, and one of another width kept beside them."""
    folder = tmp_path_factory.mktemp("averages")
    model = torch.nn.Linear(40, 5)
    kept, direct = PowerAverages(model, (0.05, 0.10)), PowerAverages(model, (0.08, 0.15))
    for update in range(1, 321):
        moved(model, update)
        kept.step(model.parameters())
        direct.step(model.parameters())
        if update % 20 == 0:
            kept.save(folder)
    return folder, model, direct


def test_an_average_has_the_width_it_is_called_by():
    """The standard deviation of the profile, by numerical integration."""
    tau = np.linspace(0, 1, 200_001)
    for width in (0.03, 0.1, 0.2, 0.27):
        gamma = exponent(width)
        profile = (gamma + 1) * tau**gamma
        mean = np.trapezoid(profile * tau, tau)
        assert np.trapezoid(profile, tau) == pytest.approx(1, abs=1e-4)
        assert np.sqrt(np.trapezoid(profile * (tau - mean) ** 2, tau)) == pytest.approx(width, rel=1e-3)


def test_the_inner_product_is_an_integral():
    tau = np.linspace(0, 50, 500_001)
    cases = [(50, 3.0, 20, 7.0), (30, 6.9, 30, 16.9), (10, 0.5, 50, 2.0)]
    for t_a, a, t_b, b in cases:
        p_a = np.where(tau <= t_a, (a + 1) * tau**a / t_a ** (a + 1), 0)
        p_b = np.where(tau <= t_b, (b + 1) * tau**b / t_b ** (b + 1), 0)
        assert profiles_overlap(t_a, a, t_b, b) == pytest.approx(np.trapezoid(p_a * p_b, tau), rel=1e-3)


def test_each_step_weighs_the_updates_by_a_power():
    """tau^(gamma + 1) - (tau - 1)^(gamma + 1) over t^(gamma + 1) is what beta_t unrolls to."""
    model = torch.nn.Linear(1, 1, bias=False)
    averages, gamma, path = PowerAverages(model, (0.1,)), exponent(0.1), []
    for update in range(1, 31):
        moved(model, update)
        path.append(model.weight.item())
        averages.step(model.parameters())
    powers = np.arange(31) ** (gamma + 1)
    weights = np.diff(powers) / powers[-1]
    assert float(averages.state_dict()["averages"][0.1][0]) == pytest.approx(np.dot(weights, path), rel=1e-5)


@pytest.mark.parametrize("width", [0.08, 0.15])
def test_a_width_chosen_afterwards_is_the_one_kept_from_the_start(training, width):
    folder, model, direct = training
    made = average_of(sorted(folder.iterdir()), width)
    last = dict(model.named_parameters())
    kept = dict(zip(last, direct.state_dict()["averages"][width], strict=True))
    for name, value in made.items():
        error = (value - kept[name]).abs().max()
        assert error < 0.03 < 0.2 < (last[name] - kept[name]).abs().max(), "far nearer than the last weights"


def test_an_average_that_was_saved_comes_back_and_an_earlier_one_too(training):
    folder, _, _ = training
    assert combine([(100, 0.05), (200, 0.05), (200, 0.1)], 200, 0.1) == pytest.approx([0, 0, 1], abs=1e-6)
    paths = sorted(folder.iterdir())
    earlier = average_of(paths, 0.1, update=100)
    assert all(map(torch.equal, earlier.values(), average_of(paths[:5], 0.1).values()))
    with pytest.raises(UserError, match="no snapshot of update 110; there are those of"):
        average_of(paths, 0.1, update=110)


def test_a_checkpoint_of_other_widths_is_refused():
    model = torch.nn.Linear(2, 2)
    state = PowerAverages(model, (0.05, 0.1)).state_dict()
    with pytest.raises(UserError, match=r"widths \[0.05, 0.1\]; the config names \[0.2\]"):
        PowerAverages(model, (0.2,)).load_state_dict(state)


# All that a run can keep or draw beside the plain recipe, at a constant rate, so that it can grow and be branched off.
NEW = {
    "power_averages__widths": "[0.05,0.1]",
    "power_averages__snapshot_every": "4",
    "noise_levels__distribution": "log_normal",
    "noise_levels__stratified": "true",
    "data_std": "0.5",
    "class_embedding_scale": "0.1",
    "unet__dropout": "0",
    "optimizer__name": "adamw",
    "optimizer__lr_schedule": "constant",
}


@pytest.fixture
def launch(train):
    return lambda *launcher, **changes: train(*launcher, **NEW | changes)


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    """Twelve updates, whole."""
    folder = tmp_path_factory.mktemp("trunk")
    command = [*launch_command(), *flags(**NEW, name="trunk")]
    done = launched(command, folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs/trunk"


def log_of(run) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_branch_ends_a_run_in_another_way(tmp_path, trunk, launch):
    """A constant rate, branched off at update 8 and brought to zero over 4 more: the trunk is as it was, the branch is
    the same when it is killed before its first checkpoint, and the average of both can be made afterwards."""
    before = {path: path.read_bytes() for path in trunk.rglob("*") if path.is_file()}
    decay = {"optimizer__lr_schedule": "warmup_stable_decay", "optimizer__num_decay_updates": 4, "num_updates": 14}
    checkpoint = str(trunk / "checkpoints/update_00000008")
    done = launch(name="branch", resume=checkpoint, **decay)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in trunk.rglob("*") if path.is_file()} == before
    branch = log_of(tmp_path / "runs/branch")
    assert branch[:2] == log_of(trunk)[:2], "its log begins with the trunk's"
    assert [row["update"] for row in branch] == [3, 6, 9, 12, 14]
    assert branch[2]["lr"] == branch[1]["lr"] > branch[3]["lr"] > branch[4]["lr"] > 0
    record = json.loads((tmp_path / "runs/branch/run.json").read_text())
    assert record["branched_from"] == checkpoint and record["sessions"][0]["from_update"] == 8

    # As if killed before its first checkpoint: what is left of it goes on from the trunk's.
    again = tmp_path / "runs/branch"
    weights = (again / "pipeline/unet/diffusion_pytorch_model.safetensors").read_bytes()
    for path in (again / "checkpoints").iterdir():
        shutil.rmtree(path)
    done = launch(name="branch", resume="latest", **decay)
    assert done.returncode == 0 and "update_00000008" in done.stderr, done.stderr
    assert (again / "pipeline/unet/diffusion_pytorch_model.safetensors").read_bytes() == weights

    script = [sys.executable, str(ROOT / "scripts/average_weights.py"), str(again), "0.08", "runs/averaged"]
    done = launched(script, tmp_path)
    assert done.returncode == 0, done.stderr
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "runs/averaged", trust_remote_code=True)
    snapshots = [*sorted((trunk / "averages").iterdir())[:2], *sorted((again / "averages").iterdir())]
    assert [path.stem[-2:] for path in snapshots] == ["04", "08", "12", "14"], "the trunk's up to the branch"
    for name, value in average_of(snapshots, 0.08).items():
        assert torch.equal(pipeline.unet.state_dict()[name], value), name
    assert pipeline.config.data_std == 0.5


def test_a_branch_from_a_checkpoint_that_was_kept_elsewhere(tmp_path, trunk, launch):
    """It goes on as from the run itself; only the log of before and the averages of before are not there."""
    decay = {"optimizer__lr_schedule": "warmup_stable_decay", "optimizer__num_decay_updates": 4, "num_updates": 14}
    kept = shutil.copytree(trunk / "checkpoints/update_00000008", tmp_path / "kept/at_8")
    for name, checkpoint in (("there", trunk / "checkpoints/update_00000008"), ("kept", kept)):
        done = launch(name=name, resume=str(checkpoint), **decay)
        assert done.returncode == 0, done.stderr
    weights = [
        (tmp_path / f"runs/{run}/pipeline/unet/diffusion_pytorch_model.safetensors") for run in ("there", "kept")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert log_of(tmp_path / "runs/kept") == [row for row in log_of(tmp_path / "runs/there") if row["update"] > 8]

    script = [sys.executable, str(ROOT / "scripts/average_weights.py"), "runs/kept", "0.08", "runs/averaged"]
    done = launched(script, tmp_path)
    assert done.returncode == 2 and "Put that run's averages/ into" in done.stderr, done.stderr
    shutil.copytree(trunk / "averages", kept / "averages")
    assert launched(script, tmp_path).returncode == 0
    script[2:5] = ["runs/there", "0.08", "runs/averaged_there"]
    assert launched(script, tmp_path).returncode == 0
    weights = [tmp_path / name / "unet/diffusion_pytorch_model.safetensors" for name in ("runs/averaged", script[4])]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    done = launch(name="nothing", resume=str(tmp_path), **decay)
    assert done.returncode != 0 and "is no checkpoint of another run" in done.stderr, done.stderr
    assert not (tmp_path / "runs/nothing").exists()


def test_a_branch_may_learn_more_gently(tmp_path, trunk, launch):
    """From its first update on, at its own rate; a run that is resumed may not."""
    at_8 = trunk / "checkpoints/update_00000008"
    before = yaml.safe_load((trunk / "config.yaml").read_text())["optimizer"]["lr"]
    more = {"num_updates": 14, "optimizer__lr": before / 2, "optimizer__max_grad_norm": 0.1}
    done = launch(name="branch", resume=str(at_8), **more)
    assert done.returncode == 0, done.stderr
    its, trunks = ({row["update"]: row["lr"] for row in log_of(run)} for run in (tmp_path / "runs/branch", trunk))
    assert its[6] == trunks[6] and its[12] == pytest.approx(trunks[12] / 2)
    assert its[9] == pytest.approx(trunks[9] * 2.5 / 3), "updates 7 and 8 are the trunk's"
    done = launch(name="branch", resume="latest", **more | {"optimizer__lr": before, "num_updates": 16})
    assert done.returncode != 0 and "other settings (optimizer.lr: " in done.stderr, done.stderr


def test_what_a_branch_may_not_change(tmp_path, trunk, launch):
    done = launch(name="branch", num_updates=14, resume=str(trunk / "checkpoints/update_00000008"), seed=1)
    assert done.returncode != 0 and "other settings (seed: 0 -> 1)" in done.stderr, done.stderr
    assert not (tmp_path / "runs/branch").exists()


def test_two_processes_share_the_new_random_numbers(tmp_path, trunk, launch):
    assert launch("--multi_gpu", "--num_processes", "2", name="two", batch_size=4).returncode == 0
    for a, b in zip(log_of(trunk), log_of(tmp_path / "runs/two"), strict=True):
        assert a == pytest.approx(b, rel=2e-4)


def test_resumed_with_the_new_options_it_ends_the_same(tmp_path, trunk, launch):
    """Ended after 9 updates and let grow to 12, against a run in one go: averages, log and weights to the bit."""
    assert launch(name="parts", num_updates=9).returncode == 0
    assert launch(name="parts", resume="latest").returncode == 0
    parts = tmp_path / "runs/parts"
    assert log_of(parts) == log_of(trunk)
    for name in ("averages/update_00000012.safetensors", "pipeline/unet/diffusion_pytorch_model.safetensors"):
        ours, theirs = load_file(parts / name), load_file(trunk / name)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours), name
