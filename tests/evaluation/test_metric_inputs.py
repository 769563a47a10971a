"""What the metrics are given: of any kind and precision, and by name what is wrong with it."""

from __future__ import annotations

import evaluate
import numpy as np
import pytest
import torch
from conftest import ROOT
from known_features import NAMES, correlated


@pytest.fixture(scope="module")
def metric():
    loaded = {name: evaluate.load(str(ROOT / "metrics" / name), keep_in_memory=True) for name in NAMES}
    return loaded.__getitem__


# ---- bad input -------------------------------------------------------------------------------------------------

SET = correlated(20, 1)
IMAGES = np.full((3, 1, 8, 8), 0.5)
NANS = SET.copy()
NANS[3, 5] = np.nan
ON_FEATURES = [("frechet_distance", {}), ("kernel_distance", {"subset_size": 5}), ("precision_recall", {})]
ASKED = {"predictions": [0, 1], "references": [0, 1]}
PAIR = {"predictions": IMAGES, "references": IMAGES / 2}


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("frechet_distance", {"predictions": SET}, "There is no reference"),
        ("frechet_distance", {"predictions": SET, "references": SET}, "not `references`"),
        ("kernel_distance", {"predictions": SET, "subset_size": 5}, "There is no reference"),
        ("precision_recall", {"predictions": SET}, "There is no reference"),
        ("frechet_distance", {"predictions": SET[:, :3], "reference": SET}, "3 features an image, the reference 16"),
        ("frechet_distance", {"predictions": [[1.0, 2], [1]], "reference": SET}, "rows of different sizes"),
        ("frechet_distance", {"predictions": SET[:1], "reference": SET}, "N of at least 2"),
        ("frechet_distance", {"predictions": SET * np.nan, "reference": SET}, "NaN"),
        ("kernel_distance", {"predictions": SET, "reference": SET}, "between 2 and 20"),
        ("precision_recall", {"predictions": SET, "reference": SET[:3]}, "between 1 and 2"),
        ("inception_score", {"predictions": SET, "num_splits": 21}, "num_splits 21"),
        ("inception_score", {"predictions": [[1.0, 2], [1]]}, "logits"),
        ("class_accuracy", {"predictions": [0, 1], "references": [0]}, "Mismatch"),
        ("class_accuracy", {"predictions": [0, 1], "references": [0, -1]}, "without a label"),
        ("class_accuracy", {"predictions": [0, 2], "references": [0, 1], "class_names": ["a", "b"]}, "0 to 2"),
        ("frechet_distance", {"predictions": SET[:0], "reference": SET}, "not 0 rows"),
        *((name, {"predictions": SET, "reference": NANS, **more}, "reference hold NaN") for name, more in ON_FEATURES),
        *(
            (name, {"predictions": NANS, "reference": SET, **more}, "predictions hold NaN")
            for name, more in ON_FEATURES
        ),
        *(
            ("kernel_distance", {"predictions": SET, "reference": SET, "subset_size": 5, key: value}, key)
            for key in ("num_subsets", "subset_size", "degree")
            for value in (0, -1, 2.5, True)
        ),
        *(
            ("precision_recall", {"predictions": SET, "reference": SET, key: value}, key)
            for key in ("batch_size", "num_neighbors")
            for value in (0, -1, 1.5)
        ),
        *(("inception_score", {"predictions": SET, "num_splits": value}, "num_splits") for value in (0, 2.5)),
        ("inception_score", {"predictions": NANS}, "NaN"),
        *(
            (
                name,
                {"predictions": IMAGES, "references": IMAGES / 2, "data_range": value},
                "data_range must be positive",
            )
            for name in ("psnr", "ssim")
            for value in (0, -1, np.nan, np.inf, "1")
        ),
        ("ssim", {"predictions": IMAGES, "references": IMAGES, "window_size": 3.5}, "window_size"),
        *(
            ("class_accuracy", {"predictions": ids, "references": [0, 1]}, "whole numbers; found")
            for ids in ([0.6, 1], np.array([0, 1.5]), torch.tensor([0.2, 1]), [np.nan, 1])
        ),
        ("class_accuracy", {**ASKED, "class_names": ["cat", "dog", "cat"]}, "more than one cat"),
        ("class_accuracy", {**ASKED, "class_names": np.array(["cat", "cat"])}, "more than one cat"),
        ("class_accuracy", {**ASKED, "class_names": "cat"}, "a list of names"),
        ("class_accuracy", {**ASKED, "class_names": []}, "there are 0 classes"),
        *(("perceptual_distance", {**PAIR, "feature_maps": list, "batch_size": n}, "batch_size") for n in (0, -1, 1.5)),
        ("perceptual_distance", {**PAIR, "feature_maps": lambda x: []}, "no feature maps"),
        ("perceptual_distance", {**PAIR, "feature_maps": lambda x: [x * np.nan]}, "NaN or infinite features"),
        (
            "perceptual_distance",
            {"predictions": IMAGES[:0], "references": IMAGES[:0], "feature_maps": list},
            "no images",
        ),
        ("inception_score", {"predictions": SET[:0]}, "rows of nothing"),
        ("class_accuracy", {"predictions": [], "references": []}, "no images"),
        ("psnr", {"predictions": IMAGES[:0], "references": IMAGES[:0]}, "no images"),
        ("ssim", {"predictions": IMAGES[:0], "references": IMAGES[:0]}, "no images"),
        ("psnr", {"predictions": IMAGES, "references": IMAGES[:2]}, "Mismatch"),
        ("psnr", {"predictions": IMAGES, "references": IMAGES[..., :4]}, "Pair 0"),
        ("psnr", {"predictions": IMAGES * 255, "references": IMAGES}, "data_range=255 for uint8"),
        ("ssim", {"predictions": IMAGES, "references": IMAGES, "window_size": 4}, "odd"),
        ("ssim", {"predictions": IMAGES[..., :2], "references": IMAGES[..., :2]}, "too small"),
        ("perceptual_distance", {"predictions": IMAGES, "references": IMAGES}, "Pass feature_maps"),
        (
            "perceptual_distance",
            {"predictions": IMAGES, "references": [*IMAGES[:2], IMAGES[2, :, :4]], "feature_maps": list},
            "must be of one size",
        ),
        (
            "perceptual_distance",
            {"predictions": IMAGES * 255, "references": IMAGES, "feature_maps": list},
            r"lie in \[0, 1\]",
        ),
    ],
)
def test_bad_input_is_named(metric, name, given, says):
    with pytest.raises(ValueError, match=says):
        metric(name).compute(**given)


def test_features_of_any_precision_and_kind(metric):
    """As a network under bf16 gives them, with or without a gradient, as a tensor or as rows."""
    a, b = (torch.from_numpy(correlated(40, seed)).bfloat16() for seed in (1, 2))
    for name, more in ON_FEATURES:
        (key,) = {"frechet_distance", "kernel_distance", "precision"} & metric(name).compute(
            predictions=a, reference=b, **more
        ).keys()
        expected = metric(name).compute(predictions=a.float().numpy(), reference=b.float().numpy(), **more)[key]
        for given in (
            (a, b),
            (a.clone().requires_grad_(), b.clone().requires_grad_()),
            (list(a), list(b)),
            (a, b.double()),
        ):
            found = metric(name).compute(predictions=given[0], reference=given[1], **more)[key]
            assert found == pytest.approx(expected, rel=1e-6)


def test_a_frechet_distance_is_never_negative(metric):
    """Between nearly equal sets rounding is larger than the distance."""
    for seed in range(12):
        a = correlated(60, seed) * 100
        nearly = a + 1e-6 * correlated(60, seed + 1)
        assert metric("frechet_distance").compute(predictions=a, reference=nearly)["frechet_distance"] >= 0


def test_class_names_of_any_kind(metric):
    for names in (np.array(["cat", "dog"]), ("cat", "dog"), {0: "cat", 1: "dog"}.values()):
        found = metric("class_accuracy").compute(**ASKED, class_names=names)
        assert found["per_class"].keys() == {"cat", "dog"} and found["accuracy"] == 1
