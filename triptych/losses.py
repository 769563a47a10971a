"""The training mathematics as pure functions: tensors in, tensors out.

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


def min_snr_weight(alpha_bar: torch.Tensor, prediction_type: Prediction, gamma: float | None) -> torch.Tensor:
    """Weight of each step's squared error, (B,) -> (B,) (Hang et al. 2023, section 3.4).

    In terms of the error of x0 the weight is min(SNR, gamma), so that nearly clean steps, which are easy and
    have huge SNR, do not drown the rest; the other targets divide it by their own scale. `gamma` None
    weights every step's error by 1.
    """
    if gamma is None:
        return torch.ones_like(alpha_bar)
    snr = alpha_bar / (1 - alpha_bar)
    clipped = snr.clamp(max=gamma)
    if prediction_type == "epsilon":
        return clipped / snr
    if prediction_type == "v_prediction":
        return clipped / (snr + 1)
    return clipped


def denoising_loss(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean squared error (Ho et al. 2020, eq. 14 when the weight is 1): (B, ...), (B, ...), (B,) -> ()."""
    error = (output.float() - target.float()).square().flatten(1).mean(1)  # (B,)
    return (weight * error).mean()


def drop_labels(labels: torch.Tensor, dropped: torch.Tensor, null_class: int) -> torch.Tensor:
    """Replace the labels where `dropped` is true by the null class (Ho & Salimans 2022): (B,), (B,) -> (B,)."""
    return torch.where(dropped, torch.full_like(labels, null_class), labels)


def flip_horizontally(images: torch.Tensor, flipped: torch.Tensor) -> torch.Tensor:
    """Mirror the images where `flipped` is true: (B, C, H, W), (B,) -> (B, C, H, W)."""
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)
