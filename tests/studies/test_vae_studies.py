"""What a VAE draws from its prior, judged; and its gap as a study: rows kept, tables read back, refusals."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from stand_ins import make_diffusion, make_judge, make_vae

from triptych.config.base import DataConfig
from triptych.errors import UserError
from triptych.jsonl import read_rows

inference_gap = importlib.import_module("studies.inference_gap")
prior_samples = importlib.import_module("studies.prior_samples")
DIGITS = DataConfig("digits", split="test")


@pytest.fixture(autouse=True)
def saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_vae().save_pretrained("vae")
    for part in make_judge({k: str(k) for k in range(10)}, size=8, channels=1):
        part.save_pretrained("judge")
    return tmp_path


def test_what_the_prior_draws_is_judged_beside_real_images():
    settings = {"judge": "judge", "data": DIGITS, "num_images": 50, "num_bootstrap": 2}
    prior_samples.main("3=vae", **settings)
    rows = read_rows(Path("runs/prior_samples/rows.jsonl"))
    assert [row["model"] for row in rows] == ["3", "real"] and {row["n"] for row in rows} == {50}
    for row in rows:
        assert sum(one["share"] for one in row["classes"].values()) == pytest.approx(1)
    drawn, real = rows
    assert real["sure"] > 0.7 and real["frechet_distance"] < drawn["frechet_distance"]
    assert drawn["recall"] <= real["recall"] and drawn["sure_from"] == real["sure_from"]
    table = Path("runs/prior_samples/table.md").read_text()
    assert f"| real | {100 * real['sure']:.1f} ± " in table and "95 % of the reference" in table
    prior_samples.main("3=vae", **settings)  # again: nothing is measured twice
    assert len(read_rows(Path("runs/prior_samples/rows.jsonl"))) == 2


def test_the_gap_of_a_saved_vae_has_two_parts():
    settings = {"data": DIGITS, "num_images": 20, "num_elsewhere": 30, "num_updates": 5, "num_samples": 10}
    inference_gap.main("3=vae", **settings)
    (row,) = read_rows(Path("runs/inference_gap/rows.jsonl"))
    assert row["gap"] == pytest.approx(row["approximation"] + row["amortisation"])
    assert row["amortisation"] > 0 and row["latent_dim"] == 3 and row["n"] == 20
    table = Path("runs/inference_gap/table.md").read_text()
    assert f"| 3 | {-row['elbo']:.2f} | {-row['best_elbo']:.2f} |" in table
    inference_gap.main("3=vae", **settings)
    assert len(read_rows(Path("runs/inference_gap/rows.jsonl"))) == 1


@pytest.mark.parametrize(
    ("study", "settings", "message"),
    [
        (inference_gap, {"models": ""}, "models must"),
        (inference_gap, {"num_images": 0}, "at least 1"),
        (inference_gap, {"num_images": 10**6}, "more than there are images"),
        (inference_gap, {"models": "a=colour"}, "needs a pipeline with a vae"),
        (prior_samples, {"num_images": 15}, "multiple of ten"),
        (prior_samples, {"models": "real=vae"}, "the names clash"),
        (prior_samples, {"num_images": 10**6}, "is more than the"),
    ],
)
def test_the_studies_refuse(study, settings, message):
    make_diffusion().save_pretrained("colour")
    given = {"models": "3=vae", "data": DIGITS, "num_images": 10} | settings
    if study is prior_samples:
        given["judge"] = "judge"
    with pytest.raises(UserError, match=message):
        study.main(
            **given | {} if "num_elsewhere" in given or study is prior_samples else given | {"num_elsewhere": 20}
        )
