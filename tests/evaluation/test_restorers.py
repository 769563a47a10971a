"""Measuring restoration: the classical methods, the rows that are kept, and the whole command on real files."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from diffusers import DDPMScheduler, UNet2DModel
from PIL import Image
from skimage.data import camera
from skimage.metrics import peak_signal_noise_ratio
from stand_ins import make_diffusion

from models.gan import DenoisingUNet
from models.pipeline_class_conditional import ClassConditionalPipeline
from models.pipeline_denoiser import DenoiserPipeline
from triptych.config.base import DataConfig, NoiseConfig
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.evaluation import classical, restorers
from triptych.evaluation.statistics import mean_and_interval
from triptych.figures.tables import markdown
from triptych.jsonl import Rows, read_rows
from triptych.studies.comparison import class_table, differences

SIGMA = 25 / 255


@pytest.fixture(scope="module")
def pool():
    with classical.make_pool(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def photograph():
    """A real photograph, grey and as colour, and its noisy version."""
    grey = camera()[100:196, 200:296, None].astype(np.float32) / 255
    noise = np.random.default_rng(0).standard_normal((96, 96, 3)).astype(np.float32)
    colour = np.repeat(grey, 3, axis=2)
    return {1: (grey, grey + SIGMA * noise[..., :1]), 3: (colour, colour + SIGMA * noise)}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", classical.METHODS)
def test_classical_methods_restore(name, channels, photograph, pool):
    clean, noisy = photograph[channels]
    strength = classical.METHODS[name].strengths[0]
    told, estimated = (classical.restore_all(name, strength, [noisy], sigma, pool)[0] for sigma in (SIGMA, None))
    before = peak_signal_noise_ratio(clean, noisy, data_range=1)
    for restored in (told, estimated):
        assert restored.shape == clean.shape and restored.dtype == np.float32
        assert restored.min() >= 0 and restored.max() <= 1
        assert peak_signal_noise_ratio(clean, restored, data_range=1) > before + 2


def test_tuning_takes_the_best_strength(photograph, pool):
    clean, noisy = photograph[1]
    best = classical.tune("total variation", [clean], [noisy], SIGMA, pool)
    scores = {
        strength: peak_signal_noise_ratio(
            clean, classical.total_variation(noisy, SIGMA, strength).clip(0, 1), data_range=1
        )
        for strength in classical.METHODS["total variation"].strengths
    }
    assert best == max(scores, key=scores.get)


def test_unknown_methods_are_refused(monkeypatch):
    with pytest.raises(UserError, match="there are median, non-local means"):
        classical.require("blur")
    monkeypatch.setitem(__import__("sys").modules, "bm3d", None)
    with pytest.raises(UserError, match=r"triptych\[classical\]"):
        classical.require("BM3D")


def test_rows_are_found_again_and_a_torn_one_is_not(tmp_path):
    rows = Rows(tmp_path / "deep/rows.jsonl")
    assert rows.find(method="a") is None
    rows.add({"method": "a", "n": 1, "score": 1.0})
    rows.add({"method": "a", "n": 2, "score": 2.0})
    rows.add({"method": "a", "n": 1, "score": 3.0})
    with rows.path.open("a") as file:
        file.write('{"method": "b", "n"')  # killed while it wrote
    assert [row["score"] for row in read_rows(rows.path)] == [1.0, 2.0, 3.0], "half a line is no row"
    again = Rows(rows.path)
    assert again.find(method="a", n=1)["score"] == 3.0 and again.find(method="b") is None
    again.add({"method": "b", "n": 1})
    assert [row["method"] for row in map(json.loads, rows.path.read_text().splitlines())] == ["a", "a", "a", "b"]
    rows.path.write_text('{"n": 1}\n{"n": 2}')  # by hand, in an editor that ends no line
    assert read_rows(rows.path) == [{"n": 1}, {"n": 2}] and read_rows(tmp_path / "nowhere.jsonl") == []


def test_tables_in_markdown():
    table = markdown(["method", "n"], [["noisy", 10], ("GAN", "")])
    assert table == "| method | n |\n|---|---|\n| noisy | 10 |\n| GAN |  |"
    assert class_table({"ours": {"labels": np.array([1, 1]), "psnr": np.array([2.0, 4.0])}}, ["cat", "dog"]) == (
        "| class | ours |\n|---|---|\n| cat |  |\n| dog | 3.00 ± 1.96 |"
    )


def test_intervals_and_differences():
    values = np.random.default_rng(0).normal(30, 2, 400)
    mean, interval = mean_and_interval(values)
    assert mean == pytest.approx(values.mean()) and interval == pytest.approx(1.96 * values.std(ddof=1) / 20)
    each = {"BM3D": {"psnr": values[:100]}, "ours": {"psnr": values + 1.5}, "noisy": {"psnr": values - 9}}
    (text, _) = differences(each)
    assert "its 100 images" in text and "ours +1.50 ± 0.00" in text and "noisy" not in text


def save_denoiser(folder: Path, channels: int = 1) -> str:
    torch.manual_seed(0)
    DenoiserPipeline(DenoisingUNet(channels, (8, 16), 1, 1).eval()).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def score(tmp_path):
    main = importlib.import_module("score_denoiser").main

    def call(**settings) -> list[dict]:
        defaults = {"data": DataConfig(split="test"), "num_tuning": 4, "num_images": 40, "methods": "median"}
        main(output=tmp_path / "out", **(defaults | settings))
        return [json.loads(line) for line in (tmp_path / "out/rows.jsonl").read_text().splitlines()]

    return call


def test_the_digits_are_measured_once(score, tmp_path, capsys):
    folder = save_denoiser(tmp_path / "denoiser")
    settings = {"methods": "median,BM3D", "num_bm3d": 3, "sigmas": [25.0, 50.0], "models": f"ours={folder}"}
    rows = score(**settings)
    assert [(r["level"], r["method"], r["n"]) for r in rows] == [
        (level, *method)
        for level in ("sigma 25", "sigma 50")
        for method in (("noisy", 40), ("median", 40), ("BM3D", 3), ("ours", 40))
    ]
    noisy = rows[0]
    # 10 log10(1 / sigma^2), up to four standard deviations of 40 x 64 pixels
    assert noisy["psnr"] == pytest.approx(-20 * np.log10(25 / 255), abs=0.5)
    assert 0 < noisy["psnr_interval"] < 1
    for name in ("table.md", "levels.png", "classes.png"):
        assert (tmp_path / "out" / name).exists(), name
    table = capsys.readouterr().out
    assert "| noisy | 40 |" in table and "PSNR above BM3D" in table and "| class | noisy | median" in table
    assert len(score(**settings)) == 8, "nothing is measured twice"
    assert len(score(**settings | {"num_images": 30})) == 14, "other images are other measurements (not BM3D's three)"
    capsys.readouterr()
    score(**settings)
    assert capsys.readouterr().out == table, "and none overwrites another's scores or takes its place in the table"


def test_every_method_sees_the_same_noise(score, tmp_path):
    """A network that does nothing scores what the noisy images score."""
    folder = tmp_path / "nothing"
    pipeline = DenoiserPipeline(DenoisingUNet(1, (8,), 1, 1))
    for parameter in pipeline.denoiser.parameters():
        parameter.data.zero_()
    pipeline.save_pretrained(folder)
    # noise that stays in [0, 1], because a pipeline's answers do
    rows = score(methods="", models=f"nothing={folder}", noise=NoiseConfig(sigma=(30, 30), clip=True))
    assert rows[1]["psnr"] == pytest.approx(rows[0]["psnr"], abs=1e-4)
    assert rows[0]["level"] == "gaussian (sigma 30), in 8 bits"


def test_a_vae_and_pairs_of_photographs(score, tmp_path):
    from models.pipeline_vae import VAEPipeline
    from models.vae import VAE

    VAEPipeline(VAE(8, 1, 2, "mlp"), "bernoulli").save_pretrained(tmp_path / "vae")
    assert score(methods="", sigmas=[25.0], models=f"vae={tmp_path / 'vae'}")[-1]["method"] == "vae"
    for name, (height, width) in {"a": (20, 31), "b": (16, 40)}.items():
        clean = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
        for half, pixels in (("clean", clean), ("noisy", clean // 2)):
            (tmp_path / f"pairs/{half}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / f"pairs/{half}/{name}.png")
    pairs = {"data": DataConfig(path=str(tmp_path / "pairs")), "paired": True, "methods": ""}
    with pytest.raises(UserError, match=r"VAEPipeline restores images of \(1, 8, 8\), not \(1, 20, 31\)"):
        score(**pairs, models=f"vae={tmp_path / 'vae'}")
    rows = score(**pairs, models=f"ours={save_denoiser(tmp_path / 'denoiser')}")
    assert [(r["level"], r["method"], r["n"]) for r in rows[-2:]] == [("pairs", "noisy", 2), ("pairs", "ours", 2)]


def test_a_diffusion_model_restores_what_sigma_says(score, tmp_path):
    torch.manual_seed(0)
    levels = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    unet = UNet2DModel(8, 1, 1, **levels, norm_num_groups=4, num_class_embeds=11, layers_per_block=1)
    ClassConditionalPipeline(unet, DDPMScheduler(), {k: str(k) for k in range(10)}).save_pretrained(tmp_path / "d")
    models = {"models": f"diffusion={tmp_path / 'd'}", "methods": "", "num_images": 5, "diffusion_steps": [1, 2]}
    models["posterior_draws"] = [1, 2]
    rows = score(**models, sigmas=[50.0])
    assert [row["method"] for row in rows] == [
        "noisy",
        "diffusion, 1 step",
        "diffusion, 2 steps",
        "diffusion, 1 draw",
        "diffusion, mean of 2 draws",
    ]
    noisy, one, two, draw, mean = (row["psnr"] for row in rows)
    assert len({noisy, one, two, mean}) == 4 and two == draw, "the saved scheduler is DDPM here"
    with pytest.raises(UserError, match="one known sigma"):
        score(**models, noise=NoiseConfig(kinds=("speckle",)))


def test_the_mean_of_draws_misses_by_what_the_posterior_is_wide(monkeypatch):
    """For data that are N(m, s^2) the best network is known: the squared error of K draws' mean is (1 + 1 / K) times
    that of the posterior's mean. A draw depends on its image alone, not on those beside it."""
    pipeline = make_diffusion(channels=1, unshuffle=1, prediction_type="sample")
    pipeline.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    mean, spread, noise = 0.0, 0.2, 0.25  # in [-1, 1]

    def best(x_in, t, *_):
        a = pipeline.scheduler.alphas_cumprod[int(t)]
        return mean + a.sqrt() * spread**2 / (a * spread**2 + 1 - a) * (x_in - a.sqrt() * mean)  # E[x_0 | x_t]

    monkeypatch.setattr(pipeline, "_denoise", best)
    generator = torch.Generator().manual_seed(0)
    clean = mean + spread * torch.randn(400, 1, 4, 4, generator=generator)
    noisy = list((clean + noise * torch.randn(clean.shape, generator=generator)) / 2 + 0.5)
    errors = {}
    for draws, steps in ((None, 1), (1, 40), (3, 40)):
        restore = restorers.diffusion_restorer(pipeline, steps, 0, draws)
        restored = restore(noisy, noise / 2)
        errors[draws] = (torch.stack(restored) * 2 - 1 - clean).square().mean().item()
        if draws:
            alone = restore(noisy[350:351], noise / 2)[0]
            torch.testing.assert_close(alone, restored[350], atol=1e-5, rtol=0)
    assert errors[None] == pytest.approx(spread**2 * noise**2 / (spread**2 + noise**2), rel=0.05)
    assert errors[1] / errors[None] == pytest.approx(2, rel=0.08)
    assert errors[3] / errors[None] == pytest.approx(4 / 3, rel=0.08)


def test_bad_input_is_named_before_work_begins(score, tmp_path):
    folder = save_denoiser(tmp_path / "denoiser")
    for settings, message in (
        ({"models": "runs/x"}, "name=folder"),
        ({"models": f"noisy={folder}"}, "Every name"),
        ({"models": f"a={folder},a={folder}"}, "Every name"),
        ({"models": f"a={tmp_path}/nothing"}, "does not exist"),
        ({"sigmas": [25.0], "noise": NoiseConfig()}, "not two"),
        ({"sigmas": [300.0]}, r"\[0, 255\]"),
        ({"tuning_split": "test"}, "must not see"),
        ({"judge": "x", "any_size": True}, "one size"),
        ({"methods": "blur"}, "no method"),
        ({"diffusion_steps": [0]}, "1 or more"),
        ({"posterior_draws": [3, 0]}, "1 or more"),
        *(
            ({name: value}, "must be at least 1")
            for name in ("num_images", "num_bm3d", "num_tuning")
            for value in (0, -1)
        ),
        ({"num_workers": 0}, "num_workers must be at least 1, not 0"),
    ):
        with pytest.raises(UserError, match=message):
            score(**settings)
    assert not (tmp_path / "out").exists()


def test_a_sweep_trains_measures_and_reuses(study, tmp_path):
    """Two weights over the digits from a common start: every game's health, one table, and nothing done twice."""
    folder = save_denoiser(tmp_path / "denoiser")
    small = {"generator.block_out_channels": "[8, 16]", "generator.layers_per_block": 1, "num_updates": 12}
    small |= {"run.log_every": 3, "run.progress": "false", "run.tracker": "null", "num_samples": 2}
    train = [str(part) for key, value in small.items() for part in (f"--{key}", value)]
    score = ["--num_images", "10", "--methods", "median", "--num_tuning", "3", "--sigmas", "[50]"]
    command = ["gan_weight", str(ROOT / "configs/demo/gan_digits.yaml")]
    command += ["--adversarial_weights", "[0.1, 1]", "--baseline", folder, "--output", "sweep"]
    command += ["--train_flags", json.dumps(train), "--score_flags", json.dumps(score)]
    done = study(*command)
    assert done.returncode == 0, done.stderr
    assert "| GAN 0.1 | " in done.stdout and "| regression | 10 |" in done.stdout and "| GAN 1 | 10 |" in done.stdout
    health = (tmp_path / "sweep/health.md").read_text()
    assert "nan" not in health and "accuracy_restored" in health
    logs = [tmp_path / f"sweep/weight{weight}_seed0/run.json" for weight in ("0.1", "1")]
    before = [log.read_text() for log in logs]
    done = study(*command)
    assert done.returncode == 0 and [log.read_text() for log in logs] == before
    assert len((tmp_path / "sweep/rows.jsonl").read_text().splitlines()) == 5


def test_pictures_side_by_side(tmp_path):
    folder = save_denoiser(tmp_path / "denoiser")
    draw = importlib.import_module("figures.restorations").main
    settings = {"models": f"ours={folder}", "data": DataConfig(split="test"), "methods": "median", "num_images": 2}
    draw(**settings, sigma=50.0, num_tuning=3, output=tmp_path / "a/picture.png")
    assert Image.open(tmp_path / "a/picture.png").width > 500
    with pytest.raises(UserError, match="between 1 and 360"):
        draw(**settings | {"num_images": 361}, output=tmp_path / "b.png")


def test_images_give_themselves_whole():
    images = load_images(DataConfig())
    assert torch.equal(images.whole(3), images.__getitems__([3])["pixels"][0])
    assert images.label(3) == int(images.__getitems__([3])["labels"][0])
