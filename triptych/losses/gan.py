"""The losses of generator and discriminator, and the penalties that keep their game stable."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

# ---- a generator against a discriminator, both judged by logits that are high for real images -----------------
Adversarial = Literal["non_saturating", "least_squares", "hinge", "relativistic"]


def discriminator_loss(kind: Adversarial, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """What the discriminator minimises; logits of real and of restored images, any shape -> ().

    "non_saturating" Goodfellow et al. 2014, eq. 1; "least_squares" Mao et al. 2017, eq. 9 (a = 0, b = 1); "hinge" Lim &
    Ye 2017; "relativistic" Jolicoeur-Martineau 2019, each restored image paired with its own original.
    """
    if kind == "non_saturating":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    if kind == "least_squares":
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if kind == "relativistic":
        return F.softplus(fake - real).mean()
    raise ValueError(f"adversarial must be non_saturating, least_squares, hinge or relativistic, not {kind!r}")


def generator_loss(kind: Adversarial, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """What the generator minimises, of the same logits, any shape -> (); `real` matters to "relativistic" alone."""
    if kind == "non_saturating":
        return F.softplus(-fake).mean()
    if kind == "least_squares":
        return 0.5 * (fake - 1).square().mean()
    if kind == "hinge":
        return -fake.mean()
    if kind == "relativistic":
        return F.softplus(real - fake).mean()
    raise ValueError(f"adversarial must be non_saturating, least_squares, hinge or relativistic, not {kind!r}")


def discriminator_accuracies(
    kind: Adversarial, real: torch.Tensor, fake: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fractions of real and of restored logits on the right side, any shape -> (), ().

    The border is 0, for "least_squares" 1/2 (its targets are 0 and 1); "relativistic" logits have none of their own,
    there it is the other side's mean.
    """
    if kind == "relativistic":
        return (real > fake.mean()).float().mean(), (fake < real.mean()).float().mean()
    border = 0.5 if kind == "least_squares" else 0.0
    return (real > border).float().mean(), (fake < border).float().mean()


def r1_penalty(logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Half the squared gradient of the logits by the real images, mean over the batch (Mescheder et al. 2018, eq. 9).

    `logits` must come from `images`, (B, C, H, W) that require grad; the gradient can itself be differentiated.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return 0.5 * gradient.float().square().flatten(1).sum(1).mean()


def feature_matching(real: list[torch.Tensor], fake: list[torch.Tensor]) -> torch.Tensor:
    """Mean distance of the discriminator's features, over its layers (Wang et al. 2018, eq. 4): lists of (B, ...)."""
    distances = [(a.detach().float() - b.float()).abs().mean() for a, b in zip(real, fake, strict=True)]
    return torch.stack(distances).mean()


def restoration_loss(
    kind: Literal["l1", "l2", "charbonnier"], restored: torch.Tensor, clean: torch.Tensor
) -> torch.Tensor:
    """Distance of restored images from clean ones, (B, C, H, W) twice -> (); Charbonnier et al. 1994 with eps 1e-3."""
    error = restored.float() - clean.float()
    if kind == "l1":
        return error.abs().mean()
    if kind == "l2":
        return error.square().mean()
    if kind == "charbonnier":
        return (error.square() + 1e-6).sqrt().mean()
    raise ValueError(f"reconstruction must be l1, l2 or charbonnier, not {kind!r}")


def psnr(restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """In dB, mean over the batch, images in [-1, 1]: (B, C, H, W) twice -> ()."""
    return (10 * torch.log10(4 / (restored - clean).square().flatten(1).mean(1))).mean()
