"""The losses of the denoising GAN against torch's own."""

from __future__ import annotations

import pytest
import torch
from stand_ins import seeded
from torch.nn import functional as F

from triptych.losses.gan import (
    discriminator_accuracies,
    discriminator_loss,
    feature_matching,
    generator_loss,
    r1_penalty,
    restoration_loss,
)

KINDS = ["non_saturating", "least_squares", "hinge", "relativistic"]


def test_non_saturating_is_binary_cross_entropy():
    real, fake = torch.randn(2, 4, 1, 3, 3, generator=seeded())
    ones, zeros = torch.ones_like(real), torch.zeros_like(real)
    bce = F.binary_cross_entropy_with_logits
    torch.testing.assert_close(discriminator_loss("non_saturating", real, fake), bce(real, ones) + bce(fake, zeros))
    torch.testing.assert_close(generator_loss("non_saturating", real, fake), bce(fake, ones))


def test_least_squares_and_hinge_are_torchs():
    real, fake = torch.randn(2, 4, 1, 3, 3, generator=seeded())
    ones = torch.ones_like(real)
    expected = 0.5 * (F.mse_loss(real, ones) + F.mse_loss(fake, 0 * ones))
    torch.testing.assert_close(discriminator_loss("least_squares", real, fake), expected)
    torch.testing.assert_close(generator_loss("least_squares", real, fake), 0.5 * F.mse_loss(fake, ones))
    hinge = F.hinge_embedding_loss
    expected = hinge(1 + real * 0 + (real - 1), -ones, margin=1.0) + hinge(-fake, -ones, margin=1.0)
    torch.testing.assert_close(discriminator_loss("hinge", real, fake), expected)
    torch.testing.assert_close(generator_loss("hinge", real, fake), -fake.mean())


def test_relativistic_depends_on_differences_alone():
    real, fake = torch.randn(2, 4, 1, 3, 3, generator=seeded())
    for loss in (discriminator_loss, generator_loss):
        torch.testing.assert_close(loss("relativistic", real, fake), loss("relativistic", real + 7, fake + 7))
    torch.testing.assert_close(
        discriminator_loss("relativistic", real, fake), generator_loss("relativistic", fake, real)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_each_side_pulls_its_own_way(kind):
    """The discriminator raises real and lowers fake logits; the generator raises the fake ones."""
    real, fake = (torch.full((8,), 0.3, requires_grad=True) for _ in range(2))
    d_real, d_fake = torch.autograd.grad(discriminator_loss(kind, real, fake), (real, fake))
    (g_fake,) = torch.autograd.grad(generator_loss(kind, real, fake), fake)
    assert (d_real < 0).all() and (d_fake > 0).all() and (g_fake < 0).all()
    good = discriminator_accuracies(kind, torch.full((8,), 2.0), torch.full((8,), -2.0))
    bad = discriminator_accuracies(kind, torch.full((8,), -2.0), torch.full((8,), 2.0))
    assert good == (1, 1) and bad == (0, 0)


def test_r1_of_a_linear_judge_is_half_its_squared_weight():
    weight = torch.randn(1, 3, 4, 4, generator=seeded()).requires_grad_(True)
    images = torch.randn(5, 3, 4, 4, generator=seeded(1)).requires_grad_(True)
    penalty = r1_penalty((images * weight).flatten(1).sum(1), images)
    torch.testing.assert_close(penalty, 0.5 * weight.square().sum())
    torch.testing.assert_close(torch.autograd.grad(penalty, weight)[0], weight)


def test_restoration_losses_are_torchs():
    a, b = torch.randn(2, 3, 1, 4, 4, generator=seeded())
    torch.testing.assert_close(restoration_loss("l1", a, b), F.l1_loss(a, b))
    torch.testing.assert_close(restoration_loss("l2", a, b), F.mse_loss(a, b))
    torch.testing.assert_close(restoration_loss("charbonnier", a, b), F.l1_loss(a, b), atol=1e-3, rtol=0)
    assert feature_matching([a, b], [a, b]) == 0
    torch.testing.assert_close(feature_matching([a, a], [a, b]), F.l1_loss(a, b) / 2)
