"""What we ship works right after cloning, offline."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from diffusers import DiffusionPipeline
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from transformers import pipeline as transformers_pipeline

from models.saving import carried
from triptych.config.base import DataConfig, NoiseConfig
from triptych.data.degradations import degrade_by_index
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.evaluation.judges import load_judge
from triptych.evaluation.latents import prior_plane
from triptych.evaluation.similarity import psnr
from triptych.seeds import keyed_generator

SHIPPED = sorted(path.parent for path in (ROOT / "pretrained").glob("*/model_index.json"))
DIFFUSION = [folder for folder in SHIPPED if (folder / "unet").exists()]
VAES = [folder for folder in SHIPPED if (folder / "vae").exists()]
DENOISERS = [folder for folder in SHIPPED if (folder / "denoiser").exists()]
JUDGES = [ROOT / "pretrained" / name for name in ("judge-cifar10", "judge-mnist")]


def megabytes(*folders) -> float:
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file()) / 1e6


def test_what_the_readme_names_is_there():
    names = {"cifar10-class-conditional", "vae-mnist-z2", "vae-mnist-z4", "vae-mnist-z16"}
    names |= {"denoiser-cifar10", "denoiser-cifar10-regression", "denoiser-mnist"}
    assert {folder.name for folder in SHIPPED} == names
    assert all((folder / "model.safetensors").exists() for folder in JUDGES)


@pytest.mark.parametrize("folder", DIFFUSION, ids=lambda p: p.name)
def test_diffusion_draws_right_after_cloning(folder):
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    name = pipeline.class_names[3]
    draw = [pipeline(name, generator=torch.Generator().manual_seed(s), output_type="pt").images for s in (0, 0, 1)]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])
    assert draw[0].std() > 0.05, "a picture, not a grey square"
    assert megabytes(folder) < 35


@pytest.mark.parametrize("folder", VAES, ids=lambda p: p.name)
def test_vae_draws_and_reconstructs_right_after_cloning(folder):
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    assert pipeline.vae.config.latent_dim == int(folder.name.split("z")[-1])
    drawn = pipeline(16, generator=torch.Generator().manual_seed(0), output_type="pt").images
    # Digits as MNIST has them: mostly black, with white strokes; and its own drawings survive a reconstruction.
    assert drawn.shape == (16, 1, 28, 28) and 0.05 < drawn.mean() < 0.25 and drawn.flatten(1).amax(1).mean() > 0.8
    assert (pipeline.reconstruct(drawn) - drawn).square().mean() < 0.005


def test_vaes_are_small():
    assert megabytes(*VAES) < 5


@pytest.mark.parametrize("folder", DENOISERS, ids=lambda p: p.name)
def test_denoisers_restore_right_after_cloning(folder):
    """Pieces of a photograph they never saw, or digits of another data set, under noise of 50 of 255."""
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    if pipeline.denoiser.config.in_channels == 1:
        clean = drawn_digits()[:20]
    else:
        photograph = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1) / 255
        clean = F.interpolate(photograph[None], (96, 144), mode="area").unfold(2, 48, 48).unfold(3, 48, 48)
        clean = clean[0].permute(1, 2, 0, 3, 4).flatten(0, 1)
    noisy = degrade_by_index(clean * 2 - 1, range(len(clean)), NoiseConfig(sigma=(50, 50)), 0) / 2 + 0.5
    restored = torch.stack(pipeline(noisy, output_type="pt").images)
    assert psnr(clean, restored).mean() > psnr(clean, noisy).mean() + 5


def test_denoisers_are_small():
    assert megabytes(*DENOISERS) < 15


DIGITS = DataConfig(split="test", channels=3, image_size=32)


@pytest.fixture
def triptych(monkeypatch):
    """scripts/figures/banner.py on the shipped pipelines and the embedded digits, in few steps."""
    monkeypatch.chdir(ROOT)
    main = importlib.import_module("figures.banner").main

    def draw(output: Path, **changes) -> np.ndarray:
        main(**{"data": DIGITS, "num_inference_steps": 6, "output": output} | changes)
        return np.asarray(Image.open(output))

    return draw


def test_the_triptych_shows_what_the_pipelines_make(triptych, tmp_path):
    picture = triptych(tmp_path / "a.png")
    assert picture.shape == (630, 1650, 4) and (picture[..., 3] == 255).all()
    assert (picture[:24] == 255).all() and (picture[:, -24:] == 255).all()
    plane, restored, emerging = (picture[24:528, left : left + 504, :3].astype(int) for left in (24, 573, 1122))
    vae, diffusion = (
        DiffusionPipeline.from_pretrained(ROOT / "pretrained" / name, trust_remote_code=True)
        for name in ("vae-mnist-z2", "cifar10-class-conditional")
    )

    decoded = vae.decode(prior_plane(9), "np").reshape(9, 9, 28, 28).swapaxes(1, 2).reshape(252, 252, 1)
    assert np.abs(plane - enlarged(decoded * 255, 2)).max() <= 1
    for row, clean in enumerate(load_images(DIGITS).__getitems__([0, 1, 2])["pixels"]):
        clean = enlarged(clean.permute(1, 2, 0).numpy(), 5)
        cells = [restored[172 * row : 172 * row + 160, 172 * column : 172 * column + 160] for column in range(3)]
        assert (cells[2] == clean).all(), "the first images, every pixel a square"
        assert np.abs(cells[1] - clean).mean() < np.abs(cells[0] - clean).mean() / 2
    diffusion.set_progress_bar_config(disable=True)
    cat = diffusion(3, num_inference_steps=6, generator=keyed_generator("image", 0, 3, 0), output_type="np").images[0]
    assert np.abs(emerging[306:402, 408:] - enlarged(cat * 255, 3)).max() <= 1, "what generate.py draws first"

    assert (triptych(tmp_path / "b.png") == picture).all()
    assert (triptych(tmp_path / "b.png", seed=1, overwrite=True) != picture).any()


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": Path("README.md")}, "must end in .png"),
        ({"output": Path("docs/images/digits.png")}, "is there already.*--overwrite"),
        ({"sigma": 256.0}, "sigma"),
        ({"denoiser": "pretrained/vae-mnist-z2"}, "a pipeline with a denoiser"),
        ({"vae": "pretrained/vae-mnist-z4"}, "4 latent variables"),
        ({"classes": "cat,ship"}, "classes must be 5.*there are 2"),
        ({"classes": "cat,ship,lion,dog,frog"}, "no class 'lion'"),
        ({"num_inference_steps": 5}, "at least 6"),
        ({"data": DataConfig(split="test")}, "of 1 channels.*data.channels"),
        ({"data": DataConfig(split="test", channels=3, image_size=200)}, "3 images of 200x200.*data.image_size"),
    ],
)
def test_the_triptych_refuses(triptych, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        triptych(**{"output": tmp_path / "c.png"} | changes)
    assert not list(tmp_path.iterdir())


def drawn_digits() -> torch.Tensor:
    """scikit-learn's digits in the size and the place of MNIST's, (N, 1, 28, 28) in [0, 1]."""
    images = torch.from_numpy(load_digits().images[:, None]).float() / 16
    return F.pad(F.interpolate(images, (20, 20), mode="bicubic").clamp(0, 1), (4, 4, 4, 4))


def test_judges_recognise_what_they_never_saw():
    """The digits of other people; what the shipped pipeline draws, at a guidance that makes classes plain."""
    judge = load_judge(JUDGES[1])
    answers = judge(drawn_digits())["logits"].argmax(1)
    assert (answers == torch.from_numpy(load_digits().target)).float().mean() > 0.8
    draw = DiffusionPipeline.from_pretrained(DIFFUSION[0], trust_remote_code=True)
    draw.set_progress_bar_config(disable=True)
    how = {"guidance_scale": 3.0, "num_inference_steps": 10, "output_type": "pt"}
    images = draw(list(range(10)), generator=torch.Generator().manual_seed(0), **how).images
    judge = load_judge(JUDGES[0])
    assert judge.class_names == draw.class_names
    assert (judge(images)["logits"].argmax(1) == torch.arange(10)).sum() >= 8


@pytest.mark.parametrize("folder", JUDGES, ids=lambda p: p.name)
def test_judges_work_in_transformers(folder):
    classify = transformers_pipeline("image-classification", model=str(folder), device="cpu")
    image = Image.fromarray((drawn_digits()[7, 0] * 255).byte().numpy())  # a seven
    answer = classify(image)[0]
    assert 0 < answer["score"] <= 1 and answer["label"] in classify.model.config.label2id
    if folder.name == "judge-mnist":
        assert answer["label"].startswith("7")
    assert "% of the 10,000 test images" in (folder / "README.md").read_text()


def test_judges_are_small():
    assert megabytes(*JUDGES) < 12


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda p: p.name)
def test_carries_the_code_of_this_repository(folder):
    kinds = {"unet": "pipeline_class_conditional", "vae": "pipeline_vae", "denoiser": "pipeline_denoiser"}
    (name,) = (name for part, name in kinds.items() if (folder / part).exists())
    assert {path.name for path in folder.glob("*.py")} == {f"{name}.py", "pipeline.py"}
    assert (folder / f"{name}.py").read_text() == carried(name, str(ROOT / f"models/{name}.py"))[1]
    assert (folder / "pipeline.py").read_text().count(f"from .{name} import ") == 1
    if folder in VAES:
        assert (folder / "vae/vae.py").read_text() == (ROOT / "models/vae.py").read_text()
    if folder in DENOISERS:
        assert (folder / "denoiser/gan.py").read_text() == (ROOT / "models/gan.py").read_text()
    for path in folder.rglob("*.json"):
        assert "_name_or_path" not in path.read_text(), "no folder of the machine it was made on"
    card = (folder / "README.md").read_text()
    assert "library_name: diffusers" in card and "images seen" in card
    assert json.loads((folder / "model_index.json").read_text())["_class_name"][0] == name
