"""The rectified flow's pipeline: it solves its equation, keeps its promises, and travels."""

from __future__ import annotations

import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import environment, launched
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, ModelMixin, UNet2DModel
from diffusers.configuration_utils import ConfigMixin, register_to_config

from models.pipeline_flow import FlowPipeline

MEANS, NULL_MEAN, STD = (0.5, -0.4), 0.1, 0.3


class ExactVelocity(ModelMixin, ConfigMixin):
    """E[eps - x_0 | x_t] where the pixels of class c are N(MEANS[c], STD^2), those of no class N(NULL_MEAN, STD^2)."""

    @register_to_config
    def __init__(self, num_class_embeds: int = 3, in_channels: int = 1, sample_size: int = 4):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, t, class_labels):
        t = t / 1000
        mean = torch.tensor([*MEANS, NULL_MEAN])[class_labels].reshape(-1, 1, 1, 1)
        variance = (1 - t) ** 2 * STD**2 + t**2
        return SimpleNamespace(sample=-mean + (t - (1 - t) * STD**2) / variance * (x - (1 - t) * mean))


def exact(**settings) -> FlowPipeline:
    pipeline = FlowPipeline(ExactVelocity(), FlowMatchEulerDiscreteScheduler(**settings))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def tiny() -> FlowPipeline:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
        num_class_embeds=4,
    )
    pipeline = FlowPipeline(
        unet,
        FlowMatchEulerDiscreteScheduler(),
        {0: "cat", 1: "ship", 2: "frog"},
        num_inference_steps=3,
        guidance_scale=2,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_exact_velocity_carries_noise_to_the_data(shift):
    """x_t = (1 - t) m + sqrt((1 - t)^2 s^2 + t^2) z solves the equation: noise z ends at m + s z. Euler's error halves
    with the length of a step."""
    noise = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor(MEANS).reshape(2, 1, 1, 1) + STD * noise
    errors = []
    for steps in (50, 100, 200, 400):
        drawn = exact(shift=shift)([0, 1], num_inference_steps=steps, latents=noise, output_type="pt").images * 2 - 1
        errors.append((drawn - expected.clamp(-1, 1)).abs().max().item())
    assert errors[-1] < 0.01
    for longer, shorter in itertools.pairwise(errors):
        assert 1.6 < longer / shorter < 2.4


def test_one_step_goes_straight_to_the_mean():
    """From t = 1, where x_t tells nothing of x_0, the velocity is eps - m."""
    noise = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    drawn = exact()(1, num_inference_steps=1, latents=noise, output_type="pt").images * 2 - 1
    torch.testing.assert_close(drawn, torch.full_like(drawn, MEANS[1]), atol=1e-5, rtol=0)


def test_guidance_leads_away_from_no_class():
    """One step of velocities u + s (c - u) goes to the mean u + s (c - u)."""

    def draw(scale: float, label: int | None) -> float:
        drawn = exact()(label, guidance_scale=scale, num_inference_steps=1, output_type="pt").images
        return drawn.mean().item() * 2 - 1

    for scale in (0, 1, 1.5, 2):
        assert draw(scale, 0) == pytest.approx(NULL_MEAN + scale * (MEANS[0] - NULL_MEAN), abs=1e-5)
        assert draw(scale, None) == pytest.approx(NULL_MEAN, abs=1e-5), "of no class: nothing to lead away from"


def test_an_image_does_not_depend_on_its_batch(tiny):
    def draw(classes, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return tiny(classes, generator=generators, output_type="np").images

    many, one = draw(["ship", "cat", 2], [5, 6, 7]), draw("cat", [6])
    assert many.shape == (3, 8, 8, 3) and np.abs(many[1] - one[0]).max() < 1e-5
    assert tiny.class_ids(["frog", 0, None]) == [2, 0, 3]
    assert len(tiny(["cat", "ship"], 2).images) == 4 and tiny(0).images[0].size == (8, 8)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"classes": "dog"}, "There is no class 'dog'.*0 'cat'"),
        ({"classes": 3}, "There is no class 3"),
        ({"classes": True}, "There is no class True"),
        ({"classes": []}, "No class was asked for"),
        ({"output_type": "jpg"}, "output_type"),
        ({"num_inference_steps": 0}, "num_inference_steps must be a whole number of at least 1"),
        ({"num_images_per_class": 1.5}, "num_images_per_class"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be a finite number"),
        ({"latents": torch.zeros(1, 3, 4, 4)}, "latents must be"),
        ({"generator": [torch.Generator()] * 2}, "2 generators were given for 1 images"),
    ],
)
def test_what_is_refused(tiny, arguments, says):
    with pytest.raises(ValueError, match=says):
        tiny(**{"classes": 0} | arguments)


def test_a_scheduler_of_diffusion_is_refused(tiny):
    own = tiny.scheduler
    try:
        tiny.scheduler = DDIMScheduler()
        with pytest.raises(ValueError, match="DDIMScheduler does not fit this network"):
            tiny(0)
    finally:
        tiny.scheduler = own


def test_id2label_must_name_every_class(tiny):
    with pytest.raises(ValueError, match=r"classes 0\.\.2"):
        FlowPipeline(tiny.unet, tiny.scheduler, {0: "cat"})


ELSEWHERE = """
import sys, numpy, torch
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
assert type(pipeline).__module__.startswith("diffusers_modules") and pipeline.class_names == ["cat", "ship", "frog"]
pipeline.set_progress_bar_config(disable=True)
pipeline.save_pretrained("again")
again = DiffusionPipeline.from_pretrained("again", trust_remote_code=True)
again.set_progress_bar_config(disable=True)
for name, loaded in (("first", pipeline), ("second", again)):
    numpy.save(name, loaded("ship", 2, generator=torch.Generator().manual_seed(3), output_type="np").images)
"""


def test_saved_and_loaded_elsewhere(tiny, tmp_path):
    """In a process that knows nothing of the project; and saved again there."""
    tiny.save_pretrained(tmp_path / "saved")
    env = environment(HF_MODULES_CACHE=str(tmp_path / "modules"))
    del env["PYTHONPATH"]
    (tmp_path / "elsewhere").mkdir()
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "saved")]
    done = launched(command, tmp_path / "elsewhere", env)
    assert done.returncode == 0, done.stderr
    expected = tiny("ship", 2, generator=torch.Generator().manual_seed(3), output_type="np").images
    for name in ("first", "second"):
        assert np.abs(np.load(tmp_path / f"elsewhere/{name}.npy") - expected).max() < 1e-5
    for at in (tmp_path / "saved", tmp_path / "elsewhere/again"):
        assert (at / "pipeline_flow.py").read_text() == FlowPipeline._code[1]
