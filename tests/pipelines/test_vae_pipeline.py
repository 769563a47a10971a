"""The VAE's network and pipeline: shapes, refusals, and what is drawn elsewhere."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import environment, launched
from stand_ins import make_vae, seeded

from models.vae import VAE
from triptych.losses.vae import bernoulli_nll, kl_to_standard_normal

# ---- network -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["conv", "mlp"])
@pytest.mark.parametrize(("side", "channels", "latent_dim"), [(28, 1, 2), (32, 3, 16), (8, 1, 1)])
def test_shapes(architecture, side, channels, latent_dim):
    vae = VAE(side, channels, latent_dim, architecture, hidden_channels=(8, 16), hidden_dim=16)
    logits, posterior = vae(torch.rand(2, channels, side, side) * 2 - 1, torch.randn(2, latent_dim))
    assert logits.shape == (2, channels, side, side)
    assert posterior.mean.shape == posterior.logvar.shape == (2, latent_dim)
    loss = bernoulli_nll(logits, torch.rand_like(logits)).mean()
    loss = loss + kl_to_standard_normal(posterior.mean, posterior.logvar).sum(1).mean()
    loss.backward()
    assert all(p.grad is not None for p in vae.parameters())


def test_a_plain_autoencoder_does_not_sample():
    vae = VAE(8, 1, 2, hidden_channels=(8, 8), hidden_dim=8, variational=False)
    x = torch.rand(3, 1, 8, 8)
    a, b = (vae(x, torch.randn(3, 2, generator=seeded(s)))[0] for s in (1, 2))
    assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"image_size": 30}, "multiple of 4"),
        ({"architecture": "vit"}, "architecture"),
    ],
)
def test_sizes_the_network_cannot_take(arguments, message):
    with pytest.raises(ValueError, match=message):
        VAE(**arguments)


# ---- pipeline ----------------------------------------------------------------------------------------------


def test_pipeline_encodes_decodes_and_interpolates():
    pipeline = make_vae()
    images = torch.rand(4, 1, 8, 8, generator=seeded(0))
    mean, logvar = pipeline.encode(images)
    again = pipeline.reconstruct(images)
    torch.testing.assert_close(again, pipeline.decode(mean))
    line = pipeline.interpolate(images[0], images[1], 5)
    torch.testing.assert_close(line[[0, -1]], again[:2])
    assert logvar.shape == (4, 3) and again.min() >= 0 and again.max() <= 1
    drawn = pipeline(2, generator=[seeded(1), seeded(2)], output_type="pt")
    torch.testing.assert_close(pipeline(1, generator=[seeded(2)], output_type="pt").images[0], drawn.images[1])
    assert pipeline(latents=torch.zeros(2, 3)).images[0].size == (8, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.encode(torch.rand(1, 3, 8, 8)), r"\(B, 1, 8, 8\)"),
        (lambda p: p.encode(torch.full((1, 1, 8, 8), 255.0)), r"\[0, 1\]"),
        (lambda p: p.decode(torch.zeros(2, 4)), r"\(B, 3\)"),
        (lambda p: p(output_type="jpeg"), "output_type"),
        (lambda p: p(4, generator=[seeded(1), seeded(2)]), "2 generators were given for 4 images"),
        (lambda p: p(4, generator=(seeded(1),)), "1 generators were given for 4 images"),
        (lambda p: p(4, generator=[]), "0 generators"),
        (lambda p: p(1, generator=3), "torch.Generator"),
        (lambda p: p(2, generator=[1, 2]), "torch.Generator"),
        *((lambda p, n=n: p(n), "num_images must be a whole number") for n in (0, -1, 2.0, "2", None, True)),
        (lambda p: p(latents=torch.full((1, 3), torch.nan)), "latents hold NaN"),
        (lambda p: p(latents=torch.zeros(0, 3)), r"\(B, 3\)"),
        (lambda p: p(latents=np.zeros((1, 3))), "latents must be a tensor of floats, not ndarray"),
        (lambda p: p(latents=torch.full((1, 3), 1e38)), "gave NaN or infinite"),
        (lambda p: p.decode(torch.zeros(1, 3, dtype=torch.int64)), "not torch.int64"),
        (lambda p: p.encode(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)), r"not torch.uint8.*images.float\(\) / 255"),
        (lambda p: p.encode(torch.full((1, 1, 8, 8), torch.nan)), "images hold NaN"),
        (lambda p: p.encode(torch.full((1, 1, 8, 8), -torch.inf)), "images hold NaN or infinite"),
        (lambda p: p.encode(torch.zeros(0, 1, 8, 8)), r"\(B, 1, 8, 8\), not \(0, 1, 8, 8\)"),
        (lambda p: p.encode(torch.zeros(1, 8, 8)), r"\(B, 1, 8, 8\)"),
        (lambda p: p.encode([torch.zeros(1, 8, 8)]), "not list"),
        (lambda p: p.reconstruct(np.zeros((1, 1, 8, 8))), "not ndarray"),
        (lambda p: p.interpolate(torch.zeros(1, 8, 8), torch.zeros(1, 8, 9)), r"last must be \(B, 1, 8, 8\)"),
        (
            lambda p: p.interpolate(torch.zeros(1, 8, 8).byte(), torch.zeros(1, 8, 8)),
            "first must be a tensor of floats",
        ),
        (lambda p: p.interpolate(torch.zeros(1, 8, 8), torch.ones(1, 8, 8), 0), "num_steps"),
        (lambda p: p.interpolate(torch.zeros(1, 8, 8), torch.full((1, 8, 8), torch.nan)), "last hold NaN"),
    ],
)
def test_pipeline_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call(make_vae())


def test_numbers_and_generators_as_the_class_pipeline_takes_them():
    pipeline = make_vae()
    expected = pipeline(2, generator=[seeded(1), seeded(2)], output_type="pt").images
    for count in (np.int64(2), torch.tensor(2)):
        drawn = pipeline(count, generator=(seeded(1), seeded(2)), output_type="pt").images
        assert torch.equal(drawn, expected)
    assert torch.equal(
        pipeline(num_images_per_prompt=2, generator=[seeded(1), seeded(2)], output_type="pt")[0], expected
    )
    with pytest.raises(ValueError, match="batch_size is called num_images here"):
        pipeline(2, batch_size=2)


TRAVELLER = """
import sys
sys.modules["models"] = sys.modules["triptych"] = None
import torch
from diffusers import DiffusionPipeline
for folder, again in (("saved", "again"), ("again", "third")):
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    torch.save(pipeline(latents=torch.linspace(-1, 1, 6).view(2, 3), output_type="pt").images, folder + ".pt")
    pipeline.save_pretrained(again)
"""


def test_pipeline_travels(tmp_path):
    pipeline = make_vae()
    pipeline.save_pretrained(tmp_path / "original")
    shutil.copytree(tmp_path / "original", tmp_path / "saved")
    env = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = launched([sys.executable, "-c", TRAVELLER], tmp_path, env)
    assert done.returncode == 0, done.stderr
    expected = pipeline(latents=torch.linspace(-1, 1, 6).view(2, 3), output_type="pt").images
    for name in ("saved", "again"):
        torch.testing.assert_close(torch.load(tmp_path / f"{name}.pt"), expected)
