"""The formulas of rectified flow, against what they are by definition."""

from __future__ import annotations

import pytest
import torch

from triptych.losses.flow import flow_loss, interpolate, logit_normal, velocity


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))


def test_the_way_begins_at_the_image_and_ends_at_the_noise():
    x0, eps = pair(4, 3, 2, 2)
    assert torch.equal(interpolate(x0, eps, torch.zeros(4, dtype=x0.dtype)), x0)
    assert torch.equal(interpolate(x0, eps, torch.ones(4, dtype=x0.dtype)), eps)
    t = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=x0.dtype)
    for k in range(4):  # every image by its own time
        torch.testing.assert_close(interpolate(x0, eps, t)[k], x0[k] * (1 - t[k]) + eps[k] * t[k])


def test_the_velocity_is_the_derivative():
    x0, eps = pair(3, 1, 2, 2)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=x0.dtype)
    _, derivative = torch.func.jvp(lambda t: interpolate(x0, eps, t), (t,), (torch.ones_like(t),))
    torch.testing.assert_close(velocity(x0, eps), derivative)


def test_the_loss_is_the_mean_squared_error():
    output, target = (x.float() for x in pair(3, 2, 2, 2))
    direct = sum((a - b) ** 2 for a, b in zip(output.flatten().tolist(), target.flatten().tolist(), strict=True)) / 24
    assert flow_loss(output, target).item() == pytest.approx(direct, rel=1e-6)
    half = flow_loss(output.bfloat16(), target)
    assert half.dtype == torch.float32 and half.item() == pytest.approx(direct, rel=1e-2)


def test_the_best_answer_is_the_exact_velocity_of_a_gaussian():
    """The least-squares line of eps - x_0 on x_t is E[eps - x_0 | x_t], known for x_0 ~ N(m, s^2)."""
    m, s, t, n = 0.3, 0.4, 0.6, 400_000
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(n, 1, 1, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    x0 = m + s * x0
    x_t = interpolate(x0, eps, torch.full((n,), t, dtype=torch.float64)).flatten()
    design = torch.stack([x_t, torch.ones_like(x_t)], dim=1)
    slope, offset = torch.linalg.lstsq(design, velocity(x0, eps).reshape(n, 1)).solution.flatten().tolist()
    exact = (t - (1 - t) * s**2) / ((1 - t) ** 2 * s**2 + t**2)  # Cov(eps - x_0, x_t) / Var(x_t)
    assert slope == pytest.approx(exact, abs=0.01)
    assert offset == pytest.approx(-m - exact * (1 - t) * m, abs=0.01)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 0.7)])
def test_times_are_logit_normal(mean, std):
    quantiles = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    t = logit_normal(torch.special.ndtri(quantiles), mean, std)
    normal = torch.distributions.Normal(mean, std)
    torch.testing.assert_close(normal.cdf(torch.logit(t)), quantiles)
