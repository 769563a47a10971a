"""Diffusion: the noising, what the network is asked for, the weights of its errors, distillation.

Letters are the papers': ``x0`` images in [-1, 1], ``eps`` unit Gaussian noise, ``alpha_bar`` the product of
(1 - beta) up to step t, ``x_t`` the noised image. Images are (B, C, H, W), ``alpha_bar`` is (B,).
"""

from __future__ import annotations

from typing import Literal

import torch

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
