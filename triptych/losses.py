"""The training mathematics as pure functions: tensors in, tensors out.

Letters are the papers': ``x0`` images in [-1, 1], ``eps`` unit Gaussian noise, ``alpha_bar`` the product of
(1 - beta) up to step t, ``x_t`` the noised image. Images are (B, C, H, W), ``alpha_bar`` is (B,).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F

Prediction = Literal["epsilon", "v_prediction", "sample"]


def _broadcast(alpha_bar: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return alpha_bar.reshape(-1, *[1] * (images.dim() - 1))  # (B,) -> (B, 1, 1, 1)


def diffuse(x0: torch.Tensor, eps: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """Draw x_t from q(x_t | x_0) (Ho et al. 2020, eq. 4): (B, C, H, W), (B, C, H, W), (B,) -> (B, C, H, W)."""
    a = _broadcast(alpha_bar, x0)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


def prediction_target(
    x0: torch.Tensor, eps: torch.Tensor, alpha_bar: torch.Tensor, prediction_type: Prediction
) -> torch.Tensor:
    """What the network is asked for: eps (Ho et al. 2020), v (Salimans & Ho 2022, appendix D), or x0."""
    a = _broadcast(alpha_bar, x0)
    if prediction_type == "epsilon":
        return eps
    if prediction_type == "v_prediction":
        return a.sqrt() * eps - (1 - a).sqrt() * x0
    if prediction_type == "sample":
        return x0
    raise ValueError(f"prediction_type must be epsilon, v_prediction or sample, not {prediction_type!r}")


def predicted_x0(
    output: torch.Tensor, x_t: torch.Tensor, alpha_bar: torch.Tensor, prediction_type: Prediction
) -> torch.Tensor:
    """The image a prediction stands for; the inverse of :func:`prediction_target`. Epsilon needs alpha_bar > 0."""
    a = _broadcast(alpha_bar, x_t)
    if prediction_type == "epsilon":
        return (x_t - (1 - a).sqrt() * output) / a.sqrt()  # Ho et al. 2020, eq. 4 solved for x_0
    if prediction_type == "v_prediction":
        return a.sqrt() * x_t - (1 - a).sqrt() * output
    if prediction_type == "sample":
        return output
    raise ValueError(f"prediction_type must be epsilon, v_prediction or sample, not {prediction_type!r}")


def prediction_for(
    x0: torch.Tensor, x_t: torch.Tensor, alpha_bar: torch.Tensor, prediction_type: Prediction
) -> torch.Tensor:
    """The prediction that stands for `x0`, given x_t; the inverse of :func:`predicted_x0` in its first argument."""
    a = _broadcast(alpha_bar, x_t)
    return prediction_target(x0, (x_t - a.sqrt() * x0) / (1 - a).sqrt(), alpha_bar, prediction_type)


def signal_to_noise(alpha_bar: torch.Tensor) -> torch.Tensor:
    """SNR(t) = alpha_bar / (1 - alpha_bar) (Kingma et al. 2021, eq. 2); any shape."""
    return alpha_bar / (1 - alpha_bar)


def min_snr_weight(alpha_bar: torch.Tensor, prediction_type: Prediction, gamma: float | None) -> torch.Tensor:
    """Weight of each step's squared error, (B,) -> (B,) (Hang et al. 2023, sections 3.4 and 4.2).

    In terms of the error of x0 the weight is min(SNR, gamma), so that nearly clean steps, which are easy and
    have huge SNR, do not drown the rest; the other targets divide it by their own scale. `gamma` None
    weights every step's error by 1.
    """
    if gamma is None:
        return torch.ones_like(alpha_bar)
    snr = signal_to_noise(alpha_bar)
    clipped = snr.clamp(max=gamma)
    if prediction_type == "epsilon":
        return clipped / snr
    if prediction_type == "v_prediction":
        return clipped / (snr + 1)
    return clipped


def log_normal_steps(alphas_cumprod: torch.Tensor, mean: float, std: float, data_std: float = 1.0) -> torch.Tensor:
    """How often each t is the nearest to a sigma with ln sigma ~ N(mean, std^2): (T,) -> (T,), which sums to 1.

    sigma is the standard deviation of the noise on images in [-1, 1] (Karras et al. 2022, table 1), which is data_std *
    sqrt((1 - alpha_bar) / alpha_bar) where the network sees images / data_std. Nearest in ln sigma; what lies beyond
    the first or the last t falls to that.
    """
    sigma = data_std * signal_to_noise(alphas_cumprod.double()).clamp(min=1e-12).rsqrt()  # (T,), ascending
    between = (sigma[1:].log() + sigma[:-1].log()) / 2
    below = torch.special.ndtr((between - mean) / std)
    edges = torch.cat([below.new_zeros(1), below, below.new_ones(1)])
    return edges.diff().to(alphas_cumprod.dtype)


def steps_of(uniform: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Turn uniform numbers in [0, 1) into steps t with these `probabilities`: (B,), (T,) -> (B,)."""
    cumulative = probabilities.double().cumsum(0)
    t = torch.searchsorted(cumulative, uniform.double() * cumulative[-1], right=True)
    return t.clamp(max=len(probabilities) - 1)


def denoising_loss(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean squared error (Ho et al. 2020, eq. 14 when the weight is 1): (B, ...), (B, ...), (B,) -> ()."""
    error = (output.float() - target.float()).square().flatten(1).mean(1)  # (B,)
    return (weight * error).mean()


def ddim_step(x_t: torch.Tensor, x0: torch.Tensor, alpha_bar: torch.Tensor, alpha_bar_s: torch.Tensor) -> torch.Tensor:
    """From x_t to x_s without noise, given what x_0 is thought to be (Song et al. 2021, eq. 12 with sigma = 0).

    (B, C, H, W), (B, C, H, W), (B,), (B,) -> (B, C, H, W); alpha_bar_s = 1 gives x_0.
    """
    eps = prediction_for(x0, x_t, alpha_bar, "epsilon")
    return diffuse(x0, eps, alpha_bar_s)


def distilled_x0(
    x_t: torch.Tensor, x_s: torch.Tensor, alpha_bar: torch.Tensor, alpha_bar_s: torch.Tensor
) -> torch.Tensor:
    """The x_0 with which one DDIM step leads from x_t to x_s, where a teacher went in several (Salimans & Ho 2022,
    algorithm 2): the inverse of :func:`ddim_step` in its second argument. Shapes as there."""
    a, a_s = _broadcast(alpha_bar, x_t), _broadcast(alpha_bar_s, x_t)
    ratio = ((1 - a_s) / (1 - a)).sqrt()  # sigma_s / sigma_t
    return (x_s - ratio * x_t) / (a_s.sqrt() - ratio * a.sqrt())


def drop_labels(labels: torch.Tensor, dropped: torch.Tensor, null_class: int) -> torch.Tensor:
    """Replace the labels where `dropped` is true by the null class (Ho & Salimans 2022): (B,), (B,) -> (B,)."""
    return torch.where(dropped, torch.full_like(labels, null_class), labels)


def flip_horizontally(images: torch.Tensor, flipped: torch.Tensor) -> torch.Tensor:
    """Mirror the images where `flipped` is true: (B, C, H, W), (B,) -> (B, C, H, W)."""
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


# ---- the evidence lower bound, part by part, in nats (Kingma & Welling 2014, eq. 3) ------------------------


def bernoulli_nll(logits: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """-log p(x | z) of independent Bernoulli pixels: (B, C, H, W), (B, C, H, W) in [0, 1] -> (B,).

    For pixels of 0 and 1 it is a likelihood; for grey ones the usual cross-entropy, which has no normalising constant
    and is never 0 (Loaiza-Ganem & Cunningham 2019).
    """
    return F.binary_cross_entropy_with_logits(logits, pixels, reduction="none").flatten(1).sum(1)


def gaussian_nll(mean: torch.Tensor, pixels: torch.Tensor, log_sigma: torch.Tensor) -> torch.Tensor:
    """-log p(x | z) of independent Gaussian pixels: (B, C, H, W), (B, C, H, W), () or like the images -> (B,)."""
    error = ((pixels - mean) / log_sigma.exp()).square()
    return (0.5 * (error + math.log(2 * math.pi)) + log_sigma).flatten(1).sum(1)


def negative_log_likelihood(
    likelihood: str, logits: torch.Tensor, pixels: torch.Tensor, log_sigma: torch.Tensor | None = None
) -> torch.Tensor:
    """-log p(x | z) for "bernoulli", "binarized_bernoulli" or "gaussian": (B, C, H, W), (B, C, H, W), () -> (B,)."""
    if likelihood == "gaussian":
        return gaussian_nll(logits.sigmoid(), pixels, log_sigma)
    return bernoulli_nll(logits, pixels)


def kl_to_standard_normal(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """KL(q(z | x) || N(0, I)) of each dimension: (B, D), (B, D) -> (B, D) (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar)


def free_bits(kl: torch.Tensor, minimum: float) -> torch.Tensor:
    """What the KL costs when each dimension may spend `minimum` nats for nothing: (B, D) -> ().

    The batch mean of a dimension is what is compared (Kingma et al. 2016, appendix C.8). With 0 it is the KL.
    """
    return kl.mean(0).clamp(min=minimum).sum()


def importance_weighted_bound(
    log_likelihood: torch.Tensor, z: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor
) -> torch.Tensor:
    """log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x), a lower bound of log p(x) (Burda et al. 2016, eq. 8).

    Args:
        log_likelihood: log p(x | z_k), (K, B).
        z: samples of q(z | x), (K, B, D).
        mean, logvar: of q(z | x), (B, D).

    Returns:
        (B,); with K = 1 a sample of the evidence lower bound.
    """
    log_prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
    log_posterior = -0.5 * ((z - mean).square() / logvar.exp() + logvar + math.log(2 * math.pi)).sum(-1)
    log_weights = log_likelihood + log_prior - log_posterior  # (K, B)
    return torch.logsumexp(log_weights, dim=0) - math.log(len(z))


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
