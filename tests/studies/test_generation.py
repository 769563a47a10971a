"""What a study of samplers recommends, and what it draws."""

from __future__ import annotations

import pytest

from triptych.studies import generation
from triptych.studies.generation import recipe_chart, recipe_table, sampler_charts, sampler_table


def row(scheduler: str, steps: int, distance: float, seconds: float, guidance: float = 1.0, **more) -> dict:
    common = {"kernel_distance": 0.1, "precision": 0.5, "recall": 0.4, "inception_score": 3.0, "n": 1000, "seed": 0}
    setting = {"scheduler": scheduler, "num_inference_steps": steps, "guidance_scale": guidance}
    told = {"data": "digits", "split": "test", "features": "features of a judge"}
    return common | setting | told | {"frechet_distance": distance, "seconds_per_image": seconds} | more


ROWS = [
    row("DDPM", 1000, 10.0, 5.0),
    row("DDIM", 50, 10.1, 0.3),
    row("DDIM", 20, 10.8, 0.1),
    row("DDIM", 20, 12.0, 0.1, guidance=2.0),
]


def test_the_best_and_the_fastest_that_is_not_told_apart_from_it():
    text = sampler_table(ROWS)
    assert len(text.split("\n\n")[0].splitlines()) == 2 + len(ROWS)
    assert "| DDIM | 20 | 2 | 12.000 |" in text
    assert "Lowest Frechet distance: DDPM, 1000 steps, guidance 1 (Frechet distance 10, 5.000 s an image)" in text
    assert "do not tell apart from it: DDPM, 1000 steps" in text  # without intervals, nothing can be said of others
    assert "n = 1,000 images a row, seed 0; features of a judge; against digits, test; intervals" in text
    assert "class asked for" not in text and "class accuracy" not in text
    judged = [
        r | {"class_accuracy": a, "frechet_distance_interval": 0.5}
        for r, a in zip(ROWS, (0.5, 0.6, 0.7, 0.9), strict=True)
    ]
    text = sampler_table(judged)
    assert "| DDIM | 50 | 1 | 10.100 ± 0.500 |" in text and "by resampling the images" in text
    # 10.1 is within the error of a difference, 0.5 sqrt(2), 10.8 is not
    assert "do not tell apart from it: DDIM, 50 steps, guidance 1 (Frechet distance 10.1" in text
    assert "Most often the class asked for: DDIM, 20 steps, guidance 2 " in text and "class accuracy 90.0%" in text


@pytest.fixture
def curves(monkeypatch) -> dict:
    """What is drawn, by the name of the file."""
    drawn = {}
    monkeypatch.setattr(
        generation, "save_curves", lambda panels, label, path, **_: drawn.update({path.name: (panels, label)}) or path
    )
    return drawn


def test_a_chart_for_every_setting_with_several_points(curves, tmp_path):
    made = sampler_charts(ROWS, tmp_path)
    assert [path.name for path in made] == list(curves) == ["steps_guidance1.png", "guidance_steps20.png"]
    panels, label = curves["steps_guidance1.png"]
    assert label == "steps" and panels["Frechet distance"] == {"DDIM": ((20, 50), (10.8, 10.1))}, (
        "one point is no curve"
    )
    panels, label = curves["guidance_steps20.png"]
    with_intervals = [r | {"frechet_distance_interval": 0.5} for r in ROWS]
    sampler_charts(with_intervals, tmp_path)
    assert curves["steps_guidance1.png"][0]["Frechet distance"]["DDIM"][2] == (0.5, 0.5)
    assert label == "guidance scale" and panels["Frechet distance"] == {"DDIM": ((1.0, 2.0), (10.8, 12.0))}


def test_recipes_are_told_with_their_differences_and_errors(curves, tmp_path):
    errors = {"error_class": [0.1] * 8, "error_null": [0.2] * 8, "denoised": 9, "frechet_distance_interval": 1.0}
    found = {"before": row("DDIM", 20, 10.0, 1.0, **errors), "after": row("DDIM", 20, 8.0, 1.0, **errors)}
    found["after"] |= {"error_class": [0.05] * 8, "class_accuracy": 0.75}
    text = recipe_table(found, {"after": (-2.0, 0.5)})
    assert "| before | 10.00 ± 1.00 |  |  | 0.50 | 0.40 |" in text
    assert "| after | 8.00 ± 1.00 | -2.00 ± 0.50 | 75.0% | 0.50 | 0.40 |" in text
    assert "| after | 0.05000 |" in text and "9 denoised images" in text
    recipe_chart(found, tmp_path / "errors.png")
    panels, label = curves["errors.png"]
    assert "multiples of those of before" in label
    assert panels["squared error, class known"]["after"][1] == [0.5] * 8
    assert panels["squared error, no class known"]["after"][1] == [1.0] * 8
