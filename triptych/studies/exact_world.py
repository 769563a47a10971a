"""The three kinds of generators on a mixture of Gaussians in the plane, where every right answer is known.

What is measured: by how much a VAE's bound misses the likelihood, what a GAN's discriminator can know, and how samplers
of a diffusion model behave. Small networks are trained by the losses of triptych/losses and compared with the exact
answers. All randomness is drawn from the generator that is passed in, and from torch's own for the networks' weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from triptych.figures.contours import contours, rounded
from triptych.losses.diffusion import diffuse, prediction_target
from triptych.losses.gan import discriminator_loss
from triptych.losses.mixture import (
    Mixture,
    ddim,
    entropy,
    gap,
    heun,
    jensen_shannon,
    kl,
    plane,
    predicted,
    straight,
)

HALF = 4.5  # what is drawn reaches from -HALF to HALF
NUM_POINTS = 4000  # from which means are taken
REFERENCE_STEPS = 2000  # whose end counts as exact where the error of a solver is measured


def describe(world: Mixture, generator: torch.Generator) -> dict[str, Any]:
    """The mixture itself: parameters, entropy in nats, contours of log p, and 250 points of it."""
    return {
        "weights": world.weights.tolist(),
        "means": world.means.tolist(),
        "entropy": entropy(world),
        "contours": contours(world.log_prob, [-5.5, -4.5, -3.5, -2.5, -1.8], HALF),
        "points": rounded(world.draw(250, generator)),
    }


def bound(world: Mixture, num_updates: int, generator: torch.Generator, noise: float = 0.8) -> dict[str, Any]:
    """The gap of the variational bound for x = z + noise, z from the mixture, in nats.

    Compared are the best Gaussian for each x on its own and encoders that all x share: a linear one, a small network.
    What the shared ones miss beyond the best is the amortisation gap (Cremer et al. 2018).
    """
    x = world.diffused(1.0, noise).draw(600, generator)
    posterior = world.posterior(x, 1.0, noise)
    evidence = world.diffused(1.0, noise).log_prob(x)
    best = smallest_gap(posterior)

    gaps = {}
    for name, encoder in (("linear", nn.Linear(2, 4)), ("network", mlp(2, 4))):
        encoder = encoder.double()

        def loss(encoder: nn.Module = encoder) -> torch.Tensor:
            batch = world.diffused(1.0, noise).draw(128, generator)
            mean, logvar = encoder(batch).chunk(2, dim=1)
            return gap(world.posterior(batch, 1.0, noise), mean, logvar, nodes=8).mean()

        fit(encoder, loss, num_updates)
        with torch.no_grad():
            gaps[name] = gap(posterior, *encoder(x).chunk(2, dim=1))

    # Two points: one whose posterior has one mode, one between two components, whose posterior has two.
    modes = {}
    for name, point in (("one", [-2.6, -1.2]), ("two", [-0.1, -0.7])):
        of_point = world.posterior(torch.tensor([point], dtype=torch.float64), 1.0, noise)
        single = Mixture(of_point.weights[0], of_point.means[0], of_point.covariances[0])
        modes[name] = {
            "point": point,
            "weights": of_point.weights[0].tolist(),
            "contours": contours(single.log_prob, [-4.5, -3.5, -2.5, -1.5], HALF),
        }
    return {
        "noise": noise,
        "n": len(x),
        "nll": mean_and_interval(-evidence),
        "best": mean_and_interval(best),
        **{name: mean_and_interval(values) for name, values in gaps.items()},
        "amortisation": {name: mean_and_interval(values - best) for name, values in gaps.items()},
        "hills": modes,
    }


def smallest_gap(posterior: Mixture) -> torch.Tensor:
    """The gap of the best diagonal Gaussian for each point, (N,): fitted from each component, the best of these."""
    best = torch.full((len(posterior.means),), torch.inf, dtype=torch.float64)
    for k in range(posterior.means.shape[1]):
        mean = posterior.means[:, k].clone().requires_grad_()
        logvar = posterior.covariances[:, k].diagonal(dim1=-2, dim2=-1).log().requires_grad_()
        optimizer = torch.optim.Adam([mean, logvar], 0.05)
        for _ in range(150):
            loss = gap(posterior, mean, logvar)
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
        best = torch.minimum(best, gap(posterior, mean, logvar).detach())
    return best


def contest(world: Mixture, num_updates: int, generator: torch.Generator) -> dict[str, Any]:
    """Divergences between the mixture and generators that miss it; the best discriminator and a trained one."""
    mean = (world.weights[:, None] * world.means).sum(0)
    between = world.means - mean
    covariance = (world.weights[:, None, None] * (world.covariances + between[:, :, None] * between[:, None])).sum(0)
    generators = {
        "wide": Mixture(torch.ones(1).double(), mean[None], covariance[None]),
        "missing": Mixture(world.weights[:2] / world.weights[:2].sum(), world.means[:2], world.covariances[:2]),
    }
    shifts = [0.25 * i for i in range(33)]
    moved = [world.moved(torch.tensor([shift, 0.0], dtype=torch.float64)) for shift in shifts]

    fake = world.moved(torch.tensor([1.5, 0.0], dtype=torch.float64))
    network = mlp(2, 1)

    def loss() -> torch.Tensor:
        real, generated = (of.draw(512, generator).float() for of in (world, fake))
        return discriminator_loss("non_saturating", network(real), network(generated))

    fit(network, loss, num_updates)

    def exact(x: torch.Tensor) -> torch.Tensor:
        return (world.log_prob(x) - fake.log_prob(x)).sigmoid()

    @torch.no_grad()
    def learnt(x: torch.Tensor) -> torch.Tensor:
        return network(x.float())[:, 0].sigmoid().double()

    both = torch.cat([world.draw(5000, generator), fake.draw(5000, generator)])
    levels = [0.1, 0.3, 0.5, 0.7, 0.9]
    return {
        "divergences": {
            name: {"forward": kl(world, other), "backward": kl(other, world), "js": jensen_shannon(world, other)}
            for name, other in generators.items()
        },
        "shifts": shifts,
        "js": [jensen_shannon(world, other, half=16) for other in moved],
        "shift": 1.5,
        "js_at_shift": jensen_shannon(world, fake),
        "fake": contours(fake.log_prob, [-4.5, -2.5], HALF),
        "real": contours(world.log_prob, [-4.5, -2.5], HALF),
        "exact": contours(exact, levels, HALF),
        "learnt": contours(learnt, levels, HALF),
        "error": mean_and_interval((exact(both) - learnt(both)).abs()),
        "n": len(both),
    }


def diffusion(world: Mixture, num_updates: int, generator: torch.Generator) -> dict[str, Any]:
    """Diffused densities, paths of every sampler from the same noise, errors of solvers, three ways to denoise."""
    start = torch.randn(14, 2, generator=generator, dtype=torch.float64)
    phis = torch.linspace(math.pi / 2, 0, 401, dtype=torch.float64)
    times = torch.linspace(1, 0, 401, dtype=torch.float64)
    paths = {
        "flow": heun(world, start, phis)[::8],
        "ancestral": ddim(world, start, phis[::4], eta=1.0, generator=generator)[::2],
        "straight": straight(world, start, times)[::8],
    }
    errors, crossed = solver_errors(world, generator)
    denoised = denoising_answers(world, generator)
    paths["network"], network_errors = learnt_flow(world, start, phis, num_updates, generator)
    x, _ = plane(HALF, 12)
    return {
        "densities": [
            {
                "phi": phi,
                "contours": contours(world.diffused(math.cos(phi), math.sin(phi)).log_prob, [-5, -4, -3, -2], HALF),
            }
            for phi in (0.15, 0.6, 1.1, 1.5)
        ],
        "arrows": rounded(torch.cat([x, world.diffused(math.cos(0.6), math.sin(0.6)).score(x)], dim=1)),
        "paths": {name: [rounded(one) for one in path.transpose(0, 1)] for name, path in paths.items()},
        "errors": errors,
        "crossed": crossed | {"entropy": entropy(world)},
        "ways": denoised,
        "network": network_errors,
    }


def solver_errors(world: Mixture, generator: torch.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    """By number of steps: errors of solvers against REFERENCE_STEPS of Heun's, the network's answers being exact; and
    the cross-entropy of what DDIM and ancestral sampling end in."""
    start = torch.randn(NUM_POINTS // 4, 2, generator=generator, dtype=torch.float64)
    truth = heun(world, start, torch.linspace(math.pi / 2, 0, REFERENCE_STEPS + 1, dtype=torch.float64))[-1]
    errors = {"steps": [4, 8, 16, 32, 64, 128, 256], "ddim": [], "heun": []}
    crossed = {"steps": errors["steps"], "ddim": [], "ancestral": []}
    many = torch.randn(NUM_POINTS, 2, generator=generator, dtype=torch.float64)
    for steps in errors["steps"]:
        phis = torch.linspace(math.pi / 2, 0, steps + 1, dtype=torch.float64)
        for name, ends in (("ddim", ddim(world, start, phis)[-1]), ("heun", heun(world, start, phis)[-1])):
            errors[name].append((ends - truth).square().sum(1).mean().sqrt().item())
        crossed["ddim"].append(mean_and_interval(-world.log_prob(ddim(world, many, phis)[-1])))
        ends = ddim(world, many, phis, eta=1.0, generator=generator)[-1]
        crossed["ancestral"].append(mean_and_interval(-world.log_prob(ends)))
    return errors, crossed | {"n": len(many)}


def denoising_answers(world: Mixture, generator: torch.Generator, noise: float = 0.8) -> dict[str, Any]:
    """Three answers to x = z + noise: the posterior's mean, a draw from the posterior, the end of the flow.

    Of each the mean squared error and the cross-entropy; the least error there is beside them. At the angle whose
    tangent is the noise, x is the diffusion's x_t but for a factor.
    """
    x0 = world.draw(NUM_POINTS, generator)
    phi = math.atan(noise)
    a, s = math.cos(phi), math.sin(phi)
    x = a * x0 + s * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    phis = torch.linspace(phi, 0, 257, dtype=torch.float64)
    answers = {
        "mean": world.denoised(x, a, s),
        "draw": ddim(world, x, phis, eta=1.0, generator=generator)[-1],
        "flow": heun(world, x, phis)[-1],
    }
    return {
        **{name: mean_and_interval((answer - x0).square().sum(1)) for name, answer in answers.items()},
        "least": world.denoising_error(x, a, s).mean().item(),
        "noise": noise,
        "n": len(x0),
        "nll": {name: mean_and_interval(-world.log_prob(answer)) for name, answer in answers.items()},
    }


def learnt_flow(
    world: Mixture, start: torch.Tensor, phis: torch.Tensor, num_updates: int, generator: torch.Generator
) -> tuple[torch.Tensor, list[list[float]]]:
    """A network trained to predict v: its Euler paths from `start` at every eighth of `phis`, (M + 1, N, 2), and
    [phi, relative error of v] at five angles."""
    network = mlp(3, 2, width=128)

    def loss() -> torch.Tensor:
        points = world.draw(512, generator)
        angles = torch.rand(512, generator=generator, dtype=torch.float64) * math.pi / 2
        eps = torch.randn(points.shape, generator=generator, dtype=torch.float64)
        alpha_bar = angles.cos() ** 2
        x_t = diffuse(points, eps, alpha_bar)
        target = prediction_target(points, eps, alpha_bar, "v_prediction")
        return (network(torch.cat([x_t, angles[:, None]], 1).float()) - target.float()).square().mean()

    fit(network, loss, num_updates)

    @torch.no_grad()
    def velocity(x: torch.Tensor, phi: float) -> torch.Tensor:
        return network(torch.cat([x, torch.full((len(x), 1), phi).to(x)], 1).float()).double()

    path, errors = [start], []
    for phi, to in zip(phis[:-1].tolist(), phis[1:].tolist(), strict=True):
        path.append(path[-1] + (to - phi) * velocity(path[-1], phi))
    for phi in (0.1, 0.4, 0.8, 1.2, 1.5):
        points = world.diffused(math.cos(phi), math.sin(phi)).draw(NUM_POINTS, generator)
        x0, eps = predicted(world, points, phi)
        exact = math.cos(phi) * eps - math.sin(phi) * x0
        error = (velocity(points, phi) - exact).square().sum(1).mean().sqrt()
        errors.append([phi, (error / exact.square().sum(1).mean().sqrt()).item()])
    return torch.stack(path)[::8], errors


def mlp(inputs: int, outputs: int, width: int = 64) -> nn.Sequential:
    """Three hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
        nn.Linear(width, outputs),
    )  # fmt: skip


def fit(network: nn.Module, loss: Callable[[], torch.Tensor], num_updates: int) -> None:
    """Train `network` on the losses of fresh batches; the rate of learning falls to zero as a cosine."""
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_updates)
    for _ in range(num_updates):
        batch_loss = loss()
        optimizer.zero_grad()
        batch_loss.backward()
        optimizer.step()
        schedule.step()


def mean_and_interval(values: torch.Tensor) -> list[float]:
    """The mean, and half its 95 % confidence interval."""
    return [values.mean().item(), (1.96 * values.std() / math.sqrt(len(values))).item()]
