"""Compute what the report's chapter on an exact world shows: a mixture of Gaussians of the plane, whole.

python scripts/figures/mixture.py --output runs/mixture

Writes mixture.json: numbers, curves and contours, which the report draws in the language of its page. Beside what is
exact, small networks are trained on the same points, by the losses of triptych/losses, to be held against it. Two
minutes on one core.
"""

from __future__ import annotations

from triptych.cli import command

import json
import math
from pathlib import Path

import torch
from skimage.measure import find_contours
from torch import nn

from triptych.errors import UserError
from triptych.losses.diffusion import diffuse, prediction_target
from triptych.losses.gan import discriminator_loss
from triptych.losses.mixture import Mixture, ddim, gap, heun, jensen_shannon, kl, plane, predicted, straight
from triptych.outputs import claim_file

WORLD = Mixture(
    torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
    torch.tensor([[-2.0, -0.8], [1.8, -0.6], [0.3, 2.0]], dtype=torch.float64),
    torch.tensor([[[0.5, 0.25], [0.25, 0.3]], [[0.25, -0.1], [-0.1, 0.4]], [[0.35, 0.0], [0.0, 0.12]]]).double(),
)
HALF = 4.5  # what is drawn reaches from -HALF to HALF


def main(output: Path = Path("runs/mixture"), num_updates: int = 2000, seed: int = 0, overwrite: bool = False) -> None:
    """Compute the exact world.

    Args:
        output: folder for mixture.json.
        num_updates: of each small network.
        seed: of all draws and networks.
        overwrite: replace a mixture.json that is there.
    """
    if num_updates < 1:
        raise UserError("num_updates must be at least 1.")
    target = output / "mixture.json"
    claim_file(target, overwrite)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    found = {
        "world": {
            "weights": WORLD.weights.tolist(),
            "means": WORLD.means.tolist(),
            "entropy": entropy(WORLD),
            "contours": contours(WORLD.log_prob, [-5.5, -4.5, -3.5, -2.5, -1.8]),
            "points": rounded(WORLD.draw(250, generator)),
        },
        "bound": bound(num_updates, generator),
        "contest": contest(num_updates, generator),
        "diffusion": diffusion(num_updates, generator),
    }
    output.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found) + "\n")
    print(target)


def bound(num_updates: int, generator: torch.Generator, noise: float = 0.8) -> dict:
    """z from the world, x = z + noise: the bound's gap for the best Gaussian of each x, and for shared encoders."""
    x = WORLD.diffused(1.0, noise).draw(600, generator)
    posterior = WORLD.posterior(x, 1.0, noise)
    evidence = WORLD.diffused(1.0, noise).log_prob(x)

    # One Gaussian for each point, from each component's as a start: the best of the three.
    best = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for k in range(len(WORLD.weights)):
        mean = posterior.means[:, k].clone().requires_grad_()
        logvar = posterior.covariances[:, k].diagonal(dim1=-2, dim2=-1).log().requires_grad_()
        optimizer = torch.optim.Adam([mean, logvar], 0.05)
        for _ in range(150):
            loss = gap(posterior, mean, logvar)
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
        best = torch.minimum(best, gap(posterior, mean, logvar).detach())

    of_encoders = {}
    for name, encoder in (("linear", nn.Linear(2, 4)), ("network", mlp(2, 4))):
        encoder = encoder.double()
        optimizer, schedule = training(encoder, num_updates)
        for _ in range(num_updates):
            batch = WORLD.diffused(1.0, noise).draw(128, generator)
            mean, logvar = encoder(batch).chunk(2, dim=1)
            loss = gap(WORLD.posterior(batch, 1.0, noise), mean, logvar, nodes=8).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            of_encoders[name] = gap(posterior, *encoder(x).chunk(2, dim=1))

    # Two points: one whose posterior has one hill, one between two components, whose posterior has two.
    hills = {}
    for name, point in (("one", [-2.6, -1.2]), ("two", [-0.1, -0.7])):
        of_point = WORLD.posterior(torch.tensor([point], dtype=torch.float64), 1.0, noise)
        single = Mixture(of_point.weights[0], of_point.means[0], of_point.covariances[0])
        hills[name] = {
            "point": point,
            "weights": of_point.weights[0].tolist(),
            "contours": contours(single.log_prob, [-4.5, -3.5, -2.5, -1.5]),
        }
    return {
        "noise": noise,
        "n": len(x),
        "nll": mean_and_half(-evidence),
        "best": mean_and_half(best),
        **{name: mean_and_half(gaps) for name, gaps in of_encoders.items()},
        "amortisation": {name: mean_and_half(gaps - best) for name, gaps in of_encoders.items()},
        "hills": hills,
    }


def contest(num_updates: int, generator: torch.Generator) -> dict:
    """Distances between the world and generators that miss it; the best discriminator and a trained one."""
    mean = (WORLD.weights[:, None] * WORLD.means).sum(0)
    between = WORLD.means - mean
    covariance = (WORLD.weights[:, None, None] * (WORLD.covariances + between[:, :, None] * between[:, None])).sum(0)
    wide = Mixture(torch.ones(1).double(), mean[None], covariance[None])
    missing = Mixture(WORLD.weights[:2] / WORLD.weights[:2].sum(), WORLD.means[:2], WORLD.covariances[:2])
    others = {"wide": wide, "missing": missing}
    shifts = [0.25 * i for i in range(33)]
    moved = [WORLD.moved(torch.tensor([shift, 0.0], dtype=torch.float64)) for shift in shifts]

    fake = WORLD.moved(torch.tensor([1.5, 0.0], dtype=torch.float64))
    network = mlp(2, 1)
    optimizer, schedule = training(network, num_updates)
    for _ in range(num_updates):
        real, made = (of.draw(512, generator).float() for of in (WORLD, fake))
        loss = discriminator_loss("non_saturating", network(real), network(made))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    def exact(x: torch.Tensor) -> torch.Tensor:
        return (WORLD.log_prob(x) - fake.log_prob(x)).sigmoid()

    @torch.no_grad()
    def learnt(x: torch.Tensor) -> torch.Tensor:
        return network(x.float())[:, 0].sigmoid().double()

    both = torch.cat([WORLD.draw(5000, generator), fake.draw(5000, generator)])
    levels = [0.1, 0.3, 0.5, 0.7, 0.9]
    return {
        "divergences": {
            name: {"forward": kl(WORLD, other), "backward": kl(other, WORLD), "js": jensen_shannon(WORLD, other)}
            for name, other in others.items()
        },
        "shifts": shifts,
        "js": [jensen_shannon(WORLD, other, half=16) for other in moved],
        "shift": 1.5,
        "js_at_shift": jensen_shannon(WORLD, fake),
        "fake": contours(fake.log_prob, [-4.5, -2.5]),
        "real": contours(WORLD.log_prob, [-4.5, -2.5]),
        "exact": contours(exact, levels),
        "learnt": contours(learnt, levels),
        "error": mean_and_half((exact(both) - learnt(both)).abs()),
        "n": len(both),
    }


def diffusion(num_updates: int, generator: torch.Generator) -> dict:
    """Diffused densities, paths of every kind from the same noise, errors of solvers, three ways back."""
    start = torch.randn(14, 2, generator=generator, dtype=torch.float64)
    fine = torch.linspace(math.pi / 2, 0, 401, dtype=torch.float64)
    times = torch.linspace(1, 0, 401, dtype=torch.float64)
    paths = {
        "flow": heun(WORLD, start, fine)[::8],
        "ancestral": ddim(WORLD, start, fine[::4], eta=1.0, generator=generator)[::2],
        "straight": straight(WORLD, start, times)[::8],
    }

    # The error of a solver alone, for the answers are exact: against two thousand steps.
    begin = torch.randn(1000, 2, generator=generator, dtype=torch.float64)
    whole = torch.linspace(math.pi / 2, 0, 2001, dtype=torch.float64)
    truth = heun(WORLD, begin, whole)[-1]
    errors = {"steps": [4, 8, 16, 32, 64, 128, 256], "ddim": [], "heun": []}
    crossed = {"steps": errors["steps"], "ddim": [], "ancestral": []}
    many = torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    for steps in errors["steps"]:
        phis = torch.linspace(math.pi / 2, 0, steps + 1, dtype=torch.float64)
        for name, ends in (("ddim", ddim(WORLD, begin, phis)[-1]), ("heun", heun(WORLD, begin, phis)[-1])):
            errors[name].append((ends - truth).square().sum(1).mean().sqrt().item())
        crossed["ddim"].append(mean_and_half(-WORLD.log_prob(ddim(WORLD, many, phis)[-1])))
        ends = ddim(WORLD, many, phis, eta=1.0, generator=generator)[-1]
        crossed["ancestral"].append(mean_and_half(-WORLD.log_prob(ends)))

    # Three ways back from x = z + noise, at the angle whose tangent is the noise.
    noise, x0 = 0.8, WORLD.draw(4000, generator)
    phi = math.atan(noise)
    a, s = math.cos(phi), math.sin(phi)
    x = a * x0 + s * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    back = torch.linspace(phi, 0, 257, dtype=torch.float64)
    answers = {
        "mean": WORLD.denoised(x, a, s),
        "draw": ddim(WORLD, x, back, eta=1.0, generator=generator)[-1],
        "flow": heun(WORLD, x, back)[-1],
    }
    ways = {name: mean_and_half((answer - x0).square().sum(1)) for name, answer in answers.items()}
    ways["least"] = WORLD.denoising_error(x, a, s).mean().item()
    ways["noise"], ways["n"] = noise, len(x0)
    ways["nll"] = {name: mean_and_half(-WORLD.log_prob(answer)) for name, answer in answers.items()}

    network = mlp(3, 2, width=128)
    optimizer, schedule = training(network, num_updates)
    for _ in range(num_updates):
        points = WORLD.draw(512, generator)
        angles = torch.rand(512, generator=generator, dtype=torch.float64) * math.pi / 2
        eps = torch.randn(points.shape, generator=generator, dtype=torch.float64)
        alpha_bar = angles.cos() ** 2
        x_t = diffuse(points, eps, alpha_bar)
        wanted = prediction_target(points, eps, alpha_bar, "v_prediction")
        loss = (network(torch.cat([x_t, angles[:, None]], 1).float()) - wanted.float()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    @torch.no_grad()
    def learnt(x: torch.Tensor, phi: float) -> torch.Tensor:
        return network(torch.cat([x, torch.full((len(x), 1), phi).to(x)], 1).float()).double()

    of_network, explained = [start], []
    for angle, to in zip(fine[:-1].tolist(), fine[1:].tolist(), strict=True):
        of_network.append(of_network[-1] + (to - angle) * learnt(of_network[-1], angle))
    for angle in (0.1, 0.4, 0.8, 1.2, 1.5):
        points = WORLD.diffused(math.cos(angle), math.sin(angle)).draw(4000, generator)
        x0_hat, eps_hat = predicted(WORLD, points, angle)
        velocity = math.cos(angle) * eps_hat - math.sin(angle) * x0_hat
        wrong = (learnt(points, angle) - velocity).square().sum(1).mean().sqrt()
        explained.append([angle, (wrong / velocity.square().sum(1).mean().sqrt()).item()])
    paths["network"] = torch.stack(of_network)[::8]
    return {
        "densities": [
            {"phi": phi, "contours": contours(WORLD.diffused(math.cos(phi), math.sin(phi)).log_prob, [-5, -4, -3, -2])}
            for phi in (0.15, 0.6, 1.1, 1.5)
        ],
        "arrows": arrows(0.6),
        "paths": {name: [rounded(one) for one in path.transpose(0, 1)] for name, path in paths.items()},
        "errors": errors,
        "crossed": crossed | {"n": len(many), "entropy": entropy(WORLD)},
        "ways": ways,
        "network": explained,
    }


def arrows(phi: float) -> list[list[float]]:
    """The score of the diffused world on a coarse grid: x, y and its two parts."""
    x, _ = plane(HALF, 12)
    score = WORLD.diffused(math.cos(phi), math.sin(phi)).score(x)
    return rounded(torch.cat([x, score], dim=1))


def entropy(mixture: Mixture) -> float:
    """-E[log p], in nats, integrated over the plane."""
    x, area = plane(12.0, 480)
    log_p = mixture.log_prob(x)
    return -(log_p.exp() * log_p).sum().item() * area


def mlp(inputs: int, outputs: int, width: int = 64) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
        nn.Linear(width, outputs),
    )  # fmt: skip


def training(
    network: nn.Module, num_updates: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_updates)


def contours(height, levels: list[float], n: int = 120) -> list[dict]:
    """Where a function of the plane, (N, 2) -> (N,), has the given heights: lines of points (x, y)."""
    x, _ = plane(HALF, n)
    values = height(x).reshape(n, n).numpy()

    def place(line) -> torch.Tensor:  # (row, column) -> (x, y)
        return (torch.as_tensor(line.copy()).flip(1) + 0.5) / n * 2 * HALF - HALF

    return [
        {"level": level, "lines": [rounded(place(line)[::2]) for line in find_contours(values, level) if len(line) > 5]}
        for level in levels
    ]


def mean_and_half(values: torch.Tensor) -> list[float]:
    """The mean, and half its 95 % confidence interval."""
    return [values.mean().item(), (1.96 * values.std() / math.sqrt(len(values))).item()]


def rounded(points: torch.Tensor) -> list:
    return [[round(value, 3) for value in point] for point in points.tolist()]


if __name__ == "__main__":
    command(main)
