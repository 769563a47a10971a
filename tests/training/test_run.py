"""The promises of a run folder, under real `accelerate launch` processes that are really killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, environment, flags, launch_command, launched
from safetensors.torch import load_file

from triptych.errors import UserError
from triptych.training import checkpoints


def rows(folder: Path, name: str = "log") -> list[dict]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def result(folder: Path) -> dict:
    """Everything that two equal runs must share: weights, averages, optimizer, log, the exported pipeline."""
    (final,) = (folder / "checkpoints").glob("update_00000012")
    custom = [torch.load(path, weights_only=False) for path in sorted(final.glob("custom_checkpoint_*.pkl"))]
    for state in custom:
        state.pop("seconds", None)
    return {
        "weights": load_file(final / "model.safetensors"),
        "optimizers": [torch.load(path, weights_only=False) for path in sorted(final.glob("optimizer*.bin"))],
        "custom": custom,
        "log": (folder / "log.jsonl").read_bytes(),
        "pipeline": load_file(folder / "pipeline/unet/diffusion_pytorch_model.safetensors"),
    }


def same(a: object, b: object) -> bool:
    """Equality down to the last bit, through nested containers."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("reference")
    command = [*launch_command(), *flags(name="whole")]
    done = launched(command, folder)
    assert done.returncode == 0, done.stderr
    return {"folder": folder / "runs/whole", **result(folder / "runs/whole")}


def die_at(where: str) -> str:
    """A script that trains like scripts/train_diffusion.py and kills itself with SIGKILL at `where`."""
    hooks = {
        # in the middle of an update that no checkpoint covers yet
        "update 3": "import triptych.training.run as r; o = r.Run.randn\n"
        "def randn(self, *s):\n"
        "    if self.update == 2 and self.updated: os.kill(os.getpid(), 9)\n    return o(self, *s)\n"
        "r.Run.randn = randn",
        # all files of checkpoint 8 are written, but it is not sealed
        "checkpoint 8": "import triptych.training.checkpoints as c; o = c.commit\n"
        "def commit(p, k):\n    if p.name.endswith('08'): os.kill(os.getpid(), 9)\n    return o(p, k)\n"
        "c.commit = commit",
        # half the files of checkpoint 8 are there
        "half of checkpoint 8": "import accelerate.checkpointing as a; o = a.save_custom_state\n"
        "def save(obj, path, i, *z, **k):\n"
        "    if i == 1 and '08' in str(path): os.kill(os.getpid(), 9)\n    return o(obj, path, i, *z, **k)\n"
        "import accelerate.accelerator as b; a.save_custom_state = b.save_custom_state = save",
        # the log has rows that checkpoint 8 does not know of
        "update 11": "import triptych.training.run as r; o = r.Run.randn\n"
        "def randn(self, *s):\n    if self.update == 10: os.kill(os.getpid(), 9)\n    return o(self, *s)\n"
        "r.Run.randn = randn",
    }
    script = ROOT / "scripts/train_diffusion.py"
    return f"import os, runpy, sys\n{hooks[where]}\nrunpy.run_path({str(script)!r}, run_name='__main__')\n"


def test_killed_again_and_again_ends_the_same(tmp_path, train, reference):
    """kill -9 before the first checkpoint, while two checkpoints are being written, and after the log ran ahead."""
    for where in ("update 3", "half of checkpoint 8", "checkpoint 8", "update 11"):
        script = tmp_path / "dies.py"
        script.write_text(die_at(where))
        done = train(script=script, name="killed", resume="latest")
        assert done.returncode != 0 and "Traceback" not in done.stderr, done.stderr
    found = {"update_00000004", "update_00000008"}
    assert {c.name for c in (tmp_path / "runs/killed/checkpoints").iterdir()} == found
    done = train(name="killed", resume="latest")
    assert done.returncode == 0, done.stderr
    assert "update_00000008" in done.stderr
    ended = result(tmp_path / "runs/killed")
    for part, value in ended.items():
        assert same(value, reference[part]), f"{part} differs from the uninterrupted run"


def test_killed_from_outside_ends_the_same(tmp_path, train, reference):
    """SIGKILL to the whole process group at a moment nobody chose."""
    command = [*launch_command(), *flags(name="outside")]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), start_new_session=True, stderr=subprocess.DEVNULL
    )
    log = tmp_path / "runs/outside/log.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not (log.exists() and log.stat().st_size):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = train(name="outside", resume="latest")
    assert done.returncode == 0, done.stderr
    ended = result(tmp_path / "runs/outside")
    assert all(same(value, reference[part]) for part, value in ended.items())


def test_signals_save_and_leave(tmp_path, train, reference):
    """SIGTERM to the training process, then Ctrl-C to the group: both save, and the run ends the same."""
    slow = (
        "import triptych.training.run as r, time; o = r.Run.randn\n"
        "def randn(self, *s): time.sleep(0.3); return o(self, *s)\n"
    )
    script = tmp_path / "slow.py"
    script.write_text(
        f"import runpy\n{slow}r.Run.randn = randn\nrunpy.run_path({str(ROOT / 'scripts/train_diffusion.py')!r}, "
        f"run_name='__main__')\n"
    )
    for number, at_least in ((signal.SIGTERM, 1), (signal.SIGINT, 2)):
        command = [*launch_command(script=script), *flags(name="stopped", resume="latest", run__log_every=1)]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), start_new_session=True, stderr=subprocess.PIPE, text=True
        )
        log, deadline = tmp_path / "runs/stopped/log.jsonl", time.monotonic() + 120
        while time.monotonic() < deadline and not (log.exists() and log.read_bytes().count(b"\n") >= at_least * 2):
            time.sleep(0.02)
        os.killpg(process.pid, number)
        process.wait(timeout=60)
        # The launcher may leave first; the training process is gone when its pipe closes.
        said = process.stderr.read()
        stopped_at = int(re.search(r"Stopped at update (\d+) and saved", said).group(1))
        assert (tmp_path / f"runs/stopped/checkpoints/update_{stopped_at:08d}").exists()
    done = train(name="stopped", resume="latest", run__log_every=1)
    assert done.returncode == 0, done.stderr
    ended = result(tmp_path / "runs/stopped")
    for part in ("weights", "optimizers", "pipeline"):
        assert same(ended[part], reference[part]), part


def test_two_processes_equal_one(tmp_path, train, reference):
    """Half the batch on each of two gloo processes: the same losses, and a checkpoint of both that resumes."""
    # `--num_processes 2 --cpu` starts one process unless there is an MPI; this launcher starts two anywhere.
    two = ["--multi_gpu", "--num_processes", "2"]
    # AdamW: Muon orthogonalises in bf16, which turns the last bits of a gradient into visible digits.
    same_for_both = {"unet__dropout": 0, "optimizer__name": "adamw"}
    done = train(*two, name="two", batch_size=4, fresh=True, **same_for_both)
    assert done.returncode == 0, done.stderr
    one = train(name="one", **same_for_both)
    assert one.returncode == 0, one.stderr
    for a, b in zip(rows(tmp_path / "runs/one"), rows(tmp_path / "runs/two"), strict=True):
        assert a == pytest.approx(b, rel=2e-4)
    newest = tmp_path / "runs/two/checkpoints/update_00000012"
    assert {p.name for p in newest.glob("random_states_*")} == {"random_states_0.pkl", "random_states_1.pkl"}
    log = (tmp_path / "runs/two/log.jsonl").read_bytes()
    checkpoints_left = sorted(p.name for p in newest.parent.iterdir())
    assert checkpoints_left == ["update_00000008", "update_00000012"], "the newest two are kept"
    for file in newest.iterdir():
        file.unlink()
    again = train(*two, name="two", batch_size=4, resume="latest", **same_for_both)
    assert again.returncode == 0 and "passing over" in again.stderr, again.stderr
    assert (tmp_path / "runs/two/log.jsonl").read_bytes() == log


def test_wrong_share_of_the_batch_is_refused(tmp_path, train, reference):
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "whole").symlink_to(reference["folder"])
    done = train(name="whole", batch_size=4, resume="latest")
    assert done.returncode != 0
    assert "8 images a step" in done.stderr and "Traceback" not in done.stderr


def test_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path, train):
    script = tmp_path / "poisoned.py"
    script.write_text(
        "import runpy, triptych.training.run as r; o = r.Run.randn\n"
        "def randn(self, *s): return o(self, *s) * (float('nan') if self.update == 6 else 1)\n"
        f"r.Run.randn = randn\nrunpy.run_path({str(ROOT / 'scripts/train_diffusion.py')!r}, run_name='__main__')\n"
    )
    done = train(script=script, name="nan")
    assert done.returncode == 2 or "exit status 2" in done.stderr or done.returncode == 1
    assert "loss became nan at update 7" in done.stderr and "update_00000004" in done.stderr
    assert "Traceback" not in done.stderr
    assert checkpoints.what_is_torn(tmp_path / "runs/nan/checkpoints/update_00000004") is None
    assert all(row["update"] < 7 for row in rows(tmp_path / "runs/nan"))


def test_what_a_finished_run_holds(reference):
    folder = reference["folder"]
    assert {p.name for p in folder.iterdir()} == {
        "config.yaml", "run.json", "log.jsonl", "timing.jsonl", "curves.png", "checkpoints", "samples", "pipeline",
    }  # fmt: skip
    log = rows(folder)
    assert [row["update"] for row in log] == [3, 6, 9, 12]
    assert [row["images_seen"] for row in log] == [48, 96, 144, 192]
    assert all(set(row) == {"update", "images_seen", "loss", "lr", "grad_norm"} for row in log)
    record = json.loads((folder / "run.json").read_text())
    (session,) = record["sessions"]
    assert record["kind"] == "DiffusionConfig" and session["precision"] == "no" and session["versions"]["torch"]
    card = (folder / "pipeline/README.md").read_text()
    assert "library_name: diffusers" in card
    assert all(f"| {fact} |\n" in card for fact in ("updates | 12", "images seen | 192", "precision | no", "seed | 0"))


def test_going_on_from_saved_weights(reference, tmp_path, train):
    """A step of next to nothing from a saved pipeline ends where that began; another layout or target is refused."""
    start = {"unet_init": str(reference["folder"] / "pipeline"), "optimizer__name": "adamw", "optimizer__lr": "1e-9"}
    still = {"num_updates": "1", "gradient_accumulation_steps": "1", "ema__decay": "0"}
    done = train(name="on", **start, **still)
    assert done.returncode == 0, done.stderr
    before, after = (
        load_file(folder / "pipeline/unet/diffusion_pytorch_model.safetensors")
        for folder in (reference["folder"], tmp_path / "runs/on")
    )
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)
    for wrong, message in (
        ({"schedule__prediction_type": "epsilon"}, "predicts v_prediction"),
        ({"unet__block_out_channels": "[8, 24]"}, "another architecture (block_out_channels"),
    ):
        done = train(name="wrong", **start | wrong)
        assert done.returncode != 0 and message in done.stderr, done.stderr


def test_the_saved_config_is_a_config(reference, tmp_path):
    script = [sys.executable, str(ROOT / "scripts/train_diffusion.py")]
    command = [*script, "--config", str(reference["folder"] / "config.yaml"), "--print_config"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and "pixel_unshuffle: 2" in done.stdout, done.stderr


# ---- checkpoints alone ---------------------------------------------------------------------------------


def write_checkpoint(folder: Path, update: int, keep: int = 9) -> Path:
    partial = checkpoints.begin(folder, update)
    (partial / "weights").write_bytes(b"x" * 100)
    return checkpoints.commit(partial, keep)


def test_torn_checkpoints_are_passed_over(tmp_path, capsys):
    good = write_checkpoint(tmp_path, 1)
    short = write_checkpoint(tmp_path, 2)
    (short / "weights").write_bytes(b"x")
    bare = write_checkpoint(tmp_path, 3)
    (bare / "manifest.json").unlink()
    assert checkpoints.find(tmp_path, "latest") == good
    said = capsys.readouterr().err
    assert "cut short" in said and "manifest" in said
    with pytest.raises(UserError, match="cut short"):
        checkpoints.find(tmp_path, str(short))
    with pytest.raises(UserError, match="no such folder"):
        checkpoints.find(tmp_path, str(tmp_path / "update_9"))


def test_the_newest_are_kept(tmp_path):
    for update in range(1, 6):
        write_checkpoint(tmp_path, update, keep=2)
    assert [c.name for c in checkpoints.listed(tmp_path)] == ["update_00000004", "update_00000005"]


def test_no_checkpoint_yet(tmp_path):
    assert checkpoints.find(tmp_path / "none", "latest") is None
