"""The networks of the denoising GAN: sizes, padding, what they predict, what the judge sees."""

from __future__ import annotations

import pytest
import torch
from stand_ins import seeded
from torch.nn import functional as F

from models.gan import DenoisingUNet, PatchDiscriminator


@pytest.mark.parametrize("size", [(8, 8), (13, 29), (3, 5), (32, 32)])
@pytest.mark.parametrize(("channels", "unshuffle"), [(1, 1), (3, 2)])
def test_any_size_goes_in_and_comes_out(size, channels, unshuffle):
    network = DenoisingUNet(channels, (8, 16, 16), 1, unshuffle)
    noisy = torch.randn(2, channels, *size, generator=seeded())
    restored = network(noisy)
    assert restored.shape == noisy.shape
    restored.square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_odd_sizes_are_padded_by_repeating_the_edge():
    network = DenoisingUNet(1, (8, 16), 1, 2)
    noisy = torch.randn(1, 1, 13, 29, generator=seeded())
    padded = F.pad(noisy, (0, 3, 0, 3), mode="replicate")
    torch.testing.assert_close(network(noisy), network(padded)[..., :13, :29])


def test_without_biases_it_is_homogeneous():
    """f(a x) = a f(x): Mohan et al. 2020, section 4."""
    noisy = torch.randn(1, 3, 16, 16, generator=seeded())
    plain, biased = (DenoisingUNet(3, (8, 16), 1, 2, bias=bias) for bias in (False, True))
    torch.testing.assert_close(plain(3 * noisy), 3 * plain(noisy))
    assert not torch.allclose(biased(3 * noisy), 3 * biased(noisy))


def test_noise_prediction_is_subtracted():
    noisy = torch.randn(1, 3, 8, 8, generator=seeded())
    as_noise, as_sample = (DenoisingUNet(3, (8,), 1, 1, kind) for kind in ("noise", "sample"))
    as_sample.load_state_dict(as_noise.state_dict())
    torch.testing.assert_close(as_noise(noisy), noisy - as_sample(noisy))
    with pytest.raises(ValueError, match="prediction_type"):
        DenoisingUNet(prediction_type="velocity")


@pytest.mark.parametrize("conditional", [False, True])
def test_the_judge_sees_patches_and_the_noisy_image_if_asked(conditional):
    judge = PatchDiscriminator(3, (8, 16, 16), conditional).eval()
    images, noisy = torch.randn(2, 2, 3, 32, 32, generator=seeded())
    logits, features = judge(images, noisy)
    assert logits.shape == (2, 1, 8, 8) and [f.shape[1] for f in features] == [8, 16, 16]
    assert torch.equal(judge(images, 0 * noisy)[0], logits) != conditional
    weight = judge.blocks[0].weight.flatten(1)
    assert torch.linalg.matrix_norm(weight, 2) < 1.5, "spectral norm holds the layer's gain near 1"
