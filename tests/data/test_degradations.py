"""Degradations against what is known of them: moments, exact PSNR, independence of batches."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from conftest import ROOT
from scipy import stats
from skimage.metrics import peak_signal_noise_ratio
from stand_ins import seeded

from triptych.config.base import DataConfig, NoiseConfig
from triptych.data.degradations import STEPS, degrade, degrade_by_index, to_8_bits
from triptych.data.image_set import to_images
from triptych.data.sources import load_images
from triptych.errors import UserError

CIFAR = ROOT.parent / "shared/data/cifar10"


def grey(value: float, *shape: int) -> torch.Tensor:
    return torch.full(shape, value)


@pytest.mark.parametrize("sigma", [15.0, 25.0, 50.0])
def test_gaussian_has_the_psnr_of_its_sigma(sigma):
    """Unclipped, 20 log10(255 / sigma): 24.6, 20.2 and 14.2 dB."""
    clean = torch.rand(20, 3, 64, 64, generator=seeded(1)) * 2 - 1
    noisy = degrade(clean, NoiseConfig(sigma=(sigma, sigma)), seeded(0))
    exact = 20 * torch.log10(torch.tensor(255 / sigma)).item()
    assert peak_signal_noise_ratio(clean.numpy(), noisy.numpy(), data_range=2.0) == pytest.approx(exact, abs=0.03)
    noise = ((noisy - clean) * 255 / 2 / sigma).flatten()[:50_000]
    assert stats.kstest(noise.numpy(), "norm").pvalue > 1e-3


def test_poisson_counts_photons():
    """At intensity y and peak p the count is Poisson(y p): its mean and its variance are both y p."""
    noisy = degrade(grey(0.0, 4, 1, 200, 200), NoiseConfig(kinds=("poisson",), peak=(12, 12)), seeded(0))
    counts = (noisy + 1) / 2 * 12
    torch.testing.assert_close(counts, counts.round(), atol=1e-4, rtol=0)
    assert counts.mean().item() == pytest.approx(6, abs=0.05) and counts.var().item() == pytest.approx(6, abs=0.1)
    black = degrade(grey(-1.0, 1, 1, 9, 9), NoiseConfig(kinds=("poisson",)), seeded(0))
    assert (black == -1).all(), "no light, no noise"


def test_salt_and_pepper_spoils_whole_pixels():
    clean = torch.rand(8, 3, 64, 64, generator=seeded(1)) * 1.8 - 0.9
    noisy = degrade(clean, NoiseConfig(kinds=("salt_and_pepper",), amount=(0.2, 0.2)), seeded(0))
    changed = noisy != clean
    assert (changed.all(1) == changed.any(1)).all(), "all channels of a pixel or none"
    assert changed.float().mean().item() == pytest.approx(0.2, abs=0.01)
    salt, pepper = ((noisy == value).float().mean().item() for value in (1, -1))
    assert salt == pytest.approx(0.1, abs=0.01) and pepper == pytest.approx(0.1, abs=0.01)


def test_speckle_grows_with_brightness():
    for value, intensity in ((-1.0, 0.0), (0.0, 0.5), (1.0, 1.0)):
        noisy = degrade(grey(value, 1, 1, 300, 300), NoiseConfig(kinds=("speckle",), speckle=(0.3, 0.3)), seeded(0))
        assert ((noisy + 1) / 2).std().item() == pytest.approx(0.3 * intensity, abs=0.005)


def test_a_range_gives_every_image_its_own_level():
    noisy = degrade(torch.zeros(400, 1, 40, 40), NoiseConfig(sigma=(10, 50)), seeded(0))
    levels = noisy.flatten(1).std(1) * 255 / 2
    assert stats.kstest(levels.numpy(), stats.uniform(10, 40).cdf).pvalue > 1e-3


def test_a_mixture_is_one_after_the_other():
    clean = torch.rand(3, 1, 16, 16, generator=seeded(1)) * 2 - 1
    config = NoiseConfig(kinds=("poisson", "gaussian"), peak=(20, 20), sigma=(15, 15))
    generator = seeded(0)
    expected = degrade(clean, NoiseConfig(kinds=("poisson",), peak=(20, 20)), generator)
    expected = degrade(expected, NoiseConfig(sigma=(15, 15)), generator)
    assert torch.equal(degrade(clean, config, seeded(0)), expected)


@pytest.mark.parametrize("kind", STEPS)
def test_test_noise_depends_on_seed_and_index_alone(kind):
    config = NoiseConfig(kinds=(kind,), sigma=(5, 50), peak=(5, 50), amount=(0.1, 0.4), speckle=(0.1, 0.4))
    clean = torch.rand(6, 3, 8, 8, generator=seeded(1)) * 2 - 1
    whole = degrade_by_index(clean, range(6), config, seed=3)
    halves = [degrade_by_index(clean[i], i.tolist(), config, seed=3) for i in torch.arange(6).flip(0).split(2)]
    assert torch.equal(torch.cat(halves).flip(0), whole)
    assert not torch.equal(degrade_by_index(clean, range(6), config, seed=4), whole)
    twins = degrade_by_index(clean[[0, 0]], [0, 1], config, seed=3)
    assert not torch.equal(twins[0], twins[1])


def test_eight_bits():
    """What Pillow keeps of an image, and nothing outside [-1, 1]."""
    images = torch.rand(1, 1, 32, 32, generator=seeded(0)) * 3 - 1.5
    kept = to_8_bits(images)
    levels = (kept + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert kept.abs().max() <= 1 and (kept - images.clamp(-1, 1)).abs().max() <= 1 / 255 + 1e-6
    clipped = degrade(images.clamp(-1, 1), NoiseConfig(sigma=(80, 80), clip=True), seeded(0))
    assert torch.equal(clipped, to_8_bits(clipped)) and clipped.abs().max() == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": (-1, 5)}, r"noise.sigma must be a range .* within \[0, 255\]"),
        ({"sigma": (30, 20)}, "noise.sigma"),
        ({"peak": (0, 5)}, "noise.peak"),
        ({"amount": (0, 1.5)}, "noise.amount"),
        ({"kinds": ()}, "at least one kind"),
    ],
)
def test_levels_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        NoiseConfig(**settings)


def test_drawing(tmp_path, capsys, figures):
    draw = importlib.import_module("figures.degradations").main
    draw(output=tmp_path / "gallery.png", num_scored=20)
    assert (tmp_path / "gallery.png").exists()
    pictures = np.stack([np.asarray(artist.get_array()) for artist in figures[0].artists])
    rows = pictures.reshape(-1, 9, 8, 8)  # a row for each image: clean, then the eight degradations
    clean = load_images(DataConfig(split="test")).__getitems__(range(len(rows)))["pixels"][:, 0].numpy() / 255
    np.testing.assert_allclose(rows[:, 0], clean, atol=1e-6)
    words = [text.get_text() for text in figures[0].texts]
    scores = [word for word in words if " dB, " in word]
    assert len(scores) == 8 * len(rows)
    written = float(scores[0].split(" dB")[0])
    assert written == pytest.approx(peak_signal_noise_ratio(rows[0, 0], rows[0, 1], data_range=1.0), abs=0.051)
    assert len([line for line in capsys.readouterr().out.splitlines() if "PSNR" in line]) == 8
    draw(noise=NoiseConfig(kinds=("speckle",)), output=tmp_path / "one.png", images=[5], num_scored=5)
    assert "speckle" in capsys.readouterr().out
    with pytest.raises(UserError, match="indices from 0 to 359"):
        draw(images=[360])


@pytest.mark.skipif(not CIFAR.exists(), reason="needs a local copy of CIFAR-10")
def test_doing_nothing_on_cifar10():
    """The anchors of denoising: 20.2 dB at sigma 25 and 14.2 dB at sigma 50, unclipped."""
    images = to_images(load_images(DataConfig(path=str(CIFAR), split="test")).__getitems__(range(500))["pixels"])
    for sigma, anchor in ((25.0, 20.2), (50.0, 14.2)):
        noisy = degrade_by_index(images, range(500), NoiseConfig(sigma=(sigma, sigma)), seed=0)
        psnr = [
            peak_signal_noise_ratio(a, b, data_range=2.0) for a, b in zip(images.numpy(), noisy.numpy(), strict=True)
        ]
        assert sum(psnr) / 500 == pytest.approx(anchor, abs=0.1)
