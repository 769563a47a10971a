"""The study of the variational bound: interrupted and gone on with, its numbers checked against what it kept."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_ins import make_diffusion

from models.pipeline_class_conditional import ClassConditionalPipeline
from triptych.config.base import DataConfig
from triptych.errors import UserError
from triptych.evaluation.diffusion_bound import strata
from triptych.jsonl import read_rows

likelihood = importlib.import_module("studies.likelihood")


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = make_diffusion()
    pipe = ClassConditionalPipeline(made.unet, made.scheduler, {0: "cat", 1: "dog", 2: "emu"}, 2, data_std=0.5)
    pipe.save_pretrained("pipeline")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "emu"):
        Path("images", name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"images/{name}/{i}.png")
    return {"pipeline": "pipeline", "data": DataConfig("images"), "num_images_per_class": 3, "num_strata": 6}


def test_what_was_measured_is_not_measured_again_and_sums_up(saved, monkeypatch, capsys):
    measure, calls = likelihood.measure_images, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(likelihood, "measure_images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        likelihood.main(**saved, batch_size=4)
    likelihood.main(**saved, batch_size=4)
    assert len(calls) == 4 and capsys.readouterr().out.endswith("runs/likelihood/shares.png\n")
    rows = read_rows(Path("runs/likelihood/rows.jsonl"))
    totals, steps, shares = ([row for row in rows if row["what"] == what] for what in ("total", "stratum", "share"))
    edges = strata(1000, 6)
    assert [row["first"] for row in steps] == edges[:-1].tolist() and steps[-1]["last"] == 999
    for row in totals:
        by_hand = sum(step[row["variance"]] * (step["last"] - step["first"] + 1) for step in steps) + row["prior"]
        assert (
            row["bits"]
            == pytest.approx(by_hand)
            == pytest.approx(row["first_step"] + row["later_steps"] + row["prior"])
        )
        assert steps[-1][f"{row['variance']}_up_to"] == pytest.approx(row["bits"] - row["prior"])
        assert row["n"] == 9 and row["bits_interval"] > 0
    for row in shares:
        assert sum(row["shares"]) == pytest.approx(1) and row["up_to"][-1] == pytest.approx(1)
        assert np.all(np.diff(row["up_to"]) >= 0)
    table = Path("runs/likelihood/table.md").read_text()
    assert f"| beta | {totals[1]['bits']:.3f} ± {totals[1]['bits_interval']:.3f} |" in table
    likelihood.main(**saved, batch_size=4)  # again: no network is asked, no row is added
    assert len(calls) == 4 and len(read_rows(Path("runs/likelihood/rows.jsonl"))) == len(rows)
    for name in ("terms", "shares"):
        assert np.asarray(Image.open(f"runs/likelihood/{name}.png").convert("L")).std() > 10


def test_the_study_refuses(saved, tmp_path):
    for settings, message in (
        ({"num_images_per_class": 5}, "a class has only 4"),
        ({"num_strata": 1}, "num_strata 2"),
        ({"num_strata": 1001}, "trained on 1000 steps"),
        ({"data": DataConfig("digits", split="test")}, r"draws \(3, 8, 8\)"),
    ):
        with pytest.raises(UserError, match=message):
            likelihood.main(**saved | settings)
    make_diffusion().save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="are not the data's"):
        likelihood.main(**saved | {"pipeline": str(tmp_path / "other")})
