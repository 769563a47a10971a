"""Training a compiled network: the same weights as without, samples drawn, a pipeline that needs no compiler.

The compiler's front end alone (backend "eager"), for what follows it takes minutes here: what it makes of the network
is torch's, what we hand to it and take back is ours.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import ROOT, launch_command, launched
from diffusers import UNet2DModel

COMPILED = ("--dynamo_backend", "eager")
FEW = ["--num_updates", "3", "--batch_size", "8", "--run.log_every", "1", "--run.sample_every", "3", "--run.tracker"]
SMALL = ["--unet.block_out_channels", "[32,32]", "--sampling.num_inference_steps", "2", "--sampling.num_per_class", "1"]


def trained(folder: Path, script: str, config: str, *flags: str, launcher: tuple[str, ...] = ()):
    folder.mkdir(exist_ok=True)
    command = [*launch_command(*launcher, script=ROOT / f"scripts/{script}.py"), "--config"]
    command += [str(ROOT / f"configs/demo/{config}.yaml"), *FEW, "null", *flags]
    done = launched(command, folder)
    assert done.returncode == 0, done.stderr
    run = folder / f"runs/demo_{config}"
    assert [path.name for path in (run / "samples").iterdir()] == ["update_00000003.png"]
    return run / "pipeline"


def weights(pipeline) -> dict[str, torch.Tensor]:
    return UNet2DModel.from_pretrained(pipeline, subfolder="unet").state_dict()


@pytest.fixture(scope="module")
def plainly(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("plain"), "train_diffusion", "diffusion_digits", *SMALL)


def test_a_compiled_network_learns_the_same(plainly, tmp_path):
    compiled = trained(tmp_path, "train_diffusion", "diffusion_digits", *SMALL, launcher=COMPILED)
    torch.testing.assert_close(weights(compiled), weights(plainly), rtol=0, atol=1e-6)


def test_so_does_the_student_of_a_compiled_teacher(plainly, tmp_path):
    flags = [
        "--teacher",
        str(plainly),
        "--num_inference_steps",
        "2",
        "--num_teacher_steps",
        "2",
        "--num_per_class",
        "1",
    ]
    plain = trained(tmp_path / "plain", "distill_diffusion", "distill_digits", *flags)
    compiled = trained(tmp_path / "compiled", "distill_diffusion", "distill_digits", *flags, launcher=COMPILED)
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=0, atol=1e-6)
