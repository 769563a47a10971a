"""Scoring generated digits by a judge trained in the test, and the same from a folder of images."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, launch_command, launched
from diffusers import DDIMScheduler, UNet2DModel
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from models.gan import DenoisingUNet
from models.pipeline_class_conditional import ClassConditionalPipeline
from models.pipeline_denoiser import DenoiserPipeline
from models.pipeline_vae import VAEPipeline
from models.vae import VAE
from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.evaluation.scores import draw
from triptych.pipelines.store import load_pipeline

DIGITS = [str(k) for k in range(10)]


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("judge")
    config = ["--config", str(ROOT / "configs/demo/classifier_digits.yaml"), "--run.tracker", "null"]
    short = ["--num_updates", "120", "--run.progress", "false", "--run.output_dir", str(folder), "--name", "judge"]
    command = [*launch_command(script=ROOT / "scripts/train_classifier.py"), *config, *short]
    done = launched(command, folder)
    assert done.returncode == 0, done.stderr
    return str(folder / "judge/classifier")


@pytest.fixture
def score(tmp_path, judge):
    main = importlib.import_module("score").main

    def call(source: Path, **settings) -> dict:
        defaults = {"num_images_per_class": 4, "batch_size": 15, "num_bootstrap": 3, "output": tmp_path / "scores"}
        main(str(source), **({"judge": judge} | defaults | settings))
        return json.loads((tmp_path / "scores/scores.json").read_text())

    return call


def other_judge(judge: str, folder: Path) -> str:
    """The same network with one weight changed."""
    model = AutoModelForImageClassification.from_pretrained(judge)
    with torch.no_grad():
        model.classifier[-1].bias[0] += 0.01
    model.save_pretrained(folder)
    AutoImageProcessor.from_pretrained(judge).save_pretrained(folder)
    return str(folder)


def save_pipeline(folder: Path) -> Path:
    torch.manual_seed(0)
    unet = UNet2DModel(
        8, 1, 1, block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        norm_num_groups=4, num_class_embeds=11, layers_per_block=1, attention_head_dim=8,
    )  # fmt: skip
    names = dict(enumerate(DIGITS))
    ClassConditionalPipeline(unet, DDIMScheduler(), names, num_inference_steps=2, guidance_scale=1.0).save_pretrained(
        folder
    )
    return folder


@pytest.mark.filterwarnings("ignore:.*feature dimensions")
def test_a_pipeline_is_drawn_once_and_scored(score, tmp_path, monkeypatch):
    source = save_pipeline(tmp_path / "pipeline")
    first = score(source)
    assert first["n"] == 40 and first["reference_n"] == 360 and first["num_inference_steps"] == 2
    assert first["floor"]["frechet_distance"] < first["frechet_distance"], "an untrained network draws no digits"
    assert sum(map(sum, first["confusion_matrix"])) == 40
    right = sum(row["accuracy"] * row["n"] for row in first["per_class"].values())
    assert first["class_accuracy"] == pytest.approx(right / 40)
    drawn = sorted((tmp_path / "scores").glob("drawn_*/*.npz"))
    assert [p.name for p in drawn] == ["00000000_15.npz", "00000015_15.npz", "00000030_10.npz"]
    drawn[1].unlink()  # interrupted there
    times = [p.stat().st_mtime_ns for p in (drawn[0], drawn[2])]
    with pytest.raises(UserError, match=r"scores\.json is there already.*--overwrite"):
        score(source)
    assert score(source, overwrite=True) == first, "what was missing is drawn again, the same"
    assert [p.stat().st_mtime_ns for p in (drawn[0], drawn[2])] == times
    assert score(source, guidance_scale=2.0, overwrite=True)["guidance_scale"] == 2.0
    assert len(list((tmp_path / "scores").glob("drawn_*"))) == 2, "other settings are other images"


@pytest.mark.filterwarnings("ignore:.*feature dimensions")
def test_real_digits_score_as_real(score, tmp_path):
    """The training digits in a folder for each class: at the floor, and recognised."""
    images = load_images(DataConfig())
    for index in range(len(images)):
        path = tmp_path / f"real/{images.label(index)}/{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.whole(index)[0].numpy()).save(path)
    found = score(tmp_path / "real")
    assert found["n"] == 1437 and found["class_accuracy"] > 0.9
    assert found["frechet_distance"] == pytest.approx(found["floor"]["frechet_distance"], rel=1e-3)
    assert found["precision"] > 0.8 and found["recall"] > 0.8


@pytest.mark.filterwarnings("ignore:.*feature dimensions")
def test_a_vae_has_no_classes_to_ask_for(score, tmp_path):
    VAEPipeline(VAE(8, 1, 2, "mlp"), "bernoulli").save_pretrained(tmp_path / "vae")
    found = score(tmp_path / "vae")
    assert found["n"] == 40 and "class_accuracy" not in found and found["frechet_distance"] > 0


@pytest.mark.parametrize("counts", [{"batch_size": 0}, {"num_images_per_class": 0}, {"num_images_per_class": -1}])
def test_studies_of_nothing_are_refused(tmp_path, counts):
    source = save_pipeline(tmp_path / "pipeline")
    reconstruction = importlib.import_module("studies.reconstruction").main
    with pytest.raises(UserError, match="must be at least 1"):
        reconstruction(str(source), judge="none", output=tmp_path / "out", **counts)
    per_class, batch_size = counts.get("num_images_per_class", 1), counts.get("batch_size", 1)
    with pytest.raises(UserError, match="must be at least 1"):
        draw(load_pipeline(str(source)), {}, per_class, batch_size, 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_input(score, tmp_path, judge):
    source = save_pipeline(tmp_path / "pipeline")
    DenoiserPipeline(DenoisingUNet(1, (8,), 1, 1)).save_pretrained(tmp_path / "denoiser")
    (tmp_path / "few").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "few/0.png")
    for arguments, message in (
        ({"source": tmp_path / "none"}, "does not exist"),
        ({"source": tmp_path / "denoiser"}, "is a DenoiserPipeline, which draws nothing"),
        ({"source": tmp_path / "few"}, "gives 1 images.*from 10 images each"),
        ({"source": source, "judge": str(source)}, "no image classifier"),
        ({"source": source, "num_images_per_class": 0}, "at least 1"),
        ({"source": source, "data": DataConfig(split="test", image_size=16)}, "the reference is of 16 pixels"),
    ):
        with pytest.raises(UserError, match=message):
            score(**arguments)


@pytest.mark.filterwarnings("ignore:.*feature dimensions")
def test_a_study_keeps_its_rows(tmp_path, judge, capsys):
    """Two samplers at two step counts and two scales: eight rows, a verdict, charts; a second call measures nothing."""
    source = str(save_pipeline(tmp_path / "pipeline"))
    study = importlib.import_module("studies.sampling").main
    settings = {"schedulers": "DDIM,DDPM", "num_inference_steps": [2, 3], "guidance_scales": [1.0, 2.0]}
    settings |= {"num_images_per_class": 2, "output": tmp_path / "study"}
    study(source, judge, **settings)
    said = capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "study/rows.jsonl").read_text().splitlines()]
    assert len(rows) == 8 and all(row["n"] == 20 and row["seconds_per_image"] > 0 for row in rows)
    assert [row["num_inference_steps"] for row in rows] == [2] * 4 + [3] * 4, "the cheapest first"
    best = min(rows, key=lambda row: row["frechet_distance"])
    assert f"Best: {best['scheduler']}, {best['num_inference_steps']} steps" in said
    pictures = {"steps_guidance1.png", "steps_guidance2.png", "guidance_steps2.png", "guidance_steps3.png"}
    assert {path.name for path in (tmp_path / "study").glob("*.png")} == pictures
    study(source, judge, **settings)
    assert len((tmp_path / "study/rows.jsonl").read_text().splitlines()) == 8
    drawn = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").glob("drawn_*/*.npz")}
    assert len(drawn) == 8, "one batch for every row"
    other = other_judge(judge, tmp_path / "other")
    study(source, other, **settings)
    rows = [json.loads(line) for line in (tmp_path / "study/rows.jsonl").read_text().splitlines()]
    assert len({row["judge"] for row in rows}) == 2 and len(rows) == 16, "another judge scores anew"
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "study").glob("drawn_*/*.npz")} == drawn, "nothing drawn anew"
    capsys.readouterr()
    study(source, judge, **settings | {"num_inference_steps": [4], "guidance_scales": [1.0]})
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| DD")]
    assert len(table) == 10 and table[-1].startswith("| DDPM | 4 | 1 |"), "another grid joins what was measured before"
    for wrong, message in (({"schedulers": "Nothing"}, "no scheduler"), ({"num_inference_steps": [0]}, "at least")):
        with pytest.raises(UserError, match=message):
            study(source, judge, **settings | wrong)


def test_reconstruction_per_class(tmp_path, judge, capsys):
    """A network that predicts x_0 = x_t leaves a little noise as it is: PSNR falls with t, and the rows are kept."""
    source = str(save_pipeline(tmp_path / "pipeline"))
    study = importlib.import_module("studies.reconstruction").main
    settings = {"timesteps": [5, 500], "num_inference_steps": 4, "num_images_per_class": 2}
    settings |= {"output": tmp_path / "study"}
    study(source, judge, **settings)
    assert "n = 20 images of digits, test" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "study/rows.jsonl").read_text().splitlines()]
    assert [row["t"] for row in rows] == [5, 500] and rows[0]["psnr"] > rows[1]["psnr"]
    assert rows[0]["snr_db"] > rows[1]["snr_db"] and rows[0]["kept"] > 0.5
    assert all(of_class["n"] == 2 and "psnr_interval" in of_class for of_class in rows[0]["per_class"].values())
    assert rows[0]["kept"] == pytest.approx(sum(c["kept"] for c in rows[0]["per_class"].values()) / 10)
    assert {path.name for path in (tmp_path / "study").glob("*.png")} == {
        *("curves.png", "classes_psnr.png", "classes_kept.png", "pictures.png")
    }
    study(source, judge, **settings)
    assert len((tmp_path / "study/rows.jsonl").read_text().splitlines()) == 2
    for wrong, message in (
        ({"timesteps": [1000]}, "between 0 and 999"),
        ({"num_images_per_class": 100}, "a class has only"),
        ({"data": DataConfig(split="test", image_size=16)}, "the data has"),
    ):
        with pytest.raises(UserError, match=message):
            study(source, judge, **settings | wrong)


def test_the_noise_study_trains_scores_and_reuses(study, tmp_path, judge):
    tiny = {key: value for key, value in TINY.items() if not key.startswith(("data.", "schedule.", "num_updates"))}
    train = [part for key, value in tiny.items() for part in (f"--{key}", value)]
    command = ["noise", str(ROOT / "configs/demo/diffusion_digits.yaml")]
    command += ["--judge", judge, "--variants", "base; linear, beta_end 0.04", "--num_updates", "2"]
    command += ["--output", "study"]
    command += ["--num_images_per_class", "2", "--train_flags", json.dumps(train)]
    command += ["--score_flags", json.dumps(["--num_bootstrap", "0"])]
    for _ in range(2):
        done = study(*command)
        assert done.returncode == 0, done.stderr
    assert "Saved the pipeline" not in done.stdout, "the second call finds everything there"
    assert "| linear, beta_end 0.04 | " in done.stdout and "2 updates of 8; n = 20" in done.stdout
    assert "drawing" not in done.stderr, "nor is anything scored again"
    before = json.loads((tmp_path / "study/base/scores.json").read_text())
    command[command.index("--judge") + 1] = other_judge(judge, tmp_path / "other")
    done = study(*command)
    after = json.loads((tmp_path / "study/base/scores.json").read_text())
    assert "Saved the pipeline" not in done.stdout and after["judge_fingerprint"] != before["judge_fingerprint"]
    command[-1] = json.dumps(["--num_bootstrap", "2"])
    done = study(*command)
    resampled = json.loads((tmp_path / "study/base/scores.json").read_text())
    assert done.returncode == 0, done.stderr
    assert "Saved the pipeline" not in done.stdout, "other flags of scoring score anew, and train nothing"
    assert "frechet_distance_interval" in resampled and "frechet_distance_interval" not in after
    config = (tmp_path / "study/linear_beta_end_0.04/config.yaml").read_text()
    assert all(part in config for part in ("schedule: linear", "beta_end: 0.04", "prediction_type: v_prediction"))
    assert (tmp_path / "study/scores.png").exists()
    command[command.index("--variants") + 1] = "cubic"
    done = study(*command)
    assert done.returncode == 2 and "is not among: base; linear" in done.stderr
