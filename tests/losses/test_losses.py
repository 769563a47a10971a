"""The training mathematics against diffusers' own."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.training_utils import compute_snr

from triptych.data.augmentation import flip_horizontally
from triptych.losses.diffusion import (
    denoising_loss,
    diffuse,
    drop_labels,
    log_normal_steps,
    min_snr_weight,
    predicted_x0,
    prediction_target,
    signal_to_noise,
    steps_of,
)

TYPES = ["epsilon", "v_prediction", "sample"]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(6, 3, 4, 4, generator=generator) * 2 - 1
    eps = torch.randn(6, 3, 4, 4, generator=generator)
    t = torch.tensor([0, 1, 99, 500, 900, 999])
    return x0, eps, t


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_forward_process_is_diffusers(batch, schedule):
    x0, eps, t = batch
    scheduler = DDPMScheduler(beta_schedule=schedule)
    ours = diffuse(x0, eps, scheduler.alphas_cumprod[t])
    torch.testing.assert_close(ours, scheduler.add_noise(x0, eps, t))


def test_velocity_is_diffusers(batch):
    x0, eps, t = batch
    scheduler = DDPMScheduler()
    ours = prediction_target(x0, eps, scheduler.alphas_cumprod[t], "v_prediction")
    torch.testing.assert_close(ours, scheduler.get_velocity(x0, eps, t))


@pytest.mark.parametrize("prediction_type", TYPES)
def test_a_perfect_prediction_gives_back_the_image(batch, prediction_type):
    x0, eps, t = batch
    alpha_bar = DDPMScheduler().alphas_cumprod[t]
    x_t = diffuse(x0, eps, alpha_bar)
    target = prediction_target(x0, eps, alpha_bar, prediction_type)
    torch.testing.assert_close(predicted_x0(target, x_t, alpha_bar, prediction_type), x0, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction_type", TYPES)
def test_predicted_image_is_the_schedulers(batch, prediction_type):
    """DDIM's step reports the x0 it infers from the network's output."""
    x0, _, _ = batch
    scheduler = DDIMScheduler(prediction_type=prediction_type, clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    output = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    for t in scheduler.timesteps:
        theirs = scheduler.step(output, t, x0).pred_original_sample
        ours = predicted_x0(output, x0, scheduler.alphas_cumprod[t].expand(len(x0)), prediction_type)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_min_snr_weights_are_the_papers(batch):
    _, _, t = batch
    scheduler = DDPMScheduler()
    snr = compute_snr(scheduler, t)
    alpha_bar = scheduler.alphas_cumprod[t]
    clipped = torch.minimum(snr, torch.full_like(snr, 5.0))
    torch.testing.assert_close(min_snr_weight(alpha_bar, "epsilon", 5.0), clipped / snr, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(
        min_snr_weight(alpha_bar, "v_prediction", 5.0), clipped / (snr + 1), rtol=1e-3, atol=1e-6
    )
    torch.testing.assert_close(min_snr_weight(alpha_bar, "sample", 5.0), clipped, rtol=1e-3, atol=1e-6)
    assert min_snr_weight(alpha_bar, "epsilon", None).tolist() == [1.0] * 6


def test_weights_make_one_loss_of_three_predictions(batch):
    """min-SNR weighs the same error of x0 alike, whichever way the network expresses it."""
    x0, eps, t = batch
    alpha_bar = DDPMScheduler().alphas_cumprod[t[1:5]].double()
    x0, eps = x0[1:5].double(), eps[1:5].double()
    x_t = diffuse(x0, eps, alpha_bar)
    wrong_x0 = x0 + 0.1 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    a = alpha_bar[:, None, None, None]
    wrong_eps = (x_t - a.sqrt() * wrong_x0) / (1 - a).sqrt()
    outputs = {
        "sample": wrong_x0,
        "epsilon": wrong_eps,
        "v_prediction": a.sqrt() * wrong_eps - (1 - a).sqrt() * wrong_x0,
    }
    losses = [
        denoising_loss(out, prediction_target(x0, eps, alpha_bar, kind), min_snr_weight(alpha_bar, kind, 5.0)).item()
        for kind, out in outputs.items()
    ]
    # The error of v is (sqrt(SNR + 1)) times smaller in x0's scale, of eps sqrt(SNR): the weights undo just that.
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_plain_loss_is_mse(batch):
    x0, eps, _ = batch
    ours = denoising_loss(x0, eps, torch.ones(6))
    torch.testing.assert_close(ours, torch.nn.functional.mse_loss(x0, eps))


def test_dropped_labels_become_the_null_class():
    labels = torch.tensor([3, 1, 4])
    dropped = torch.tensor([False, True, False])
    assert drop_labels(labels, dropped, 10).tolist() == [3, 10, 4]
    assert labels.tolist() == [3, 1, 4]


def test_only_the_chosen_images_are_mirrored():
    images = torch.arange(8.0).reshape(2, 1, 2, 2)
    flipped = flip_horizontally(images, torch.tensor([True, False]))
    assert flipped[0].flatten().tolist() == [1, 0, 3, 2]
    assert torch.equal(flipped[1], images[1])


def test_unknown_prediction_type_is_refused(batch):
    x0, eps, _ = batch
    with pytest.raises(ValueError, match="epsilon, v_prediction or sample"):
        prediction_target(x0, eps, torch.ones(6), "noise")


# ---- which steps are trained ---------------------------------------------------------------------------


@pytest.mark.parametrize("data_std", [1.0, 0.5])
def test_log_normal_steps_are_log_normal_in_sigma(data_std):
    """Against draws of sigma, each given to the nearest step: mean and spread of ln sigma, and every probability."""
    alphas_cumprod = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
    chances = log_normal_steps(alphas_cumprod, -1.0, 1.2, data_std)
    log_sigma = (data_std / signal_to_noise(alphas_cumprod.double()).sqrt()).log()
    assert chances.sum() == pytest.approx(1, abs=1e-5)
    drawn = torch.distributions.Normal(-1.0, 1.2).sample((200_000,)).double()
    inside = drawn[(drawn > log_sigma[0]) & (drawn < log_sigma[-1])]
    nearest = torch.cdist(inside[:20_000, None], log_sigma[:, None]).argmin(1)
    counted = torch.bincount(nearest, minlength=1000)[1:-1].double() / 20_000 * len(inside) / len(drawn)
    assert (counted.cumsum(0) - chances.double()[1:-1].cumsum(0)).abs().max() < 0.015
    mean = (chances * log_sigma).sum()
    assert mean == pytest.approx(-1.0, abs=0.05)
    assert ((chances * (log_sigma - mean) ** 2).sum()).sqrt() == pytest.approx(1.2, abs=0.1)


def test_steps_are_drawn_as_often_as_they_should_be():
    chances = torch.tensor([0.5, 0.0, 0.2, 0.3])
    evenly = (torch.arange(1000) + 0.5) / 1000
    assert torch.bincount(steps_of(evenly, chances), minlength=4).tolist() == [500, 0, 200, 300]
    assert steps_of(torch.tensor([0.0, 0.9999999]), chances).tolist() == [0, 3]
    assert torch.equal(steps_of(evenly, chances * 7), steps_of(evenly, chances)), "they need not sum to 1"


def test_importance_sampling_has_the_same_expectation():
    """Steps as often as they weigh, and the mean weight on all errors: the weighted objective of uniform steps."""
    alphas_cumprod = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
    weight = min_snr_weight(alphas_cumprod, "v_prediction", 5.0)
    error = torch.linspace(3, 0.1, 1000)
    evenly = (torch.arange(100_000) + 0.5) / 100_000
    t = steps_of(evenly, weight)
    assert weight.mean() * error[t].mean() == pytest.approx(float((weight * error).mean()), rel=1e-3)
