"""How alike two images are, one number for each pair, as scikit-image computes it."""

from __future__ import annotations

import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def psnr(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB: (B, C, H, W) in [0, 1] twice -> (B,); infinite where they are equal."""
    pairs = zip(images.numpy(), others.numpy(), strict=True)
    return torch.tensor([peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in pairs])


def ssim(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Structural similarity, windows of 7 pixels (Wang et al. 2004): (B, C, H, W) in [0, 1] twice -> (B,).

    Where the image is smaller, the window is the largest odd one that fits.
    """
    window = min(7, images.shape[-1] - 1 + images.shape[-1] % 2)
    pairs = zip(images.numpy(), others.numpy(), strict=True)
    return torch.tensor(
        [structural_similarity(a, b, data_range=1.0, channel_axis=0, win_size=window) for a, b in pairs]
    )
