"""Guidance: off at one, extrapolated from the null class, within an interval, by a weaker network."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DiffusionPipeline, UNet2DModel
from diffusers.utils import logging
from drawing import draw, seeded
from stand_ins import make_diffusion

from models.pipeline_class_conditional import ClassConditionalPipeline


@pytest.fixture(scope="module")
def pipeline():
    return make_diffusion()


def test_guidance_of_one_is_no_guidance(pipeline):
    """Against a loop written here with diffusers' scheduler and no guidance at all."""
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(4)
    x = torch.randn(1, 3, 8, 8, generator=seeded(7)[0])
    x = torch.nn.functional.pixel_unshuffle(x, 2)
    for t in scheduler.timesteps:
        with torch.no_grad():
            x = scheduler.step(pipeline.unet(x, t, class_labels=torch.tensor([2])).sample, t, x).prev_sample
    expected = (torch.nn.functional.pixel_shuffle(x, 2) / 2 + 0.5).clamp(0, 1)
    copy = make_diffusion()
    copy.scheduler = scheduler
    ours = draw(copy, "frog", [7], guidance_scale=1.0, num_inference_steps=4)
    torch.testing.assert_close(ours, expected)


def test_guidance_extrapolates_from_the_null_class(pipeline):
    x, t = torch.randn(2, 12, 4, 4, generator=seeded(0)[0]), torch.tensor(500)
    labels, null = torch.tensor([0, 2]), torch.tensor([3, 3])
    cond = pipeline.unet(x, t, class_labels=labels).sample
    uncond = pipeline.unet(x, t, class_labels=null).sample
    for scale in (0.0, 1.0, 2.5):
        torch.testing.assert_close(
            pipeline._denoise(x, t, labels, null, scale), uncond + scale * (cond - uncond), rtol=1e-4, atol=1e-5
        )


# ---- guidance ------------------------------------------------------------------------------------------


def test_guidance_within_an_interval():
    """At every sigma: as without an interval. At none: as without guidance. In between: neither, and by each step's."""
    pipeline = make_diffusion()
    everywhere, nowhere = (draw(pipeline, "cat", [1], guidance_scale=scale) for scale in (3.0, 1.0))
    assert torch.equal(draw(pipeline, "cat", [1], guidance_scale=3.0, guidance_interval=(0, float("inf"))), everywhere)
    assert torch.equal(draw(pipeline, "cat", [1], guidance_scale=3.0, guidance_interval=(1e6, 1e7)), nowhere)
    scales, own = [], pipeline._denoise

    def seen(x_in, t, labels, null, scale):
        alpha_bar = pipeline.scheduler.alphas_cumprod[int(t)]
        scales.append((float(((1 - alpha_bar) / alpha_bar).sqrt()), scale))
        return own(x_in, t, labels, null, scale)

    pipeline._denoise = seen
    between = draw(pipeline, "cat", [1], guidance_scale=3.0, guidance_interval=(0.3, 5), num_inference_steps=12)
    assert {scale for sigma, scale in scales if 0.3 <= sigma <= 5} == {3.0}
    assert {scale for sigma, scale in scales if not 0.3 <= sigma <= 5} == {1}
    assert not torch.equal(between, everywhere)
    for wrong in ((5, 0.3), (-1, 2), (float("nan"), 1)):
        with pytest.raises(ValueError, match="guidance_interval must be"):
            pipeline("cat", guidance_interval=wrong)


def test_a_weaker_network_guides_and_travels(tmp_path):
    """Away from the guide's answer to the same class; guided by itself a network says what it says alone."""
    pipeline = make_diffusion()
    alone = draw(pipeline, "cat", [1], guidance_scale=1.0)
    twin = ClassConditionalPipeline(**pipeline.components | {"guide": pipeline.unet}, pixel_unshuffle=2)
    torch.testing.assert_close(draw(twin, 0, [1], guidance_scale=4.0, num_inference_steps=3), alone)
    torch.manual_seed(5)
    weak = UNet2DModel.from_config(pipeline.unet.config)
    guided = ClassConditionalPipeline(
        **pipeline.components | {"guide": weak},
        id2label={0: "cat", 1: "ship", 2: "frog"},
        pixel_unshuffle=2,
        num_inference_steps=3,
        guidance_scale=2.0,
        guidance_interval=(0.1, 50),
    )
    drawn = draw(guided, "cat", [1])
    assert not torch.equal(drawn, alone) and not torch.equal(drawn, draw(pipeline, "cat", [1]))
    guided.save_pretrained(tmp_path / "guided")
    again = DiffusionPipeline.from_pretrained(tmp_path / "guided", trust_remote_code=True)
    assert list(again.config.guidance_interval) == [0.1, 50]
    assert torch.equal(draw(again, "cat", [1]), drawn)


@pytest.mark.parametrize("interval", [(0.1, 50.0), [0, 5], (0.3, float("inf")), None])
def test_a_saved_interval_is_loaded_without_a_word(interval, tmp_path, caplog):
    """JSON knows lists and no tuples, and diffusers compares what it finds with the types of the signature."""
    made = make_diffusion()
    ClassConditionalPipeline(made.unet, made.scheduler, guidance_interval=interval).save_pretrained(tmp_path / "saved")
    logging.enable_propagation()
    try:
        again = DiffusionPipeline.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    finally:
        logging.disable_propagation()
    assert again.config.guidance_interval == (interval and list(interval))
    assert "Expected types" not in caplog.text


def test_images_on_the_networks_own_scale():
    """What the network predicts is scaled back: with data_std 0.5 a network that always answers an image gives it."""
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    for data_std in (1.0, 0.5):
        made = make_diffusion(unshuffle=1, prediction_type="sample")
        pipeline = ClassConditionalPipeline(made.unet, made.scheduler, data_std=data_std, num_inference_steps=3)
        pipeline.unet.config.sample_size = 8
        pipeline.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
        pipeline._denoise = lambda x, t, *_, data_std=data_std: (image * 2 - 1).expand_as(x) / data_std
        out = pipeline(0, generator=seeded(0), output_type="pt", return_intermediates=True)
        torch.testing.assert_close(out.images, image, atol=0.02, rtol=0)
        torch.testing.assert_close(out.predicted_images[-1], image * 2 - 1, atol=0.02, rtol=0)
        back = pipeline.restore(image, 0.1, output_type="pt").images
        torch.testing.assert_close(back, image, atol=0.02, rtol=0)
