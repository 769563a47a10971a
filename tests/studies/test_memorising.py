"""The nearest training image of what is drawn: found among all, mirrored too, and told where it is a copy."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_ins import make_diffusion, make_judge

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.evaluation.nearest import compare_nearness, nearest_two
from triptych.jsonl import read_rows

memorising = importlib.import_module("studies.memorising")
DIGITS = [str(k) for k in range(10)]


def test_the_nearest_two_are_those_of_all_distances():
    rng = np.random.default_rng(0)
    views, training = [rng.normal(size=(30, 5)).astype(np.float32) for _ in range(2)], rng.normal(size=(200, 5))
    distances, indices = nearest_two(views, training.astype(np.float32))
    every = np.stack([np.linalg.norm(view[:, None] - training[None], axis=2) for view in views]).min(axis=0)
    assert (indices == every.argsort(axis=1)[:, :2]).all()
    np.testing.assert_allclose(distances, np.sort(every, axis=1)[:, :2], rtol=1e-5)


def test_both_views_nearest_to_one_image_leave_the_second_place_to_another():
    training = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 30.0]])
    distances, indices = nearest_two([np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])], training)
    assert indices.tolist() == [[0, 1]] and distances.tolist() == [[1.0, 9.0]]


def test_copies_are_told_from_images_that_are_only_alike():
    rng = np.random.default_rng(0)
    training = rng.normal(size=(2000, 20))
    unseen, new = (nearest_two([rng.normal(size=(1000, 20))], training)[0] for _ in range(2))
    copies, _ = nearest_two([training[:1000] + 1e-3 * rng.normal(size=(1000, 20))], training)
    alike = compare_nearness(new, unseen)
    assert abs(alike["nearer_than_most"] - 0.01) < 3 * 0.005
    assert alike["drawn_distance"] == pytest.approx(alike["unseen_distance"], abs=0.1)
    told = compare_nearness(copies, unseen)
    assert told["nearer_than_most"] == 1 and told["drawn_ratio"] < 0.01 < 0.5 < told["unseen_ratio"]


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = make_diffusion(channels=1)
    digits.save_pretrained("pipeline")
    for part in make_judge(dict(enumerate(DIGITS)), size=8, channels=1):
        part.save_pretrained("judge")
    return {"pipeline": "pipeline", "judge": "judge", "data": DataConfig("digits", split="test")}


def test_a_pipeline_that_mirrors_its_training_images_is_found_out(saved, tmp_path, monkeypatch, capsys):
    training = load_images(DataConfig("digits"))
    seen = training.__getitems__(range(40))["pixels"]
    monkeypatch.setattr(memorising, "draw", lambda *_: (seen.flip(-1), None, 0.0))
    memorising.main(**saved, num_images_per_class=4, num_shown=5)
    rows = read_rows(Path("runs/memorising/rows.jsonl"))
    assert [(row["space"], row["n"], row["training"]) for row in rows] == [
        ("pixels", 40, len(training)),
        ("features", 40, len(training)),
    ]
    for row in rows:
        assert row["drawn_distance"] < 1e-3 < row["unseen_smallest_distance"] and row["nearer_than_most"] == 1
    table = (tmp_path / "runs/memorising/table.md").read_text()
    assert "| pixels | 0.00 ± 0.00 |" in table and table.count("| 40 of 40 |") == 2
    assert capsys.readouterr().out.endswith("runs/memorising/nearest.png\n")
    picture = np.asarray(Image.open(tmp_path / "runs/memorising/nearest.png").convert("L"))
    assert picture.std() > 20
    memorising.main(**saved, num_images_per_class=4)  # again: nothing is measured twice
    assert len(read_rows(Path("runs/memorising/rows.jsonl"))) == 2


def test_what_an_untrained_network_draws_is_no_copy(saved):
    memorising.main(**saved, num_images_per_class=1)
    rows = read_rows(Path("runs/memorising/rows.jsonl"))
    assert rows[0]["drawn_smallest_ratio"] > 0.5 and rows[0]["nearer_than_most"] == 0


def test_memorising_refuses(saved, tmp_path):
    for settings, message in (
        ({"train_split": "test"}, "images that were not seen"),
        ({"num_shown": 0}, "num_shown must lie between 1 and 20"),
        ({"num_images_per_class": 1000}, "a class has only"),
    ):
        with pytest.raises(UserError, match=message):
            memorising.main(**saved | settings)
    make_diffusion(channels=3).save_pretrained(tmp_path / "colour")
    with pytest.raises(UserError, match=r"draws images of \(3, 8, 8\)"):
        memorising.main(**saved | {"pipeline": str(tmp_path / "colour")})
