"""The variational bound of diffusion, term by term, in nats an image (Ho et al. 2020, eq. 5 and section 3.3).

    -log p(x_0) <= L_T + sum over t of L_t,    L_T = KL(q(x_T | x_0) || N(0, I)),
    L_t = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)),  and of the first step -log p(x_0 | x_1)

Steps are counted from 0 as in diffusers: 0 is the paper's t = 1. Everything is computed in double precision, because a
step's variance is a small difference of numbers near 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

Variance = Literal["posterior", "forward"]  # beta-tilde, or beta: the two that Ho et al. 2020 try (section 3.2)


@dataclass(frozen=True)
class NoiseSteps:
    """What a noise schedule says of its T steps; every attribute is (T,), in double precision.

    Attributes:
        betas: the variance that each step adds, in (0, 1).
    """

    betas: torch.Tensor

    @cached_property
    def alpha_bar(self) -> torch.Tensor:
        """The share of the image's variance left after the step."""
        return (1 - self.betas.double()).cumprod(0)

    @cached_property
    def alpha_bar_before(self) -> torch.Tensor:
        """The same before the step; 1 before the first."""
        return torch.cat([self.alpha_bar.new_ones(1), self.alpha_bar[:-1]])

    @cached_property
    def posterior_variance(self) -> torch.Tensor:
        """beta-tilde, the variance of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 7); 0 of the first step."""
        return (1 - self.alpha_bar_before) / (1 - self.alpha_bar) * self.betas.double()

    @cached_property
    def image_share(self) -> torch.Tensor:
        """How much of x_0 there is in the mean of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 7)."""
        return self.alpha_bar_before.sqrt() * self.betas.double() / (1 - self.alpha_bar)

    def variance(self, choice: Variance) -> torch.Tensor:
        """That of p(x_{t-1} | x_t). The first beta-tilde is 0, which no decoder can have: it takes the second's, as the
        code of Ho et al. does."""
        if choice == "forward":
            return self.betas.double()
        return torch.cat([self.posterior_variance[1:2], self.posterior_variance[1:]])


def step_divergence(
    error: torch.Tensor, num_dims: int, t: torch.Tensor, steps: NoiseSteps, choice: Variance
) -> torch.Tensor:
    """L_t = KL(q(x_{t-1} | x_t, x_0) || N(mean, variance I)) of steps after the first, in nats.

    Both means are eq. 7 of Ho et al. 2020, one with x_0 and one with what the network takes for it. With beta-tilde it
    is (SNR(t-1) - SNR(t)) / 2 times the error (Kingma et al. 2021, eq. 14).

    Args:
        error: |x_0 - predicted x_0|^2, summed over an image's dimensions; any shape.
        num_dims: dimensions of an image.
        t: steps, of the shape of `error`, 1 at least.
        steps: the noise schedule.
        choice: the variance of p.
    """
    q, p = steps.posterior_variance[t], steps.variance(choice)[t]
    spread = (p / q).log() - 1 + q / p
    return 0.5 * (num_dims * spread + steps.image_share[t].square() * error.double() / p)


def prior_divergence(x0: torch.Tensor, steps: NoiseSteps) -> torch.Tensor:
    """L_T = KL(q(x_T | x_0) || N(0, I)) in nats: (B, ...) -> (B,)."""
    left = steps.alpha_bar[-1]
    each = 0.5 * (left * x0.double().square() - left - torch.log1p(-left))
    return each.flatten(1).sum(1)


def discretized_gaussian_nll(
    x0: torch.Tensor, mean: torch.Tensor, std: torch.Tensor | float, half_width: float, limit: float = 1.0
) -> torch.Tensor:
    """-log p(x_0 | x_1) of pixels that take discrete values, in nats (Ho et al. 2020, eq. 13): (B, ...) twice -> (B,).

    Args:
        x0: images, in [-limit, limit].
        mean: of the Gaussian, like the images.
        std: its standard deviation.
        half_width: half the distance between two values; 1 / 255 for 8 bits in [-1, 1].
        limit: the outermost values, -limit and limit, get all that lies beyond; infinite = there are none such.
    """
    x0, mean = x0.double(), mean.double()
    above, below = ((x0 + side * half_width - mean) / std for side in (1, -1))
    edge = limit - half_width / 2  # tells the outermost values from their neighbours in spite of rounding
    above = torch.where(x0 > edge, math.inf, above)
    below = torch.where(x0 < -edge, -math.inf, below)
    # log(cdf(above) - cdf(below)), on the side of the bell where both are small: far off they would round to equals
    flip = above + below > 0
    above, below = torch.where(flip, -below, above), torch.where(flip, -above, below)
    top, bottom = torch.special.log_ndtr(above), torch.special.log_ndtr(below)
    return -(top + torch.log1p(-(bottom - top).exp())).flatten(1).sum(1)
