"""The evaluate modules: exact answers, agreement with torch-fidelity, pytorch-fid and scikit-image, bad input."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import evaluate
import numpy as np
import pytest
import torch
from conftest import ROOT, environment
from known_features import NAMES, correlated
from pytorch_fid.fid_score import calculate_frechet_distance
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric


@pytest.fixture(scope="module")
def metric():
    loaded = {name: evaluate.load(str(ROOT / "metrics" / name), keep_in_memory=True) for name in NAMES}
    return loaded.__getitem__


def gaussian(n: int, mean: np.ndarray, sigma: np.ndarray, seed: int) -> np.ndarray:
    """(n, D) with exactly this mean and these standard deviations, and no correlation."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T * sigma + mean


# ---- distances of distributions --------------------------------------------------------------------------------


def test_frechet_distance_of_known_gaussians(metric):
    means, sigmas = np.array([[0.0, 1, -2], [1, 1, 0]]), np.array([[1.0, 2, 0.5], [2, 2, 1]])
    a, b = (gaussian(n, *each) for n, each in ((50, (means[0], sigmas[0], 0)), (80, (means[1], sigmas[1], 1))))
    found = metric("frechet_distance").compute(predictions=a, reference=b, features="features of x")
    # |m1 - m2|^2 + sum (s1 - s2)^2, as the covariances commute (Dowson & Landau 1982)
    assert found["frechet_distance"] == pytest.approx(5 + 1.25, rel=1e-5)
    assert (found["n"], found["reference_n"], found["dimensions"]) == (50, 80, 3)
    assert found["name"] == "Frechet distance, features of x" and found["covers_dimensions"]


def test_only_inceptions_is_called_by_the_known_names(metric):
    a = correlated(30, 1)
    for name, known in (("frechet_distance", "FID"), ("kernel_distance", "KID")):
        settings = {"subset_size": 10} if known == "KID" else {}
        for features, called in (("inception-v3-compat", True), ("features of fid", False)):
            found = metric(name).compute(predictions=a, reference=a, features=features, **settings)
            assert (found["name"] == known) == called
    score = metric("inception_score").compute
    assert score(predictions=a, features="inception-v3-compat")["name"] == "Inception score"
    assert score(predictions=a, features="features of x")["name"] == "Classifier score, features of x"


def test_equal_sets_are_at_distance_nothing_in_any_order(metric):
    a = correlated(200, 1)
    shuffled = a[np.random.default_rng(0).permutation(len(a))]
    assert metric("frechet_distance").compute(predictions=a, reference=shuffled)["frechet_distance"] == pytest.approx(
        0, abs=1e-6 * float(a.var(0).sum())
    )
    kernel = metric("kernel_distance").compute(predictions=a, reference=shuffled, subset_size=200, num_subsets=1)
    assert kernel["kernel_distance"] <= 0, "unbiased: the equal pairs count on one side only"
    found = metric("precision_recall").compute(predictions=a, reference=shuffled)
    assert (found["precision"], found["recall"]) == (1, 1)
    constant = np.ones((40, 4))
    same = metric("frechet_distance").compute(predictions=constant, reference=constant)
    other = metric("frechet_distance").compute(predictions=constant, reference=constant + 2)
    assert same["frechet_distance"] == 0 and other["frechet_distance"] == pytest.approx(16)


def test_frechet_distance_is_torch_fidelitys_and_pytorch_fids(metric):
    a, b = correlated(300, 1), correlated(400, 2)
    ours = metric("frechet_distance").compute(predictions=torch.from_numpy(a), reference=b)["frechet_distance"]
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    moments = [moment for x in (a, b) for moment in (x.mean(0), np.cov(x, rowvar=False))]
    assert ours == pytest.approx(theirs, rel=1e-4) and ours == pytest.approx(
        calculate_frechet_distance(*moments), rel=1e-4
    )


def test_kernel_distance_is_the_formula_and_torch_fidelitys(metric):
    a, b = correlated(60, 1), correlated(60, 2)
    ours = metric("kernel_distance").compute(predictions=a, reference=b, num_subsets=1, subset_size=60)
    x, y = a.astype(np.float64), b.astype(np.float64)
    xx, yy, xy = ((p @ q.T / 16 + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
    off = ~np.eye(60, dtype=bool)
    assert ours["kernel_distance"] == pytest.approx(xx[off].mean() + yy[off].mean() - 2 * xy.mean(), rel=1e-4)
    some = metric("kernel_distance").compute(predictions=a, reference=b, num_subsets=5, subset_size=20, seed=3)
    pair = [torch.from_numpy(each) for each in (a, b)]
    theirs = kid_features_to_metric(*pair, kid_subsets=5, kid_subset_size=20, rng_seed=3, verbose=False)
    assert some["kernel_distance"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert some["standard_deviation"] == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-4)
    assert (some["seed"], some["subset_size"], some["num_subsets"]) == (3, 20, 5)


def test_inception_score(metric):
    score = metric("inception_score").compute
    firm = np.repeat(np.eye(5) * 100, 8, axis=0)
    assert score(predictions=firm, num_splits=1)["inception_score"] == pytest.approx(5)
    constant = score(predictions=np.ones((20, 5)), num_splits=2)
    assert constant["inception_score"] == pytest.approx(1) and constant["standard_deviation"] == pytest.approx(0)
    logits = correlated(100, 1)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=4, rng_seed=7)
    found = score(predictions=logits, num_splits=4, seed=7)
    assert found["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert (found["n"], found["num_classes"], found["num_splits"], found["seed"]) == (100, 16, 4, 7)


def test_precision_and_recall_of_sets_made_by_hand(metric):
    compute = metric("precision_recall").compute
    real = np.array([[0.0], [1], [2], [10], [11], [12]])
    one_mode = np.array([[0.1], [1.1], [2.1]])  # good images of half of what there is
    found = compute(predictions=one_mode, reference=real, num_neighbors=1)
    assert found["precision"] == 1 and found["recall"] == pytest.approx(0.5)
    wide = np.array([[0.5], [11.5], [50], [60]])  # two good images, two of nothing
    found = compute(predictions=wide, reference=real, num_neighbors=1)
    # the balls' radii are 11, 11, 10 and 10: around 0.5 and 11.5 they hold all that is real
    assert found["precision"] == pytest.approx(0.5) and found["recall"] == 1
    far = compute(predictions=real + 1000, reference=real, num_neighbors=2)
    assert (far["precision"], far["recall"], far["num_neighbors"], far["n"]) == (0, 0, 2, 6)
    a, b = correlated(150, 1), correlated(170, 2)
    theirs = prc_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), verbose=False)
    found = compute(predictions=a, reference=b, batch_size=40)
    assert (found["precision"], found["recall"]) == pytest.approx((theirs["precision"], theirs["recall"]))


def test_too_few_images_for_the_dimensions_are_warned_of(metric):
    with pytest.warns(UserWarning, match=r"16 images for 16 feature dimensions: .* biased upwards"):
        found = metric("frechet_distance").compute(predictions=correlated(16, 1), reference=correlated(50, 2))
    assert not found["covers_dimensions"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        metric("frechet_distance").compute(predictions=correlated(17, 1), reference=correlated(50, 2))


# ---- classes ---------------------------------------------------------------------------------------------------


def test_class_accuracy_of_a_confusion_known_by_hand(metric):
    asked, recognised = [0, 0, 0, 1, 1, 2], [0, 0, 2, 1, 0, 2]
    found = metric("class_accuracy").compute(
        predictions=recognised, references=asked, class_names=["cat", "dog", "frog"]
    )
    assert found["confusion_matrix"] == [[2, 0, 1], [1, 1, 0], [0, 0, 1]]
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["mean_class_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["per_class"]["dog"] == {"accuracy": 0.5, "n": 2} and found["n"] == 6
    json.dumps(found)


def test_shuffled_labels_are_recognised_by_chance(metric):
    labels = np.repeat(np.arange(10), 300)
    shuffled = np.random.default_rng(0).permutation(labels)
    found = metric("class_accuracy").compute(predictions=torch.from_numpy(shuffled), references=labels)
    assert found["accuracy"] == pytest.approx(0.1, abs=0.02) and found["accuracy"] == found["mean_class_accuracy"]
    assert metric("class_accuracy").compute(predictions=labels, references=labels)["accuracy"] == 1


def test_a_class_never_generated_is_named(metric):
    with pytest.warns(UserWarning, match="asked for: dog"):
        found = metric("class_accuracy").compute(
            predictions=[0, 1, 2], references=[0, 0, 2], class_names=["cat", "dog", "frog"]
        )
    assert found["missing_classes"] == ["dog"] and found["per_class"]["dog"] == {"accuracy": None, "n": 0}
    assert found["mean_class_accuracy"] == pytest.approx(0.75)


# ---- pairs of images -------------------------------------------------------------------------------------------


def test_psnr_and_ssim_are_scikit_images(metric):
    rng = np.random.default_rng(0)
    a = rng.random((5, 3, 16, 16), dtype=np.float32)
    b = np.clip(a + 0.1 * rng.normal(size=a.shape), 0, 1).astype(np.float32)
    psnr = metric("psnr").compute(predictions=a, references=b)
    expected = [peak_signal_noise_ratio(y, x, data_range=1) for x, y in zip(a, b, strict=True)]
    assert psnr["each"] == pytest.approx(expected, rel=1e-5) and psnr["psnr"] == pytest.approx(np.mean(expected))
    assert psnr["psnr"] == pytest.approx(np.mean(-10 * np.log10(((a - b) ** 2).mean((1, 2, 3)))), rel=1e-5)
    ssim = metric("ssim").compute(predictions=torch.from_numpy(a), references=b)
    expected = [structural_similarity(y, x, data_range=1, channel_axis=0) for x, y in zip(a, b, strict=True)]
    assert ssim["each"] == pytest.approx(expected, rel=1e-5) and (ssim["n"], ssim["window_size"]) == (5, 7)


def test_images_of_8_bits_and_of_several_sizes(metric):
    rng = np.random.default_rng(0)
    pairs = [[rng.integers(0, 256, (1, side, side), dtype=np.uint8) for side in (8, 13)] for _ in range(2)]
    for name, function in (("psnr", peak_signal_noise_ratio), ("ssim", structural_similarity)):
        found = metric(name).compute(predictions=pairs[0], references=pairs[1], data_range=255)
        channel = {"channel_axis": 0} if name == "ssim" else {}
        expected = [function(b, a, data_range=255, **channel) for a, b in zip(*pairs, strict=True)]
        assert found["each"] == pytest.approx(expected, rel=1e-5) and found["data_range"] == 255


def test_a_constant_image_and_its_equal(metric):
    black, white = np.zeros((2, 3, 8, 8)), np.ones((2, 3, 8, 8))
    assert metric("psnr").compute(predictions=black, references=white)["psnr"] == 0
    assert metric("ssim").compute(predictions=white, references=white)["ssim"] == pytest.approx(1)
    with pytest.warns(UserWarning, match="2 of 2 images equal"):
        found = metric("psnr").compute(predictions=white, references=white)
    assert np.isinf(found["psnr"]) and found["num_identical"] == 2


def test_perceptual_distance_by_hand(metric):
    """Maps made by hand: the images themselves, and a constant map, which never differs."""
    a, b = np.zeros((3, 2, 4, 4), np.float32), np.zeros((3, 2, 4, 4), np.float32)
    a[:, 0], b[:, 1] = 1, 1  # orthogonal unit vectors everywhere: squared distance 2
    b[2] = 0.5 * a[2]  # the same direction: distance 0
    shown = []

    def maps(images: torch.Tensor) -> list[torch.Tensor]:
        shown.append(len(images))
        return [images, torch.ones(len(images), 5, 2, 2)]

    compute = metric("perceptual_distance").compute
    found = compute(predictions=a, references=b, feature_maps=maps, features="maps by hand", batch_size=2)
    assert found["each"] == pytest.approx([2, 2, 0]) and found["perceptual_distance"] == pytest.approx(4 / 3)
    assert (found["n"], found["num_maps"], found["name"]) == (3, 2, "Perceptual distance, maps by hand")
    assert shown == [2, 2, 1, 1]


# ---- loaded elsewhere ------------------------------------------------------------------------------------------

TRAVELLER = """
import pathlib, sys
sys.modules["triptych"] = sys.modules["models"] = None
import evaluate, numpy as np
x = np.random.default_rng(0).random((40, 4))
images = x.reshape(10, 1, 4, 4)
kwargs = {
    "frechet_distance": {"predictions": x, "reference": x},
    "kernel_distance": {"predictions": x, "reference": x, "subset_size": 10},
    "inception_score": {"predictions": x},
    "precision_recall": {"predictions": x, "reference": x},
    "class_accuracy": {"predictions": [0, 1], "references": [1, 1]},
    "psnr": {"predictions": images, "references": images / 2},
    "ssim": {"predictions": images, "references": images / 2},
    "perceptual_distance": {"predictions": images, "references": images / 2, "feature_maps": lambda x: [x]},
}
for name in sys.argv[2:]:
    print(name, evaluate.load(sys.argv[1] + "/" + name).compute(**kwargs[name])["n"])
"""


def test_every_module_loads_offline_from_elsewhere(tmp_path):
    command = [sys.executable, "-c", TRAVELLER, str(ROOT / "metrics"), *NAMES]
    env = environment(HF_EVALUATE_OFFLINE="1", HF_HOME=str(tmp_path / "cache"))
    env.pop("PYTHONPATH")
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_cards(name):
    card = (ROOT / "metrics" / name / "README.md").read_text()
    assert f'evaluate.load("metrics/{name}")' in card
