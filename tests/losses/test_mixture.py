"""The exact world of the report: every closed form against integrals, automatic derivatives, draws or torch's own."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from figures.mixture import WORLD, main
from torch.distributions import MultivariateNormal, kl_divergence

from triptych.errors import UserError
from triptych.figures.contours import contours
from triptych.losses.mixture import Mixture, ddim, gap, heun, jensen_shannon, kl, plane, predicted, straight
from triptych.studies import exact_world


def one(mean: list[float], covariance: list[list[float]]) -> Mixture:
    """A single Gaussian."""
    return Mixture(*(torch.tensor(part, dtype=torch.float64) for part in ([1.0], [mean], [covariance])))


SINGLE = one([0.5, -1.0], [[1.2, 0.4], [0.4, 0.6]])


@pytest.fixture(autouse=True)
def _one_thread(_threads) -> None:
    """Small matrices: threads would spend their time waiting for each other."""
    torch.set_num_threads(1)


def test_the_world_integrates_to_one():
    x, area = plane(6.0, 240)
    assert WORLD.log_prob(x).exp().sum().item() * area == pytest.approx(1, abs=1e-6)


def test_draws_have_the_mixture_s_moments(generator):
    x = WORLD.draw(200_000, generator)
    torch.testing.assert_close(x.mean(0), WORLD.distribution().mean, atol=0.02, rtol=0)
    torch.testing.assert_close(x.var(0), WORLD.distribution().variance, atol=0.03, rtol=0)


@pytest.mark.parametrize("mixture", [WORLD, SINGLE, WORLD.diffused(0.6, 0.8)])
def test_the_score_is_the_derivative_of_the_density(mixture, generator):
    x = mixture.draw(50, generator).requires_grad_()
    (derivative,) = torch.autograd.grad(mixture.log_prob(x).sum(), x)
    torch.testing.assert_close(mixture.score(x.detach()), derivative)


def test_diffused_is_the_distribution_of_noised_draws(generator):
    a, s = 0.7, 0.5
    noised = a * WORLD.draw(200_000, generator) + s * torch.randn(200_000, 2, generator=generator, dtype=torch.float64)
    diffused = WORLD.diffused(a, s)
    torch.testing.assert_close(noised.mean(0), diffused.distribution().mean, atol=0.01, rtol=0)
    torch.testing.assert_close(noised.var(0), diffused.distribution().variance, atol=0.02, rtol=0)
    assert -diffused.log_prob(noised).mean() == pytest.approx(entropy_of(diffused), abs=0.01)


def entropy_of(mixture: Mixture) -> float:
    x, area = plane(8.0, 320)
    log_p = mixture.log_prob(x)
    return -(log_p.exp() * log_p).sum().item() * area


@pytest.mark.parametrize("point", [[0.1, -0.6], [-2.0, -1.0], [3.0, 3.0]])
def test_the_posterior_is_bayes_rule(point):
    """Its density is prior times likelihood over evidence, on a grid; its mean and spread are the integrals."""
    a, s = 0.8, 0.6
    x = torch.tensor([point], dtype=torch.float64)
    posterior = WORLD.posterior(x, a, s)
    z, area = plane(6.0, 300)
    joint = (WORLD.log_prob(z) + MultivariateNormal(a * z, s**2 * torch.eye(2).double()).log_prob(x)).exp()
    torch.testing.assert_close(joint.sum() * area, WORLD.diffused(a, s).log_prob(x)[0].exp(), rtol=1e-6, atol=1e-9)
    density = joint / (joint.sum() * area)
    got = Mixture(posterior.weights[0], posterior.means[0], posterior.covariances[0]).log_prob(z).exp()
    torch.testing.assert_close(got, density, atol=1e-6, rtol=1e-5)
    mean = (density[:, None] * z).sum(0) * area
    torch.testing.assert_close(WORLD.denoised(x, a, s)[0], mean, atol=1e-6, rtol=1e-6)
    spread = (density * (z - mean).square().sum(1)).sum() * area
    torch.testing.assert_close(WORLD.denoising_error(x, a, s)[0], spread, atol=1e-5, rtol=1e-5)


def test_the_mean_is_the_score_s(generator):
    """Tweedie: s^2 score = a E[x_0 | x] - x, for each point."""
    a, s = 0.5, 0.9
    x = WORLD.diffused(a, s).draw(50, generator)
    torch.testing.assert_close(s**2 * WORLD.diffused(a, s).score(x), a * WORLD.denoised(x, a, s) - x)


def test_divergences_of_single_gaussians_are_torch_s():
    other = one([0.0, 0.3], [[0.8, -0.2], [-0.2, 1.0]])
    known = kl_divergence(
        *(MultivariateNormal(m.means[0], m.covariances[0]) for m in (SINGLE, other)),
    ).item()
    assert kl(SINGLE, other) == pytest.approx(known, abs=1e-6)
    assert kl(SINGLE, SINGLE) == pytest.approx(0, abs=1e-12)


def test_jensen_shannon_lies_between_zero_and_log_2_and_forgets_distance():
    shift = torch.tensor([1.0, 0.0], dtype=torch.float64)
    values = [jensen_shannon(WORLD, WORLD.moved(k * shift), half=16) for k in (0, 1, 2, 10)]
    assert values[0] == pytest.approx(0, abs=1e-9)
    assert values == sorted(values) and values[-1] == pytest.approx(math.log(2), abs=1e-4)


def test_jensen_shannon_is_what_the_best_discriminator_measures(generator):
    """V(D*) = -log 4 + 2 JS, from draws."""
    fake = WORLD.moved(torch.tensor([1.5, 0.0], dtype=torch.float64))
    real, made = WORLD.draw(100_000, generator), fake.draw(100_000, generator)
    logit_real, logit_made = (WORLD.log_prob(x) - fake.log_prob(x) for x in (real, made))
    value = logit_real.sigmoid().log().mean() + (-logit_made).sigmoid().log().mean()
    assert value.item() == pytest.approx(-math.log(4) + 2 * jensen_shannon(WORLD, fake), abs=0.01)


def test_the_gap_is_what_the_bound_misses(generator):
    """log p(x) = bound + gap, the bound from its definition by draws; the gap of a Gaussian posterior is torch's KL."""
    noise, x = 0.8, torch.tensor([[-0.1, -0.7]], dtype=torch.float64)
    mean, logvar = torch.tensor([[-0.4, -0.5]]).double(), torch.tensor([[0.1, -0.8]]).double()
    z = mean + (logvar / 2).exp() * torch.randn(400_000, 2, generator=generator, dtype=torch.float64)
    q = MultivariateNormal(mean[0], torch.diag(logvar[0].exp()))
    likelihood = MultivariateNormal(z, noise**2 * torch.eye(2).double()).log_prob(x)
    elbo = (likelihood + WORLD.log_prob(z) - q.log_prob(z)).mean()
    missed = gap(WORLD.posterior(x, 1.0, noise), mean, logvar, nodes=30)
    evidence = WORLD.diffused(1.0, noise).log_prob(x)
    assert (evidence - elbo).item() == pytest.approx(missed.item(), abs=0.01)

    posterior = SINGLE.posterior(x, 1.0, noise)
    known = kl_divergence(q, MultivariateNormal(posterior.means[0, 0], posterior.covariances[0, 0]))
    torch.testing.assert_close(gap(posterior, mean, logvar)[0], known)


def test_the_best_diagonal_gaussian_keeps_the_precisions():
    """Of a correlated Gaussian the nearest q has variances 1 / precision_ii, and the gap is known."""
    posterior = SINGLE.posterior(torch.zeros(1, 2).double(), 1.0, 0.8)
    precision = torch.linalg.inv(posterior.covariances[0, 0])
    best = -precision.diagonal().log()[None]
    known = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    torch.testing.assert_close(gap(posterior, posterior.means[:, 0], best)[0], known)
    for change in (0.1, -0.1):
        assert gap(posterior, posterior.means[:, 0], best + change)[0] > known


def test_the_flow_of_a_single_gaussian_is_known(generator):
    """In the basis of its covariance each part moves with the standard deviation, whatever the solver ends in."""
    start = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    phis = torch.linspace(math.pi / 2, 0, 201, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(SINGLE.covariances[0])
    ends = SINGLE.means[0] + (start @ vectors * values.sqrt()) @ vectors.T
    torch.testing.assert_close(heun(SINGLE, start, phis)[-1], ends, atol=4e-3, rtol=4e-3)
    torch.testing.assert_close(ddim(SINGLE, start, phis)[-1], ends, atol=2e-2, rtol=2e-2)
    times = torch.linspace(1, 0, 401, dtype=torch.float64)
    torch.testing.assert_close(straight(SINGLE, start, times)[-1], ends, atol=4e-2, rtol=4e-2)


def test_solvers_have_their_orders(generator):
    """Twice the steps: half the error for DDIM, a quarter for Heun."""
    start = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    truth = heun(WORLD, start, torch.linspace(math.pi / 2, 0, 301, dtype=torch.float64))[-1]

    def error(solver, steps: int) -> float:
        ends = solver(WORLD, start, torch.linspace(math.pi / 2, 0, steps + 1, dtype=torch.float64))[-1]
        return (ends - truth).square().sum(1).sqrt().median().item()

    assert error(ddim, 30) / error(ddim, 60) == pytest.approx(2, rel=0.2)
    assert error(heun, 30) / error(heun, 60) > 3


def test_ancestral_steps_end_in_the_world(generator):
    start = torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    phis = torch.linspace(math.pi / 2, 0, 151, dtype=torch.float64)
    ends = ddim(WORLD, start, phis, eta=1.0, generator=generator)[-1]
    assert -WORLD.log_prob(ends).mean() == pytest.approx(entropy_of(WORLD), abs=0.1)
    torch.testing.assert_close(ends.mean(0), WORLD.distribution().mean, atol=0.15, rtol=0)


def test_a_draw_from_the_posterior_has_twice_the_error_of_the_mean(generator):
    """The 3 dB law."""
    noise = 0.8
    x0 = WORLD.draw(3000, generator)
    phi = math.atan(noise)
    x = math.cos(phi) * x0 + math.sin(phi) * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    back = torch.linspace(phi, 0, 65, dtype=torch.float64)
    least = WORLD.denoising_error(x, math.cos(phi), math.sin(phi)).mean()
    drawn = (ddim(WORLD, x, back, eta=1.0, generator=generator)[-1] - x0).square().sum(1).mean()
    assert (drawn / least).item() == pytest.approx(2, rel=0.08)
    mean = (WORLD.denoised(x, math.cos(phi), math.sin(phi)) - x0).square().sum(1).mean()
    assert (mean / least).item() == pytest.approx(1, rel=0.06)


def test_predictions_are_the_conditional_means_of_flow_matching(generator):
    """x0 and eps of a point add up to it, and eps - x0 is the best answer to the direction of the line, by draws."""
    phi = 0.9
    x = WORLD.diffused(math.cos(phi), math.sin(phi)).draw(20, generator)
    x0, eps = predicted(WORLD, x, phi)
    torch.testing.assert_close(math.cos(phi) * x0 + math.sin(phi) * eps, x)

    t, n = 0.6, 400_000
    points = WORLD.draw(n, generator)
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    x_t = (1 - t) * points + t * noise
    here = (x_t - torch.tensor([-0.5, -0.3])).abs().amax(1) < 0.1
    seen = (noise - points)[here].mean(0)
    at = x_t[here].mean(0, keepdim=True)
    mean = WORLD.denoised(at, 1 - t, t)
    torch.testing.assert_close((at - (1 - t) * mean) / t - mean, seen[None], atol=0.06, rtol=0)


def test_contours_lie_where_the_height_is():
    for of_level in contours(lambda x: -x.square().sum(1), [-4.0, -1.0], half=4.5):
        points = np.array([point for line in of_level["lines"] for point in line])
        np.testing.assert_allclose((points**2).sum(1), -of_level["level"], rtol=0.02)


def test_the_script_writes_what_the_report_reads_and_overwrites_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(exact_world, "NUM_POINTS", 40)
    monkeypatch.setattr(exact_world, "REFERENCE_STEPS", 20)
    main(tmp_path, num_updates=2)
    found = json.loads((tmp_path / "mixture.json").read_text())
    assert set(found) == {"world", "bound", "contest", "diffusion"}
    assert found["bound"]["best"][0] < found["bound"]["network"][0]
    with pytest.raises(UserError, match="overwrite"):
        main(tmp_path, num_updates=2)
    with pytest.raises(UserError, match="num_updates"):
        main(tmp_path / "other", num_updates=0)
