"""What is measured of a restorer, against the definitions of its scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stand_ins import make_judge

from triptych.config.base import DataConfig, NoiseConfig
from triptych.data.image_set import to_unit_interval
from triptych.data.sources import load_images
from triptych.evaluation import restoration
from triptych.evaluation.judges import Judge
from triptych.evaluation.restoration import JudgedPairs, measure_restorer
from triptych.evaluation.restorers import DegradedImages

CPU = torch.device("cpu")


@pytest.fixture
def noisy_digits() -> DegradedImages:
    return DegradedImages(load_images(DataConfig()), NoiseConfig(sigma=(25, 25)), seed=0)


def test_a_restorer_that_does_nothing_has_the_psnr_of_the_noise(noisy_digits):
    measured = measure_restorer(noisy_digits, 30, lambda noisy, sigma: noisy, None, CPU, "nothing")
    ((clean, noisy),) = noisy_digits.chunks(30, 30)
    errors = [float((a - b).square().mean()) for a, b in zip(clean, noisy, strict=True)]
    np.testing.assert_allclose(measured["psnr"], -10 * np.log10(errors), rtol=1e-4)
    assert np.mean(measured["psnr"]) == pytest.approx(20 * np.log10(255 / 25), abs=0.5)
    assert len(measured["ssim"]) == 30 and measured["seconds_per_image"] > 0
    assert set(measured) == {"psnr", "ssim", "seconds_per_image"}, "no judge, no distances"


def test_chunks_change_nothing_and_the_restorer_is_told_the_noise(noisy_digits, monkeypatch):
    told = []

    def halve(noisy, sigma):
        told.append((len(noisy), sigma))
        return [image / 2 for image in noisy]

    whole = measure_restorer(noisy_digits, 7, halve, None, CPU, "halved")
    monkeypatch.setattr(restoration, "CHUNK", 3)
    parts = measure_restorer(noisy_digits, 7, halve, None, CPU, "halved")
    assert told == [(7, 25 / 255), (3, 25 / 255), (3, 25 / 255), (1, 25 / 255)]
    assert whole["psnr"] == parts["psnr"] and whole["ssim"] == parts["ssim"]


@pytest.mark.filterwarnings("ignore:.*feature dimensions")
def test_the_judge_finds_a_perfect_restoration_at_distance_zero(noisy_digits):
    model, processor = make_judge(dict(enumerate("0123456789")), size=8, channels=1)
    critic = Judge(model, processor, "judge")
    clean = [to_unit_interval(noisy_digits.images.whole(index)) for index in range(12)]
    distances = {}
    for name, images in (("clean", clean), ("dark", [image / 3 for image in clean])):
        pairs = JudgedPairs(critic)
        pairs.add(clean[:5], images[:5])
        pairs.add(clean[5:], images[5:])
        distances[name] = pairs.distances()
    assert distances["clean"]["perceptual_distance"] == pytest.approx(0, abs=1e-6)
    assert distances["clean"]["frechet_distance"] == pytest.approx(0, abs=1e-3)
    assert distances["dark"]["perceptual_distance"] > 0.001 and distances["dark"]["frechet_distance"] > 0.001
    assert distances["dark"]["features"] == critic.name
    features = critic(torch.stack(clean))["features"]
    pairs = JudgedPairs(critic)
    pairs.add(clean, [image / 3 for image in clean])
    torch.testing.assert_close(torch.cat(pairs.features[1]), features, atol=1e-5, rtol=1e-4)
