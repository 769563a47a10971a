"""Rectified flow: straight paths from data to noise, and the velocity on them.

Time is that of diffusers: t = 0 is data, t = 1 is noise (Liu et al. 2023 and Lipman et al. 2023 count the other way).
``x0`` are images in [-1, 1], ``eps`` is unit Gaussian noise, both (B, C, H, W); ``t`` is (B,) in [0, 1].
"""

from __future__ import annotations

import torch


def interpolate(x0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """x_t = (1 - t) x_0 + t eps (Liu et al. 2023, eq. 1): (B, C, H, W), (B, C, H, W), (B,) -> (B, C, H, W)."""
    t = t.reshape(-1, *[1] * (x0.dim() - 1))  # (B,) -> (B, 1, 1, 1)
    return (1 - t) * x0 + t * eps


def velocity(x0: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """dx_t / dt = eps - x_0, constant along the path; shapes as given."""
    return eps - x0


def logit_normal(normal: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Times from unit normal numbers: logit(t) ~ N(mean, std^2) (Esser et al. 2024, section 3.1): (B,) -> (B,).

    Most fall in the middle, where the velocity is hardest to tell; a mean above 0 prefers noise.
    """
    return (mean + std * normal).sigmoid()


def flow_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the velocity (Liu et al. 2023, eq. 1; Lipman et al. 2023, eq. 23): shapes alike -> ().

    Its minimum is E[eps - x_0 | x_t], whose flow carries noise to data through the marginals of x_t.
    """
    return (output.float() - target.float()).square().mean()
