"""The pipeline: what it draws and what it refuses."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from drawing import draw, seeded
from stand_ins import make_diffusion

from models.pipeline_class_conditional import ClassConditionalPipeline


@pytest.fixture(scope="module")
def pipeline():
    return make_diffusion()


SCHEDULERS = [
    "DDPMScheduler",
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
]


def test_classes_by_name_id_and_list(pipeline):
    by_name, by_id = draw(pipeline, "ship", [1]), draw(pipeline, 1, [1])
    assert torch.equal(by_name, by_id) and by_name.shape == (1, 3, 8, 8)
    assert torch.equal(draw(pipeline, ["cat", 1], [5, 1]), draw(pipeline, torch.tensor([0, 1]), [5, 1]))
    assert pipeline("cat", 2).class_ids == [0, 0]
    for same in (
        np.int64(1),
        np.array(1),
        torch.tensor(1),
        [torch.tensor(1)],
        np.array([1]),
        (np.uint8(1),),
        range(1, 2),
    ):
        assert pipeline.class_ids(same) == [1]
    assert pipeline.class_ids(np.array(["frog", "cat"])) == [2, 0] and pipeline.class_ids([np.str_("ship"), None]) == [
        1,
        3,
    ]
    assert not torch.equal(by_name, draw(pipeline, "frog", [1])), "the class must matter"


NO_CLASS = ["dog", 3, -1, True, ["cat", "dog"], 1.5, [1.5], [[0, 1]], object(), np.float32(1), np.bool_(True)]


NO_CLASS += [np.int64(3), np.array([[0]]), torch.tensor([True]), torch.tensor(1.0)]


@pytest.mark.parametrize("wrong", NO_CLASS)
def test_unknown_class_lists_the_classes(pipeline, wrong):
    with pytest.raises(ValueError, match=r"no class.*0 'cat', 1 'ship', 2 'frog'"):
        pipeline(wrong)


def test_the_words_of_diffusers(pipeline):
    """DiT's class_labels, Stable Diffusion's prompt; or an error that names ours."""
    expected = draw(pipeline, ["ship", "ship"], [1, 2])
    for words in (
        {"class_labels": "ship", "num_images_per_class": 2},
        {"class_labels": torch.tensor([1, 1])},
        {"prompt": ["ship"], "num_images_per_prompt": 2},
        {"classes": 1, "num_images_per_label": 2},
    ):
        images = pipeline(**words, generator=seeded(1, 2), output_type="pt").images
        assert torch.equal(images, expected)
    with pytest.raises(ValueError, match=r"no class 'a ship'.*'ship'"):
        pipeline(prompt="a ship")
    for both in ({"class_labels": 1}, {"prompt": "cat"}):
        with pytest.raises(ValueError, match="called classes here"):
            pipeline("cat", **both)
    with pytest.raises(ValueError, match="called num_images_per_class here"):
        pipeline("cat", num_images_per_class=1, num_images_per_prompt=2)


def test_no_class_in_particular(pipeline):
    nothing = draw(pipeline, None, [1], guidance_scale=1.0)
    assert pipeline(["cat", None]).class_ids == [0, 3]
    torch.testing.assert_close(draw(pipeline, [None], [1], guidance_scale=5.0), nothing)  # nothing to be guided to
    assert not torch.equal(draw(pipeline, "ship", [1], guidance_scale=1.0), nothing)


@pytest.mark.parametrize("scheduler", ["DDPMScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize("steps", [1, 20])
def test_restoring_with_the_best_network(monkeypatch, scheduler, steps):
    """For data that are N(m, s^2) the best network is known: one step gives the posterior mean, many a sample of it."""
    pipeline = make_diffusion(channels=1, unshuffle=1, prediction_type="sample")
    pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config, clip_sample=False)
    mean, spread, noise = 0.2, 0.3, 0.4  # in [-1, 1]

    def best(x_in, t, *_):
        a = pipeline.scheduler.alphas_cumprod[int(t)]
        gain = a.sqrt() * spread**2 / (a * spread**2 + 1 - a)
        return mean + gain * (x_in - a.sqrt() * mean)  # E[x_0 | x_t]

    monkeypatch.setattr(pipeline, "_denoise", best)
    generator = torch.Generator().manual_seed(0)
    clean = mean + spread * torch.randn(300, 1, 4, 4, generator=generator)
    noisy = clean + noise * torch.randn(clean.shape, generator=generator)
    restored = pipeline.restore(
        noisy / 2 + 0.5, noise / 2, num_inference_steps=steps, generator=generator, output_type="pt"
    ).images
    restored = (restored - 0.5) * 2
    posterior_mean = mean + spread**2 / (spread**2 + noise**2) * (noisy - mean)
    inside = posterior_mean.abs() < 0.9  # the pipeline clips at the ends of the scale
    error = (restored - posterior_mean)[inside]
    if steps == 1:
        assert error.abs().max() < 0.02
    else:
        assert abs(error.mean()) < 0.02, "samples scatter about the posterior mean"
    if steps == 20 and scheduler == "DDPMScheduler":
        posterior_spread = (spread**2 * noise**2 / (spread**2 + noise**2)) ** 0.5
        assert error.std() == pytest.approx(posterior_spread, rel=0.1)
    with pytest.raises(ValueError, match="sigma must be positive"):
        pipeline.restore(noisy, 0.0)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_any_scheduler_and_an_image_does_not_depend_on_its_batch(scheduler):
    pipeline = make_diffusion()
    pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
    together = draw(pipeline, ["cat", "ship", "frog"], [11, 12, 13], num_inference_steps=5)
    alone = draw(pipeline, "frog", [13], num_inference_steps=5)
    torch.testing.assert_close(together[2:], alone, rtol=1e-3, atol=1e-4)
    assert together.isfinite().all() and together.std() > 0.01


def test_one_generator_for_the_batch_repeats(pipeline):
    a = pipeline(["cat", "cat"], generator=seeded(3)[0], output_type="pt").images
    b = pipeline(["cat", "cat"], generator=seeded(3)[0], output_type="pt").images
    assert torch.equal(a, b) and not torch.equal(a[0], a[1])


def test_output_types_agree(pipeline):
    pt = draw(pipeline, "cat", [1])
    array = pipeline("cat", generator=seeded(1), output_type="np").images
    (image,) = pipeline("cat", generator=seeded(1), return_dict=False)[0]
    assert np.array_equal(array, pt.permute(0, 2, 3, 1).numpy())
    assert image.size == (8, 8) and image.mode == "RGB"
    assert np.abs(np.asarray(image) / 255 - array[0]).max() <= 0.5 / 255 + 1e-6


def test_grey_images():
    (image,) = make_diffusion(channels=1, unshuffle=1)("cat").images
    assert image.mode == "L" and image.size == (4, 4)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"generator": seeded(1, 2)}, "2 generators were given for 1 images"),
        ({"output_type": "jpeg"}, "output_type"),
        ({"num_inference_steps": 0}, "at least 1"),
        ({"latents": torch.zeros(1, 3, 4, 4)}, r"shape \(1, 3, 8, 8\)"),
        ({"eta": 0.5}, "takes no eta"),
        ({"generator": 0}, "torch.Generator"),
        ({"generator": [0]}, "torch.Generator"),
        ({"generator": []}, "0 generators"),
        ({"num_images_per_class": 2.0}, "num_images_per_class must be a whole number"),
        ({"num_images_per_class": -1}, "at least 1"),
        ({"num_inference_steps": 2.5}, "num_inference_steps must be a whole number"),
        ({"num_inference_steps": "2"}, "num_inference_steps must be a whole number"),
        ({"num_inference_steps": 1001}, "at most 1000"),
        *(({"guidance_scale": wrong}, "guidance_scale must be a finite") for wrong in (np.nan, -np.inf, "3", [1, 2])),
        (
            {"latents": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)},
            "latents must be a tensor of floats, not torch.uint8",
        ),
        ({"latents": np.zeros((1, 3, 8, 8))}, "latents must be a tensor of floats, not ndarray"),
        ({"latents": torch.full((1, 3, 8, 8), torch.nan)}, "latents hold NaN"),
        *(({"timesteps": wrong}, "timesteps must descend from at most 999") for wrong in ([], [1, 5], [5000], [5, -1])),
        *(({"timesteps": wrong}, "timesteps must descend") for wrong in ([7, 7, 1], np.array([3, 9]), 1000)),
        *(({"timesteps": wrong}, "timesteps must be integers") for wrong in ([900.5, 1], ["5"], [None])),
        ({"callback_on_step_end_tensor_inputs": ["prompt"]}, "latents"),
        *(
            ({"guidance_interval": wrong}, "guidance_interval must be")
            for wrong in (5, (1,), (1, 2, 3), "ab", ("0", "1"), (None, 1), (0, np.nan), (2, 1), {})
        ),
    ],
)
def test_bad_arguments(pipeline, kwargs, message):
    with pytest.raises(ValueError, match=message):
        pipeline("cat", **kwargs)


@pytest.mark.parametrize("eta", [2, -1, np.nan, np.inf, "1", [0.5, 0.5]])
def test_eta_lies_between_0_and_1(eta):
    pipeline = make_diffusion()
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    with pytest.raises(ValueError, match="eta must"):
        pipeline("cat", eta=eta)
    with pytest.raises(ValueError, match="DDIMScheduler takes no timesteps"):
        pipeline("cat", timesteps=[900, 1])


def test_numbers_of_numpy_are_numbers(pipeline):
    ours = draw(pipeline, "cat", [1, 2], num_images_per_class=2, guidance_scale=3.0, timesteps=[900, 400, 5])
    for steps in (np.array([900, 400, 5]), torch.tensor([900, 400, 5]), (np.int32(900), 400, torch.tensor(5))):
        how = {"num_images_per_class": np.int64(2), "guidance_scale": np.float32(3), "timesteps": steps}
        assert torch.equal(draw(pipeline, "cat", [1, 2], **how), ours)


GOOD = torch.full((2, 3, 8, 8), 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((GOOD * 255).byte(), 0.1), "images must be a tensor of floats, not torch.uint8"),
        ((GOOD.numpy(), 0.1), "not ndarray"),
        ((GOOD[0], 0.1), r"shape \(3, 3, 8, 8\), not \(3, 8, 8\)"),
        ((GOOD[..., :4], 0.1), "shape"),
        ((GOOD[:0], 0.1), "1 classes|0 classes"),
        ((GOOD * torch.nan, 0.1), "images hold NaN"),
        ((GOOD * 255, 0.1), "Divide"),
        ((GOOD * 2 - 1.9, 0.1), r"go from -0\.9.*of images in \[-1, 1\]"),
        ((GOOD, 0.1, None, 2, "DDIM"), "scheduler must be one of"),
        ((GOOD, np.nan), "sigma must be a finite"),
        ((GOOD, -1), "sigma must be positive"),
        ((GOOD, 0.1, ["cat", "cat", "cat"]), "3 classes were given for 2 images"),
        ((GOOD, 0.1, None, 1.5), "num_inference_steps"),
    ],
)
def test_what_cannot_be_restored_is_refused(pipeline, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline.restore(*arguments)


def test_names_must_match_the_network(pipeline):
    with pytest.raises(ValueError, match="num_class_embeds"):
        ClassConditionalPipeline(pipeline.unet, pipeline.scheduler, {0: "cat"})
