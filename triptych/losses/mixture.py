"""A distribution whose every quantity is known: points of a plane drawn from a few Gaussians.

Density, posterior, score, denoised mean and the gap of a variational bound have closed forms or are integrals over the
plane; nothing here is learnt. Points are (..., 2) in double precision; images of it are not drawn here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians of the plane.

    Attributes:
        weights: (..., K), positive, summing to 1.
        means: (..., K, 2).
        covariances: (..., K, 2, 2).
    """

    weights: torch.Tensor
    means: torch.Tensor
    covariances: torch.Tensor

    def distribution(self) -> MixtureSameFamily:
        return MixtureSameFamily(Categorical(self.weights), MultivariateNormal(self.means, self.covariances))

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """log p(x): (..., 2) -> (...)."""
        return self.distribution().log_prob(x)

    def draw(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """n points, (n, 2)."""
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, 2, generator=generator, dtype=self.means.dtype)
        return self.means[component] + (torch.linalg.cholesky(self.covariances)[component] @ noise[..., None])[..., 0]

    def moved(self, shift: torch.Tensor) -> Mixture:
        """The same, shifted: (2,)."""
        return Mixture(self.weights, self.means + shift, self.covariances)

    def diffused(self, a: float, s: float) -> Mixture:
        """The distribution of a x_0 + s eps, eps standard normal."""
        return Mixture(self.weights, a * self.means, a**2 * self.covariances + s**2 * torch.eye(2).to(self.means))

    def responsibilities(self, x: torch.Tensor) -> torch.Tensor:
        """p(k | x), by Bayes' rule: (N, 2) -> (N, K)."""
        of_component = MultivariateNormal(self.means, self.covariances).log_prob(x[:, None])
        return (self.weights.log() + of_component).softmax(-1)

    def score(self, x: torch.Tensor) -> torch.Tensor:
        """grad log p(x): the components' scores, weighted by what they are responsible for; (N, 2) -> (N, 2)."""
        of_component = torch.linalg.solve(self.covariances, (self.means - x[:, None])[..., None])[..., 0]  # (N, K, 2)
        return (self.responsibilities(x)[..., None] * of_component).sum(1)

    def posterior(self, x: torch.Tensor, a: float, s: float) -> Mixture:
        """p(x_0 | a x_0 + s eps = x), a mixture again for each point: (N, 2) -> weights (N, K), means (N, K, 2)."""
        noisy = self.diffused(a, s)
        gain = a * torch.linalg.solve(noisy.covariances, self.covariances).mT  # S a C^-1, (K, 2, 2)
        means = self.means + (gain @ (x[:, None] - noisy.means)[..., None])[..., 0]
        covariances = self.covariances - a * gain @ self.covariances
        return Mixture(noisy.responsibilities(x), means, covariances.expand(len(x), -1, -1, -1))

    def denoised(self, x: torch.Tensor, a: float, s: float) -> torch.Tensor:
        """E[x_0 | a x_0 + s eps = x]: (N, 2) -> (N, 2)."""
        posterior = self.posterior(x, a, s)
        return (posterior.weights[..., None] * posterior.means).sum(1)

    def denoising_error(self, x: torch.Tensor, a: float, s: float) -> torch.Tensor:
        """E[|x_0 - E[x_0 | x]|^2 | x], the least squared error there is at x: (N, 2) -> (N,)."""
        return self.posterior(x, a, s).distribution().variance.sum(-1)


def plane(half: float, n: int) -> tuple[torch.Tensor, float]:
    """The centres of n x n squares that tile [-half, half]^2, (n * n, 2), rows from below; and the area of one."""
    centres = (torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 * half - half
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1), (2 * half / n) ** 2


def entropy(p: Mixture, half: float = 12.0, n: int = 480) -> float:
    """-E[log p] in nats, integrated over the plane."""
    x, area = plane(half, n)
    log_p = p.log_prob(x)
    return -(log_p.exp() * log_p).sum().item() * area


def kl(p: Mixture, q: Mixture, half: float = 12.0, n: int = 480) -> float:
    """KL(p || q) in nats, integrated over the plane."""
    x, area = plane(half, n)
    log_p, log_q = p.log_prob(x), q.log_prob(x)
    return (log_p.exp() * (log_p - log_q)).sum().item() * area


def jensen_shannon(p: Mixture, q: Mixture, half: float = 12.0, n: int = 480) -> float:
    """JS(p || q) in nats, between 0 and log 2, integrated over the plane."""
    x, area = plane(half, n)
    log_p, log_q = p.log_prob(x), q.log_prob(x)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return 0.5 * (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum().item() * area


def gap(posterior: Mixture, mean: torch.Tensor, logvar: torch.Tensor, nodes: int = 12) -> torch.Tensor:
    """KL(q || p(z | x)) for q = N(mean, diag exp(logvar)), the gap of the bound, by Gauss-Hermite quadrature.

    Args:
        posterior: a mixture for each point, (N, K).
        mean, logvar: (N, 2).

    Returns:
        nats, (N,); it can be differentiated.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    points, weights = torch.as_tensor(points), torch.as_tensor(weights / weights.sum())
    eps = torch.cartesian_prod(points, points)  # (nodes^2, 2)
    weight = torch.outer(weights, weights).flatten()
    z = mean + (logvar / 2).exp() * eps[:, None]  # (nodes^2, N, 2)
    entropy = (0.5 * logvar + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)
    return -entropy - (weight[:, None] * posterior.log_prob(z)).sum(0)


# ---- samplers, at x = cos(phi) x_0 + sin(phi) eps: from phi = pi / 2, pure noise, to 0, data ----------------------
def predicted(mixture: Mixture, x: torch.Tensor, phi: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What a perfect network answers: E[x_0 | x] and E[eps | x], (N, 2) each; phi > 0."""
    a, s = math.cos(phi), math.sin(phi)
    x0 = mixture.denoised(x, a, s)
    return x0, (x - a * x0) / s


def ddim(mixture: Mixture, x: torch.Tensor, phis: torch.Tensor, eta: float = 0.0, generator=None) -> torch.Tensor:
    """DDIM's steps (Song et al. 2021, eq. 12) with the exact answer; eta 1 is ancestral sampling. Paths (M + 1, N, 2).

    Args:
        x: where to begin, at phis[0]; (N, 2).
        phis: (M + 1,), falling, the last may be 0.
        generator: of the fresh noise; needed for eta > 0.
    """
    path = [x]
    for phi, to in zip(phis.tolist(), phis[1:].tolist(), strict=False):
        x0, eps = predicted(mixture, path[-1], phi)
        (a, s), (a_to, s_to) = (math.cos(phi), math.sin(phi)), (math.cos(to), math.sin(to))
        sigma = eta * s_to / s * math.sqrt(max(0.0, 1 - (a / a_to) ** 2))
        step = a_to * x0 + math.sqrt(s_to**2 - sigma**2) * eps
        if sigma > 0:
            step = step + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        path.append(step)
    return torch.stack(path)


def heun(mixture: Mixture, x: torch.Tensor, phis: torch.Tensor) -> torch.Tensor:
    """Heun's method for dx/dphi = E[v | x], the probability flow, two answers a step, the last one. (M + 1, N, 2)."""

    def velocity(x: torch.Tensor, phi: float) -> torch.Tensor:
        x0, eps = predicted(mixture, x, phi)
        return math.cos(phi) * eps - math.sin(phi) * x0

    path = [x]
    for phi, to in zip(phis.tolist(), phis[1:].tolist(), strict=False):
        slope = velocity(path[-1], phi)
        ahead = path[-1] + (to - phi) * slope
        path.append(ahead if to == 0 else path[-1] + (to - phi) * (slope + velocity(ahead, to)) / 2)
    return torch.stack(path)


def straight(mixture: Mixture, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Euler's method for flow matching (Lipman et al. 2023), x_t = (1 - t) x_0 + t eps, dx/dt = E[eps - x_0 | x].

    Args:
        x: where to begin, at times[0] = 1; (N, 2).
        times: (M + 1,), falling from 1 to 0.
    """
    path = [x]
    for t, to in zip(times.tolist(), times[1:].tolist(), strict=False):
        x0 = mixture.denoised(path[-1], 1 - t, t)
        eps = (path[-1] - (1 - t) * x0) / t
        path.append(path[-1] + (to - t) * (eps - x0))
    return torch.stack(path)
