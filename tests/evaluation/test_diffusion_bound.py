"""The bound where the answer is known: Gaussian data and a mixture of Gaussians, predicted exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from stand_ins import make_diffusion

from triptych.evaluation.diffusion_bound import (
    Measured,
    bound_terms,
    measure_bound,
    measure_images,
    objective_terms,
    strata,
)
from triptych.evaluation.statistics import ratio_and_interval
from triptych.losses.bound import NoiseSteps
from triptych.losses.diffusion import diffuse, prediction_target, signal_to_noise
from triptych.losses.mixture import Mixture, entropy
from triptych.seeds import keyed_generator

HALF_WIDTH = 1 / 255
STEPS = NoiseSteps(DDPMScheduler(beta_schedule="squaredcos_cap_v2").betas)
LOG_2 = math.log(2)


def measure_exactly(points, predict, num_strata=60) -> Measured:
    """Of points (N, D) that have no largest value, put on the grid of a pixel's values."""
    on_grid = (points / (2 * HALF_WIDTH)).round() * 2 * HALF_WIDTH
    generators = [torch.Generator().manual_seed(i) for i in range(len(points))]
    edges = strata(len(STEPS.betas), num_strata)
    return measure_bound(predict, on_grid, STEPS, edges, generators, HALF_WIDTH, math.inf)


def bits(measured: Measured, num_dims: int, choice: str, num_strata: int = 60) -> torch.Tensor:
    """The bound of each point, in bits per dimension."""
    sizes = strata(len(STEPS.betas), num_strata).diff()
    return (bound_terms(measured, STEPS, num_dims, choice) * sizes).sum(1) + measured.prior / (num_dims * LOG_2)


def gaussian_predictor(std: float):
    """E[x_0 | x_t] for x_0 ~ N(0, std^2 I)."""

    def predict(x_t, t):
        a = STEPS.alpha_bar[t][:, None]
        return a.sqrt() * std**2 / (a * std**2 + 1 - a) * x_t

    return predict


def within(values: torch.Tensor, expected: float, errors: float = 3.5) -> bool:
    """Whether the mean is `expected` up to so many of its standard errors."""
    return abs(values.mean().item() - expected) < errors * values.std().item() / math.sqrt(len(values))


@pytest.mark.parametrize("std", [1.0, 0.3])
def test_the_bound_of_gaussian_data_is_its_entropy(std):
    """x_{t-1} given x_t is Gaussian then, and of variance beta where std is 1: the exact predictor loses nothing. The
    smaller std, the nearer to beta-tilde; a thousand steps leave little of the difference."""
    num_dims, n = 8, 2500
    points = std * torch.randn(n, num_dims, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    measured = measure_exactly(points, gaussian_predictor(std))
    exact = -torch.distributions.Normal(0, std).log_prob(points).mean(1) - math.log(2 * HALF_WIDTH)
    excess = bits(measured, num_dims, "forward") - exact / LOG_2
    assert excess.std() / math.sqrt(n) < 0.02
    assert within(excess, 0.0)
    assert (bits(measured, num_dims, "posterior") - exact / LOG_2).mean() > 0.3  # beta-tilde is too small a variance


@pytest.mark.parametrize("choice", ["posterior", "forward"])
def test_every_term_is_what_the_gaussians_say(choice):
    """With |x_0 - E[x_0 | x_t]|^2 = (1 - alpha_bar) in the mean, L_t has a closed form."""
    num_dims = 4
    points = torch.randn(4000, num_dims, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    measured = measure_exactly(points, gaussian_predictor(1.0), num_strata=12)
    t = measured.t[:, 1:]
    q, p = STEPS.posterior_variance[t], STEPS.variance(choice)[t]
    beta, a = STEPS.betas.double()[t], STEPS.alpha_bar[t]
    mean_square = STEPS.alpha_bar_before[t] * beta**2 / (1 - a)  # of the distance of the means of q and p
    expected = 0.5 * ((p / q).log() - 1 + (q + mean_square) / p) / LOG_2
    off = bound_terms(measured, STEPS, num_dims, choice)[:, 1:] - expected
    assert all(within(of_stratum, 0.0, errors=4) for of_stratum in off.T)


def test_the_bound_of_a_mixture_lies_a_little_above_its_entropy():
    world = Mixture(
        torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
        torch.tensor([[-2.0, -1.0], [2.0, -1.0], [0.3, 2.0]], dtype=torch.float64),
        torch.eye(2, dtype=torch.float64) * torch.tensor([0.5, 0.3, 0.6], dtype=torch.float64)[:, None, None],
    )

    def predict(x_t, t):
        found = torch.empty_like(x_t)
        for step in t.unique():
            a = STEPS.alpha_bar[step].item()
            found[t == step] = world.denoised(x_t[t == step], math.sqrt(a), math.sqrt(1 - a))
        return found

    points = world.draw(1500, torch.Generator().manual_seed(0))
    measured = measure_exactly(points, predict, num_strata=25)
    of_each = -world.log_prob(points)  # takes the same chance in the draw of points out of both
    exact = (of_each / 2 - math.log(2 * HALF_WIDTH)) / LOG_2
    assert within(of_each, entropy(world))
    excess = bits(measured, 2, "forward", 25) - exact
    error = excess.std().item() / math.sqrt(len(excess))
    assert error < 0.08 and -3 * error < excess.mean() < 0.05 + 3 * error


def test_strata_cover_every_step_once_and_stand_for_them_without_bias():
    for num_steps, count in ((1000, 100), (1000, 1000), (50, 2), (4000, 7)):
        edges = strata(num_steps, count)
        assert edges[:2].tolist() == [0, 1] and edges[-1] == num_steps and (edges.diff() > 0).all()
        assert len(edges) - 1 <= count + 1
    edges = strata(1000, 20)
    drawn = measure_bound(
        lambda x_t, _: x_t, torch.zeros(4000, 1), STEPS, edges, [torch.Generator().manual_seed(i) for i in range(4000)],
        HALF_WIDTH, math.inf,
    ).t  # fmt: skip
    assert ((edges[:-1] <= drawn) & (drawn < edges[1:])).all()
    anything = torch.sin(torch.arange(1000) / 50.0) + 2
    assert within((anything[drawn] * edges.diff()).sum(1), anything.sum().item())


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_an_image_is_measured_alike_in_any_batch_and_as_the_training_measures_it(prediction_type):
    pipe = make_diffusion(prediction_type=prediction_type)
    pixels = torch.randint(256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    images, labels = pixels / 127.5 - 1, torch.tensor([0, 1, 2, 0])
    together = measure_images(pipe, images, labels, range(4), 5, seed=0)
    alone = Measured.joined([measure_images(pipe, images[i : i + 1], labels[i : i + 1], [i], 5, 0) for i in range(4)])
    for name, tensor in vars(together).items():
        torch.testing.assert_close(tensor, getattr(alone, name), rtol=1e-4, atol=1e-6)
    assert together.t.unique(dim=0).shape[0] > 1 and (together.clipped <= together.error + 1e-9).all()

    # the error in what the network predicts, with that image's own noise
    i, k = 2, 3
    generator = keyed_generator("bound", 0, i)
    torch.rand(together.t.shape[1], generator=generator, dtype=torch.float64)
    eps = [torch.randn(12, 4, 4, generator=generator) for _ in range(k + 1)][-1][None]
    x0, t = F.pixel_unshuffle(images[i : i + 1], 2), together.t[i, k : k + 1]
    a = STEPS.alpha_bar[t].float()
    with torch.no_grad():
        output = pipe.unet(diffuse(x0, eps, a), t, class_labels=labels[i : i + 1]).sample
    error = (output - prediction_target(x0, eps, a, prediction_type)).square().sum()
    snr = float(signal_to_noise(STEPS.alpha_bar[t]))
    factor = {"epsilon": snr, "v_prediction": snr + 1, "sample": 1.0}[prediction_type]
    assert float(together.error[i, k]) * factor == pytest.approx(float(error), rel=1e-3)


def test_objectives_weigh_the_same_errors():
    t = torch.tensor([[0, 20, 600], [0, 30, 900]])
    error = torch.tensor([[0.1, 0.5, 4.0], [0.2, 0.6, 8.0]], dtype=torch.float64)
    measured = Measured(t, error, error, torch.full((2, 2), 9.0, dtype=torch.float64), torch.zeros(2))
    found = objective_terms(measured, STEPS, 12, data_std=1.0)
    snr = signal_to_noise(STEPS.alpha_bar)[t]
    torch.testing.assert_close(found["v, all t alike"] - found["epsilon, all t alike"], error)
    torch.testing.assert_close(found["min-SNR, gamma 5"], torch.minimum(snr, torch.tensor(5.0)) * error)
    sigma = snr.rsqrt()
    weight = (sigma**2 + 0.5**2) / (sigma * 0.5) ** 2  # Karras et al. 2022, table 1
    normal = torch.distributions.Normal(-1.2, 1.2)
    levels = signal_to_noise(STEPS.alpha_bar).rsqrt().log()
    inner = t[:, 1:]
    chance = normal.cdf((levels[inner] + levels[inner + 1]) / 2) - normal.cdf((levels[inner] + levels[inner - 1]) / 2)
    torch.testing.assert_close(found["EDM"][:, 1:], (chance * weight[:, 1:]) * error[:, 1:], rtol=1e-5, atol=0)


def test_the_interval_of_a_ratio_holds_it_as_often_as_it_should():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        whole = rng.gamma(4, size=200)
        part = whole * rng.beta(3, 7, size=200)  # 0.3 of the whole in the mean, whatever the whole
        ratio, half = ratio_and_interval(part, whole)
        held += abs(ratio - 0.3) < half
    assert 0.92 < held / 400 < 0.98
