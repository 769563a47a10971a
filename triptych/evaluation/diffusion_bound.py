"""The variational bound of a diffusion pipeline on given images, and which noise levels a training objective is about.

The sum over all T steps is estimated without bias: the steps are cut into strata, and of each stratum every image gets
one step at random, which stands for all of it. An image's sum is therefore right in expectation, images are independent
of each other, and an interval over images holds for both, images and steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline

from triptych.losses.bound import (
    NoiseSteps,
    Variance,
    discretized_gaussian_nll,
    prior_divergence,
    step_divergence,
)
from triptych.losses.diffusion import diffuse, log_normal_steps, min_snr_weight, predicted_x0, signal_to_noise
from triptych.seeds import keyed_generator

VARIANCES: dict[Variance, str] = {"posterior": "beta-tilde", "forward": "beta"}
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # x_t (B, ...), t (B,) -> x_0 as it is thought to be


def strata(num_steps: int, count: int) -> torch.Tensor:
    """Edges of about `count` strata of the steps: (K + 1,), from 0 to `num_steps`; edges[k] <= t < edges[k + 1].

    They grow with t, for the terms of the bound change fastest at the beginning. The first step stands alone: its term
    is of another kind.
    """
    edges = (num_steps * torch.linspace(0, 1, count + 1, dtype=torch.float64).square()).round().long()
    return torch.cat([torch.tensor([0, 1]), edges]).unique()


@dataclass
class Measured:
    """What was measured of N images at one step of each of K strata.

    Attributes:
        t: the steps, (N, K); the first column is 0.
        error: |x_0 - predicted x_0|^2 of the prediction as it is, (N, K), in the network's units.
        clipped: the same with the prediction clipped to what images can be.
        decoder: -log p(x_0 | x_1) in nats, (N, 2), by the order of VARIANCES.
        prior: KL(q(x_T | x_0) || N(0, I)) in nats, (N,).
    """

    t: torch.Tensor
    error: torch.Tensor
    clipped: torch.Tensor
    decoder: torch.Tensor
    prior: torch.Tensor

    @classmethod
    def joined(cls, parts: Sequence[Measured]) -> Measured:
        """All images of several."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


@torch.no_grad()
def measure_bound(
    predict: Predict,
    x0: torch.Tensor,
    steps: NoiseSteps,
    edges: torch.Tensor,
    generators: Sequence[torch.Generator],
    half_width: float,
    limit: float,
) -> Measured:
    """Predict each image from a noised one, at one step of every stratum.

    Args:
        predict: the network.
        x0: (B, ...), in [-limit, limit].
        steps: the noise schedule.
        edges: of the strata, see :func:`strata`.
        generators: one for each image: of its steps and its noise.
        half_width: half the distance between two values of a pixel.
        limit: the largest value of a pixel; infinite = there is none, and nothing is clipped.
    """
    steps_of_each = [torch.rand(len(edges) - 1, generator=one, dtype=torch.float64) for one in generators]
    t = (edges[:-1] + torch.stack(steps_of_each) * edges.diff()).long()  # (B, K)
    errors, clipped_errors, decoder = [], [], []
    for k in range(t.shape[1]):
        eps = torch.stack([torch.randn(x0.shape[1:], generator=one, dtype=x0.dtype) for one in generators])
        x_t = diffuse(x0, eps.to(x0.device), steps.alpha_bar[t[:, k]].to(x0))
        predicted = predict(x_t, t[:, k]).double()
        clipped = predicted.clamp(-limit, limit)
        for kept, what in ((errors, predicted), (clipped_errors, clipped)):
            kept.append((x0 - what).square().flatten(1).sum(1).cpu())
        if k == 0:  # before the first step there is no noise: the mean of p is the predicted image itself
            for choice in VARIANCES:
                std = float(steps.variance(choice)[0].sqrt())
                decoder.append(discretized_gaussian_nll(x0, clipped, std, half_width, limit).cpu())
    return Measured(
        t, *(torch.stack(part, dim=1) for part in (errors, clipped_errors, decoder)), prior_divergence(x0.cpu(), steps)
    )


def measure_images(
    pipe: DiffusionPipeline, images: torch.Tensor, labels: torch.Tensor, indices: Sequence[int], count: int, seed: int
) -> Measured:
    """:func:`measure_bound` of a class-conditional pipeline, which is told the classes.

    Args:
        pipe: on its device.
        images: (B, C, H, W) in [-1, 1], of 8 bits.
        labels: (B,).
        indices: of the images in their set: an image's steps and noise are a function of (seed, its index) alone.
        count: of the strata.
        seed: of both.
    """
    steps, config = NoiseSteps(pipe.scheduler.betas.cpu()), pipe.config
    x0 = F.pixel_unshuffle(images / config.data_std, config.pixel_unshuffle).to(pipe.device)
    labels = labels.to(pipe.device)

    def predict(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        output = pipe.unet(x_t.to(pipe.unet.dtype), t.to(x_t.device), class_labels=labels).sample.double()
        alpha_bar = steps.alpha_bar[t].to(x_t.device)
        return predicted_x0(output, x_t.double(), alpha_bar, pipe.scheduler.config.prediction_type)

    generators = [keyed_generator("bound", seed, index) for index in indices]
    edges = strata(len(steps.betas), count)
    return measure_bound(predict, x0, steps, edges, generators, 1 / 255 / config.data_std, 1 / config.data_std)


def bound_terms(measured: Measured, steps: NoiseSteps, num_dims: int, choice: Variance) -> torch.Tensor:
    """L_t at each image's steps, in bits per dimension, (N, K)."""
    later = step_divergence(measured.clipped[:, 1:], num_dims, measured.t[:, 1:], steps, choice)
    first = measured.decoder[:, list(VARIANCES).index(choice), None]
    return torch.cat([first, later], dim=1) / (num_dims * math.log(2))


def objective_terms(measured: Measured, steps: NoiseSteps, num_dims: int, data_std: float) -> dict[str, torch.Tensor]:
    """What each step adds to a training objective, chance of the step times weight times error, (N, K), by weighting.

    Up to a factor of its own for each. All are weights of |x_0 - predicted x_0|^2, w(t): the error of epsilon is SNR(t)
    times that, the error of v SNR(t) + 1 times (Salimans & Ho 2022, section 4).
    """
    alpha_bar = steps.alpha_bar
    snr = signal_to_noise(alpha_bar)
    # Karras et al. 2022, table 1: ln sigma ~ N(-1.2, 1.2^2), lambda = 1 / 0.5^2 + 1 / sigma^2, images of deviation 0.5
    edm = log_normal_steps(alpha_bar, -1.2, 1.2, data_std) * (4 + snr / data_std**2)
    of_step = {
        "epsilon, all t alike": snr,
        "v, all t alike": snr + 1,
        "min-SNR, gamma 5": min_snr_weight(alpha_bar, "sample", 5),
        "EDM": edm,
    }
    terms = {name: weight[measured.t] * measured.error for name, weight in of_step.items()}
    return {"variational bound": bound_terms(measured, steps, num_dims, "posterior")} | terms
