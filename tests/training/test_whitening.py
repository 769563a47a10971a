"""The whitened stem: its kernels' own property, their agreement with scikit-learn, and what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from triptych.errors import UserError
from triptych.training.whitening import whitening_kernels


def smooth_images(number: int) -> torch.Tensor:
    noise = torch.randn(number, 3, 18, 18, generator=torch.Generator().manual_seed(0))
    return F.avg_pool2d(noise, 3, stride=1) + 0.3


def test_answers_are_white_and_in_pairs():
    images = smooth_images(250)  # three portions of the sums, the last one short
    kernels = whitening_kernels(images, 10, kernel_size=3, stride=2, eps=1e-9)
    answers = F.conv2d(images, kernels, stride=2).transpose(0, 1).flatten(1)  # (10, N)
    assert torch.allclose(answers[:5].cov(correction=0), torch.eye(5), atol=1e-3)
    assert torch.equal(kernels[5:], -kernels[:5])


def test_directions_are_the_principal_components():
    images = smooth_images(40)
    kernels = whitening_kernels(images, 8, kernel_size=3, eps=0.0)
    patches = F.unfold(images, 3).transpose(1, 2).flatten(0, 1)
    pca = PCA(4).fit(patches.numpy())
    found = kernels[:4].flatten(1)
    directions = F.normalize(found)
    along = (directions @ torch.tensor(pca.components_, dtype=directions.dtype).T).abs()
    assert torch.allclose(along, torch.eye(4), atol=1e-3)
    assert torch.allclose(1 / found.norm(dim=1) ** 2, torch.tensor(pca.explained_variance_).float(), rtol=1e-3)


def test_flat_images_stay_finite():
    """Grey images as three equal channels have directions without any variance."""
    assert whitening_kernels(torch.zeros(3, 3, 8, 8), 54, kernel_size=3).isfinite().all()


@pytest.mark.parametrize("number", [7, 0, 56])
def test_refuses_what_has_no_pairs(number):
    with pytest.raises(UserError, match="embedding_size"):
        whitening_kernels(smooth_images(2), number, kernel_size=3)
