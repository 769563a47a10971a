"""What can be watched and changed while a pipeline draws: intermediates, callbacks, given latents."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from drawing import draw, seeded
from stand_ins import make_diffusion


@pytest.fixture(scope="module")
def pipeline():
    return make_diffusion()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_intermediates_are_the_schedulers(prediction_type):
    """x_t from the callback, predicted x_0 from DDIM's own step."""
    pipeline = make_diffusion(prediction_type=prediction_type)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    seen = []
    step = pipeline.scheduler.step

    def spy(*args, return_dict=True, **kwargs):
        output = step(*args, **kwargs, return_dict=True)
        seen.append(output.pred_original_sample)
        return (output.prev_sample,)

    pipeline.scheduler.step = spy
    after = []
    result = pipeline(
        ["cat", "ship"],
        generator=seeded(1, 2),
        num_inference_steps=4,
        output_type="pt",
        return_intermediates=True,
        callback_on_step_end=lambda p, i, t, k: after.append(k["latents"]),
    )
    theirs = torch.stack([pipeline._unfold(x) for x in seen])
    finite = theirs.abs() < 50  # at the noisiest step epsilon divides by almost nothing
    torch.testing.assert_close(result.predicted_images[finite], theirs[finite], rtol=1e-3, atol=1e-3)
    assert result.timesteps == [float(t) for t in pipeline.scheduler.timesteps]
    torch.testing.assert_close(result.noisy_images[1:], torch.stack([pipeline._unfold(x) for x in after[:-1]]))


def test_callback_changes_and_interrupts(pipeline):
    calls = []

    def stop(pipe, i, t, tensors):
        calls.append(i)
        pipe._interrupt = i == 1
        return {"latents": torch.zeros_like(tensors["latents"])}

    images = pipeline("cat", num_inference_steps=5, output_type="pt", callback_on_step_end=stop).images
    assert calls == [0, 1]
    assert torch.equal(images, torch.full((1, 3, 8, 8), 0.5))


def test_callback_sees_each_step_as_it_happens(pipeline):
    steps = []
    result = pipeline(
        ["cat", "ship"],
        generator=seeded(1, 2),
        return_intermediates=True,
        callback_on_step_end=lambda p, i, t, tensors: steps.append(tensors),
        callback_on_step_end_tensor_inputs=["noisy_images", "predicted_images"],
    )
    assert [sorted(tensors) for tensors in steps] == [["noisy_images", "predicted_images"]] * 3
    for name in ("noisy_images", "predicted_images"):
        assert torch.equal(torch.stack([tensors[name] for tensors in steps]), result[name])


def test_given_latents(pipeline):
    noise = torch.randn(1, 3, 8, 8, generator=seeded(4)[0])
    pipe = make_diffusion()
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    given = pipe("cat", latents=noise, output_type="pt").images
    torch.testing.assert_close(given, draw(pipe, "cat", [4]))
