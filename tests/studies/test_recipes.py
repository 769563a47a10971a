"""Comparing trained pipelines: their errors by noise level, and their distances on the same noise."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from stand_ins import make_diffusion

from models.pipeline_class_conditional import ClassConditionalPipeline
from triptych.errors import UserError
from triptych.evaluation.denoising import SIGMAS, denoising_errors
from triptych.evaluation.scores import difference

recipes = importlib.import_module("studies.recipes")


class BestNetwork(torch.nn.Module):
    """E[x_0 | x_t], as a v-prediction, of pixels that are N(0, spread^2) in [-1, 1] and seen divided by data_std."""

    device = torch.device("cpu")

    def __init__(self, spread: float, alphas_cumprod: torch.Tensor):
        super().__init__()
        self.variance, self.alphas_cumprod = spread**2, alphas_cumprod.double()

    def forward(self, x_t, t, class_labels):
        # between two steps ln sigma is linear in t, as in the study
        log_snr = (self.alphas_cumprod / (1 - self.alphas_cumprod)).log()
        a = torch.sigmoid(torch.tensor(np.interp(t, np.arange(1000), log_snr.numpy())))
        x_0 = a.sqrt() * self.variance / (a * self.variance + 1 - a) * x_t
        return SimpleNamespace(sample=((a.sqrt() * x_t - x_0) / (1 - a).sqrt()).float())


@pytest.mark.parametrize("data_std", [1.0, 0.5])
def test_the_errors_of_the_best_network_are_known(data_std):
    """spread^2 sigma^2 / (spread^2 + sigma^2) at every sigma, whatever scale the network works on."""
    spread = 0.2
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    pipe = SimpleNamespace(
        scheduler=scheduler,
        unet=BestNetwork(spread / data_std, scheduler.alphas_cumprod),
        config=SimpleNamespace(data_std=data_std, pixel_unshuffle=2),
        class_names=["a", "b"],
    )
    x_0 = (spread * torch.randn(200, 3, 16, 16, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    pixels = ((x_0 / 2 + 0.5) * 255).round().to(torch.uint8)
    batch = {"pixels": pixels, "labels": torch.zeros(200, dtype=torch.long)}
    errors = denoising_errors(pipe, batch, True, 64, seed=0)
    best = [spread**2 * s**2 / (spread**2 + s**2) for s in SIGMAS]
    assert errors == pytest.approx(best, rel=0.03)
    assert errors == denoising_errors(pipe, batch, True, 64, seed=0)


def test_the_difference_of_paired_images_is_finer_than_that_of_others():
    rng = np.random.default_rng(0)
    real, base = rng.normal(size=(2000, 8)), rng.normal(0.3, 1, size=(600, 8))
    slightly = base + 0.02 * rng.normal(size=base.shape)  # the same images, a little different
    others = rng.normal(0.3, 1, size=(600, 8))
    assert difference(base, base, real, 20, 0) == (0, 0)
    (_, paired), (_, independent) = (difference(base, after, real, 60, 0) for after in (slightly, others))
    assert paired < 0.3 * independent
    worse, interval = difference(base, base + 0.3, real, 60, 0)
    assert worse > 3 * interval > 0


def test_two_pipelines_in_one_table(tmp_path, monkeypatch):
    """Real saved pipelines on the digits, by a stand-in judge; a second call measures nothing again."""
    monkeypatch.chdir(tmp_path)

    def judge(images):
        small = torch.nn.functional.avg_pool2d(images.float(), 2).flatten(1)
        return {"features": small, "logits": small}

    judge.name, judge.fingerprint = "features of a stand-in", "0"
    monkeypatch.setattr(recipes, "load_critic", lambda *_: judge)
    few = make_diffusion(channels=1)
    few.save_pretrained("few")
    unet = UNet2DModel.from_config(few.unet.config, num_class_embeds=11)
    made = ClassConditionalPipeline(unet, few.scheduler, pixel_unshuffle=2, num_inference_steps=3)
    for name in ("one", "two"):
        made.save_pretrained(name)
        made.unet.conv_out.weight.data += 0.1
    settings = {"num_images_per_class": 4, "num_denoised": 6, "num_bootstrap": 2, "batch_size": 5}
    for _ in range(2):
        recipes.main("one=one,two=two", **settings, output=tmp_path / "out")
    assert len((tmp_path / "out/rows.jsonl").read_text().splitlines()) == 2
    table = (tmp_path / "out/table.md").read_text()
    assert "| one | " in table and "| two | " in table and "n = 40, seed 0" in table
    assert (tmp_path / "out/errors.png").exists()
    for wrong, message in (
        ("one", "must be name=folder"),
        ("one=one,one=two", "names"),
        ("one=few", "draws 3 classes"),
    ):
        with pytest.raises(UserError, match=message):
            recipes.main(wrong, **settings)
