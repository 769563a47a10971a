"""Kernels that whiten patches of images: a first layer that is measured instead of learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from triptych.errors import UserError


@torch.no_grad()
def whitening_kernels(
    images: torch.Tensor, num_kernels: int, kernel_size: int, stride: int = 1, eps: float = 5e-4
) -> torch.Tensor:
    """The leading principal directions of patches of `images`, each over its standard deviation, and their negatives.

    The answers of the first half are uncorrelated and of variance l / (l + eps), l being the variance along a
    direction (Page 2019, "How to train your ResNet 8"; Jordan 2024, section 3.2): natural images, whose neighbouring
    pixels are nearly equal, reach the layers behind as white noise would. A ReLU keeps one sign of each; together
    they keep everything.

    Args:
        images: (B, C, H, W).
        num_kernels: an even number, at most 2 * C * kernel_size ** 2; the answer's (num_kernels, C, k, k).
        kernel_size, stride: of the convolution, whose padding counts as no patch.
        eps: keeps directions in which the patches hardly differ from being blown up.

    Raises:
        UserError: `num_kernels` is odd or more than that.
    """
    size = images.shape[1] * kernel_size**2
    if num_kernels % 2 or not 2 <= num_kernels <= 2 * size:
        raise UserError(
            f"A whitened stem has its kernels in pairs, 2 to {2 * size} of them: model.embedding_size cannot be "
            f"{num_kernels}. Choose an even number, or set whitened_stem to false."
        )
    moments = torch.zeros(size + 1, size + 1, dtype=torch.float64, device=images.device)
    for batch in images.split(100):  # patches overlap: all at once would be many times the images
        patches = F.unfold(batch, kernel_size, stride=stride).transpose(1, 2).flatten(0, 1)  # (N, size)
        patches = F.pad(patches, (0, 1), value=1.0)  # a column of ones, for the sums
        moments += (patches.T @ patches).double()
    count, mean = moments[-1, -1], moments[-1, :-1] / moments[-1, -1]
    covariance = moments[:-1, :-1] / count - mean.outer(mean)
    variances, directions = torch.linalg.eigh(covariance)  # ascending; directions in columns
    leading = (directions / (variances.clamp(min=0) + eps).sqrt()).T.flip(0)[: num_kernels // 2]
    return torch.cat([leading, -leading]).to(images.dtype).view(-1, images.shape[1], kernel_size, kernel_size)


def whiten(convolution: torch.nn.Conv2d, images: torch.Tensor) -> None:
    """Give a first convolution :func:`whitening_kernels` of `images`, (B, C, H, W), and learn it no further."""
    kernels = whitening_kernels(
        images, len(convolution.weight), convolution.kernel_size[0], stride=convolution.stride[0]
    )
    convolution.weight.data.copy_(kernels)
    convolution.weight.requires_grad_(False)
