"""What a study of samplers recommends, and what it draws."""

from __future__ import annotations

import json
import math

import pytest
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler
from stand_ins import make_diffusion

from scripts.figures.few_steps import main as few_steps
from triptych.errors import UserError
from triptych.pipelines.sampling import evaluations_per_image
from triptych.studies import generation
from triptych.studies.generation import recipe_chart, recipe_table, sampler_charts, sampler_settings, sampler_table


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


def test_where_guidance_acts_is_told_and_has_curves_of_its_own(curves, tmp_path):
    rows = [row("DDIM", 20, 9.0 - k, 0.1, k, guidance_interval=where) for k in (2.0, 3.0) for where in (None, [0.3, 5])]
    assert "| DDIM | 20 | 2 for sigma in [0.3, 5] | 7.000 |" in sampler_table(rows)
    assert "| DDIM | 20 | 2 | 7.000 |" in sampler_table(rows)
    sampler_charts(rows, tmp_path)
    assert set(curves["guidance_steps20.png"][0]["Frechet distance"]) == {"DDIM", "DDIM, sigma 0.3 to 5"}
    sampler_charts([r for r in rows if r["guidance_interval"]], tmp_path)
    assert set(curves["guidance_steps20.png"][0]["Frechet distance"]) == {"DDIM"}


def test_every_setting_of_a_grid_comes_once_and_what_is_not_guided_has_no_interval():
    found = sampler_settings(["DDIM"], [25, 5, 5], [1.0, 2.0], [(0.3, 5.0), (0.0, math.inf)])
    told = [(s["num_inference_steps"], s["guidance_scale"], s["guidance_interval"]) for s in found]
    assert told == [(n, *rest) for n in (5, 25) for rest in ((1.0, None), (2.0, [0.3, 5.0]), (2.0, None))]


def test_evaluations_are_counted_as_the_pipeline_asks():
    """Against a network that counts the images it is asked about."""
    pipeline = make_diffusion()
    asked = []
    pipeline.unet.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    for scheduler in (DDPMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler):
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
        for scale, interval in ((1.0, None), (2.0, None), (2.0, (0.5, 3.0)), (0.0, (0.5, 3.0))):
            how = {"num_inference_steps": 7, "guidance_scale": scale, "guidance_interval": interval}
            asked.clear()
            pipeline([0, 1], output_type="np", **how)
            assert sum(asked) == 2 * evaluations_per_image(pipeline, **how), (scheduler, scale, interval)


def test_what_quality_costs_is_drawn_of_studies_that_were_measured_alike(tmp_path, curves, monkeypatch):
    common = {
        "judge": "j",
        "split": "test",
        "dtype": "float32",
        "frechet_distance_interval": 0.5,
        "class_accuracy": 0.9,
    }
    teacher = [row("UniPC", n, 9.0 - n / 10, 0.1, 2.0, evaluations=2 * n, weights="t", **common) for n in (8, 4, 90)]
    student = [row("DDIM", 4, 8.5, 0.1, 1.0, evaluations=4, weights="s", **common)]
    for name, rows in (("teacher", teacher), ("student", student)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    studies = f"teacher={tmp_path / 'teacher'},student={tmp_path / 'student'}"
    few_steps(studies, output=tmp_path / "out")
    panels, label = curves["chart.png"]
    assert label == "evaluations of the network for an image"
    assert panels["Frechet distance"] == {
        "teacher": ((8, 16), (8.6, 8.2), (0.5, 0.5)),
        "student": ((4,), (8.5,), (0.5,)),
    }
    table = (tmp_path / "out/table.md").read_text()
    assert "| teacher | UniPC | 4 | 2 | 8 | 8.600 ± 0.500 |" in table and "| 180 |" not in table
    for name, change, said in (
        ("student", {"judge": "another"}, "they differ in judge"),
        ("student", {"evaluations": 101}, "has no row of so few"),
        ("teacher", {"weights": "s"}, "several networks"),
        ("teacher", {"evaluations": None}, "before evaluations"),
    ):
        path = tmp_path / name / "rows.jsonl"
        kept = path.read_text()
        first = {k: v for k, v in (json.loads(kept.splitlines()[0]) | change).items() if v is not None}
        path.write_text("\n".join([json.dumps(first), *kept.splitlines()[1:]]) + "\n")
        with pytest.raises(UserError, match=said):
            few_steps(studies, output=tmp_path / said)
        path.write_text(kept)
    with pytest.raises(UserError, match="does not exist"):
        few_steps(f"gone={tmp_path / 'gone'}", output=tmp_path / "none")
