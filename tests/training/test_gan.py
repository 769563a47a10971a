"""The denoising GAN: its losses against torch, its networks, its training under accelerate, its pipeline elsewhere."""

from __future__ import annotations

from triptych.cli import command

import importlib
import json
import shutil
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import ROOT, environment, launched
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from stand_ins import gan_flags, make_denoiser
from torch.nn import functional as F

from models.gan import DenoisingUNet, PatchDiscriminator
from models.pipeline_denoiser import DenoiserPipeline, fade, starts
from triptych.config.base import NoiseConfig
from triptych.config.gan import GanConfig
from triptych.data.degradations import degrade_by_index
from triptych.data.image_set import to_images
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.losses.gan import (
    discriminator_accuracies,
    discriminator_loss,
    feature_matching,
    generator_loss,
    r1_penalty,
    restoration_loss,
)
from triptych.training.run import Run

KINDS = ["non_saturating", "least_squares", "hinge", "relativistic"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- losses ------------------------------------------------------------------------------------------------


def test_non_saturating_is_binary_cross_entropy():
    real, fake = torch.randn(2, 4, 1, 3, 3, generator=seeded())
    ones, zeros = torch.ones_like(real), torch.zeros_like(real)
    bce = F.binary_cross_entropy_with_logits
    torch.testing.assert_close(discriminator_loss("non_saturating", real, fake), bce(real, ones) + bce(fake, zeros))
    torch.testing.assert_close(generator_loss("non_saturating", real, fake), bce(fake, ones))


def test_least_squares_and_hinge_are_torchs():
    real, fake = torch.randn(2, 4, 1, 3, 3, generator=seeded())
    ones = torch.ones_like(real)
    expected = 0.5 * (F.mse_loss(real, ones) + F.mse_loss(fake, 0 * ones))
    torch.testing.assert_close(discriminator_loss("least_squares", real, fake), expected)
    torch.testing.assert_close(generator_loss("least_squares", real, fake), 0.5 * F.mse_loss(fake, ones))
    hinge = F.hinge_embedding_loss
    expected = hinge(1 + real * 0 + (real - 1), -ones, margin=1.0) + hinge(-fake, -ones, margin=1.0)
    torch.testing.assert_close(discriminator_loss("hinge", real, fake), expected)
    torch.testing.assert_close(generator_loss("hinge", real, fake), -fake.mean())


def test_relativistic_depends_on_differences_alone():
    real, fake = torch.randn(2, 4, 1, 3, 3, generator=seeded())
    for loss in (discriminator_loss, generator_loss):
        torch.testing.assert_close(loss("relativistic", real, fake), loss("relativistic", real + 7, fake + 7))
    torch.testing.assert_close(
        discriminator_loss("relativistic", real, fake), generator_loss("relativistic", fake, real)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_each_side_pulls_its_own_way(kind):
    """The discriminator raises real and lowers fake logits; the generator raises the fake ones."""
    real, fake = (torch.full((8,), 0.3, requires_grad=True) for _ in range(2))
    d_real, d_fake = torch.autograd.grad(discriminator_loss(kind, real, fake), (real, fake))
    (g_fake,) = torch.autograd.grad(generator_loss(kind, real, fake), fake)
    assert (d_real < 0).all() and (d_fake > 0).all() and (g_fake < 0).all()
    good = discriminator_accuracies(kind, torch.full((8,), 2.0), torch.full((8,), -2.0))
    bad = discriminator_accuracies(kind, torch.full((8,), -2.0), torch.full((8,), 2.0))
    assert good == (1, 1) and bad == (0, 0)


def test_r1_of_a_linear_judge_is_half_its_squared_weight():
    weight = torch.randn(1, 3, 4, 4, generator=seeded()).requires_grad_(True)
    images = torch.randn(5, 3, 4, 4, generator=seeded(1)).requires_grad_(True)
    penalty = r1_penalty((images * weight).flatten(1).sum(1), images)
    torch.testing.assert_close(penalty, 0.5 * weight.square().sum())
    torch.testing.assert_close(torch.autograd.grad(penalty, weight)[0], weight)


def test_restoration_losses_are_torchs():
    a, b = torch.randn(2, 3, 1, 4, 4, generator=seeded())
    torch.testing.assert_close(restoration_loss("l1", a, b), F.l1_loss(a, b))
    torch.testing.assert_close(restoration_loss("l2", a, b), F.mse_loss(a, b))
    torch.testing.assert_close(restoration_loss("charbonnier", a, b), F.l1_loss(a, b), atol=1e-3, rtol=0)
    assert feature_matching([a, b], [a, b]) == 0
    torch.testing.assert_close(feature_matching([a, a], [a, b]), F.l1_loss(a, b) / 2)


# ---- networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (13, 29), (3, 5), (32, 32)])
@pytest.mark.parametrize(("channels", "unshuffle"), [(1, 1), (3, 2)])
def test_any_size_goes_in_and_comes_out(size, channels, unshuffle):
    network = DenoisingUNet(channels, (8, 16, 16), 1, unshuffle)
    noisy = torch.randn(2, channels, *size, generator=seeded())
    restored = network(noisy)
    assert restored.shape == noisy.shape
    restored.square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_odd_sizes_are_padded_by_repeating_the_edge():
    network = DenoisingUNet(1, (8, 16), 1, 2)
    noisy = torch.randn(1, 1, 13, 29, generator=seeded())
    padded = F.pad(noisy, (0, 3, 0, 3), mode="replicate")
    torch.testing.assert_close(network(noisy), network(padded)[..., :13, :29])


def test_without_biases_it_is_homogeneous():
    """f(a x) = a f(x): Mohan et al. 2020, section 4."""
    noisy = torch.randn(1, 3, 16, 16, generator=seeded())
    plain, biased = (DenoisingUNet(3, (8, 16), 1, 2, bias=bias) for bias in (False, True))
    torch.testing.assert_close(plain(3 * noisy), 3 * plain(noisy))
    assert not torch.allclose(biased(3 * noisy), 3 * biased(noisy))


def test_noise_prediction_is_subtracted():
    noisy = torch.randn(1, 3, 8, 8, generator=seeded())
    as_noise, as_sample = (DenoisingUNet(3, (8,), 1, 1, kind) for kind in ("noise", "sample"))
    as_sample.load_state_dict(as_noise.state_dict())
    torch.testing.assert_close(as_noise(noisy), noisy - as_sample(noisy))
    with pytest.raises(ValueError, match="prediction_type"):
        DenoisingUNet(prediction_type="velocity")


@pytest.mark.parametrize("conditional", [False, True])
def test_the_judge_sees_patches_and_the_noisy_image_if_asked(conditional):
    judge = PatchDiscriminator(3, (8, 16, 16), conditional).eval()
    images, noisy = torch.randn(2, 2, 3, 32, 32, generator=seeded())
    logits, features = judge(images, noisy)
    assert logits.shape == (2, 1, 8, 8) and [f.shape[1] for f in features] == [8, 16, 16]
    assert torch.equal(judge(images, 0 * noisy)[0], logits) != conditional
    weight = judge.blocks[0].weight.flatten(1)
    assert torch.linalg.matrix_norm(weight, 2) < 1.5, "spectral norm holds the layer's gain near 1"


# ---- pipeline ----------------------------------------------------------------------------------------------


def test_images_of_all_kinds_and_sizes():
    pipeline = make_denoiser()
    generator = np.random.default_rng(0)
    pictures = [
        Image.fromarray(generator.integers(0, 256, (h, w, 3), dtype=np.uint8))
        for h, w in ((20, 31), (16, 16), (20, 31))
    ]
    restored = pipeline(pictures).images
    assert [r.size for r in restored] == [p.size for p in pictures]
    alone = pipeline(pictures[2]).images[0]
    assert np.abs(np.asarray(alone, dtype=int) - np.asarray(restored[2], dtype=int)).max() <= 1
    tensor = torch.stack([torch.from_numpy(np.asarray(pictures[i])).permute(2, 0, 1) / 255 for i in (0, 2)])
    as_tensors = pipeline(tensor, output_type="pt").images
    expected = (pipeline.denoiser(tensor * 2 - 1) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(torch.stack(as_tensors), expected)
    assert np.abs(np.asarray(restored[0]) / 255 - pipeline(tensor, output_type="np").images[0]).max() < 0.01
    grey = make_denoiser(channels=1)(pictures[0]).images[0]
    assert grey.mode == "L" and grey.size == pictures[0].size


def test_files_and_folders(tmp_path):
    pipeline, generator = make_denoiser(), np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 256, (12, 9 + i, 3), dtype=np.uint8)) for i in range(2)]
    for name, picture in zip("ab", pictures, strict=True):
        picture.save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    expected = [np.asarray(image) for image in pipeline(pictures).images]
    for source, wanted in ((tmp_path, expected), (str(tmp_path / "b.png"), expected[1:])):
        found = pipeline(source).images
        assert len(found) == len(wanted) and all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    (tmp_path / "c.png").write_bytes(b"no image")
    for source, message in ((tmp_path, "c.png cannot be read"), (tmp_path / "none.png", "cannot be read")):
        with pytest.raises(ValueError, match=message):
            pipeline(source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image files"):
        pipeline(tmp_path / "empty")


RAMP = np.tile(np.linspace(0, 255, 12).round().astype(np.uint8), (9, 1))  # (9, 12), grey
COLOUR = np.stack([RAMP, RAMP[:, ::-1], np.full_like(RAMP, 90)], axis=2)


def shown(source: object, channels: int = 3) -> np.ndarray:
    """What the denoiser sees of an image: by a network that takes nothing away."""
    pipeline = DenoiserPipeline(DenoisingUNet(channels, (8,), 1, 1))
    with torch.no_grad():
        for parameter in pipeline.denoiser.parameters():
            parameter.zero_()
    return np.asarray(pipeline(source).images[0])


def bits_16(mode: str = "I;16") -> Image.Image:
    values = np.round(RAMP / 255 * 65535).astype("<u2" if mode == "I;16" else ">u2")
    return Image.frombytes(mode, RAMP.shape[::-1], values.tobytes())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (3, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_one_pixel_or_one_row(size, channels):
    levels = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size) * 5
    expected = levels if channels == 1 else np.stack([levels] * 3, axis=2)
    assert np.array_equal(shown(Image.fromarray(levels), channels), expected)


def test_a_network_that_gives_nan_is_refused():
    pipeline = make_denoiser()
    with torch.no_grad():
        next(pipeline.denoiser.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="gave NaN"):
        pipeline(torch.rand(3, 8, 8))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jp2", None])
def test_16_bits_are_brought_to_8(tmp_path, suffix):
    source = bits_16()
    if suffix:
        source.save(tmp_path / f"deep{suffix}")
        source = tmp_path / f"deep{suffix}"
    assert np.array_equal(shown(source, channels=1), RAMP)
    assert np.array_equal(shown(source), np.stack([RAMP] * 3, axis=2))


def test_other_depths(tmp_path):
    """Big-endian; floats in [0, 1]; 16 bits as Pillow's mode I; a TIFF that says it has 12 bits."""
    bits_16("I;16B").save(tmp_path / "big.tif")
    Image.fromarray(RAMP.astype(np.float32) / 255).save(tmp_path / "float.tif")
    for name in ("big.tif", "float.tif"):
        assert np.array_equal(shown(tmp_path / name, channels=1), RAMP), name
    wide = Image.fromarray(np.round(RAMP / 255 * 65535).astype(np.int32))
    wide.format = "PNG"  # as a file of one that older versions of Pillow open
    assert np.array_equal(shown(wide, channels=1), RAMP)
    for values, name in ((RAMP.astype(np.float32), "floats"), (RAMP.astype(np.int32), "integers")):
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
        with pytest.raises(
            ValueError, match=rf"{name}.tif cannot be read .*holds {name} .*mode [FI].*white is unknown"
        ):
            shown(tmp_path / f"{name}.tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA", "La", "RGBa", "tRNS"])
def test_what_is_transparent_is_white(tmp_path, mode):
    hidden = np.zeros((9, 12), bool)
    hidden[:, :5] = True
    alpha = Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8))
    colour = mode in ("RGBA", "RGBa", "tRNS")
    expected = np.where(hidden[..., None], 255, COLOUR if colour else RAMP[..., None])
    image = Image.fromarray(COLOUR if colour else RAMP)
    if mode == "tRNS":  # one colour is the transparent one
        array = COLOUR.copy()
        array[hidden] = (1, 2, 3)
        Image.fromarray(array).save(tmp_path / "key.png", transparency=(1, 2, 3))
        assert np.array_equal(shown(tmp_path / "key.png"), expected)
        return
    if mode in ("P", "PA"):
        image = image.convert("RGB").quantize(32)
        expected = np.where(hidden[..., None], 255, np.asarray(image.convert("RGB")))
    if mode == "P":
        pixels = np.asarray(image).copy()
        pixels[hidden] = 40
        palette = image.getpalette()
        image = Image.fromarray(pixels, "P")
        image.putpalette(palette + [0] * (768 - len(palette)))
        image.info["transparency"] = 40
    else:
        image.putalpha(alpha)
        image = image.convert(mode) if mode in ("RGBa", "La") else image
    assert image.mode == mode
    assert np.abs(shown(image).astype(int) - expected).max() <= 1
    if mode in ("RGBA", "LA", "P"):
        image.save(tmp_path / "file.png")
        assert np.abs(shown(tmp_path / "file.png").astype(int) - expected).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV"])
def test_8_bits_are_shown_as_pillow_converts_them(mode):
    # Pillow converts from LAB, not to it
    image = Image.new("LAB", (12, 9), (120, 140, 90)) if mode == "LAB" else Image.fromarray(COLOUR).convert(mode)
    assert np.array_equal(shown(image), np.asarray(image.convert("RGB")))
    assert np.array_equal(shown(image, channels=1), np.asarray(image.convert("RGB").convert("L")))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_images_stand_as_the_camera_was_held(tmp_path, suffix):
    upright = Image.fromarray(COLOUR)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it a quarter clockwise to see it upright
    lossless = (
        {"lossless": True} if suffix == ".webp" else {"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}
    )
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / f"turned{suffix}", exif=exif, **lossless)
    for source in (tmp_path / f"turned{suffix}", Image.open(tmp_path / f"turned{suffix}")):
        seen = shown(source).astype(int)
        assert seen.shape == COLOUR.shape and np.abs(seen - COLOUR).mean() < 5


def test_a_folder_gives_every_still_picture_that_pillow_opens(tmp_path):
    names = [
        f"{i}{suffix}" for i, suffix in enumerate((".png", ".gif", ".JPG", ".avif", ".webp", ".ppm", ".tga", ".jp2"))
    ]
    for name in names:
        Image.fromarray(COLOUR).save(tmp_path / name)
    for name in ("a.pdf", "b.h5", "c.mpg", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"no picture")
    assert len(make_denoiser()(tmp_path).images) == len(names)
    assert len(make_denoiser()([tmp_path / names[0], str(tmp_path / names[2])]).images) == 2


def test_tiles_leave_no_seam():
    """Where a quarter of the overlap is more than the network sees, tiles give what the whole image gives."""
    image = torch.rand(3, 331, 150, generator=seeded())
    pipeline = make_denoiser()
    whole = pipeline(image, tile=400, output_type="pt").images[0]
    torch.testing.assert_close(pipeline(image, tile=208, overlap=104, output_type="pt").images[0], whole)
    with torch.no_grad():
        for parameter in pipeline.denoiser.parameters():
            parameter.zero_()
    torch.testing.assert_close(pipeline(image, tile=32, overlap=7, output_type="pt").images[0], image)


def test_small_tiles_are_right_or_refused():
    """A network that answers nothing gives back what it got; a tile reaches from one point of its grid to the next."""
    pipeline = DenoiserPipeline(DenoisingUNet(3, (8, 8, 8), 1, 2))  # a grid of 8 pixels
    with torch.no_grad():
        for parameter in pipeline.denoiser.parameters():
            parameter.zero_()
    image, small = torch.rand(3, 23, 37, generator=seeded()), torch.rand(3, 5, 4, generator=seeded())
    for tile in (1, 7, 8, 9, 11, 16, 24):
        for overlap in {0, 1, 2, tile // 2} - set(range(tile // 2 + 1, 3)):
            if tile >= overlap + 8:
                torch.testing.assert_close(
                    pipeline(image, tile=tile, overlap=overlap, output_type="pt").images[0], image
                )
            else:
                with pytest.raises(ValueError, match=rf"tile must be at least overlap \+ 8 = {overlap + 8}"):
                    pipeline(image, tile=tile, overlap=overlap)
    assert torch.equal(pipeline(small, tile=6, overlap=2, output_type="pt").images[0], small), "it is in one piece"


@pytest.mark.parametrize("align", [1, 4])
@pytest.mark.parametrize(("length", "tile", "overlap"), [(10, 16, 4), (100, 32, 8), (33, 32, 16), (64, 32, 0)])
def test_tiles_cover_everything(length, tile, overlap, align):
    begins = starts(length, tile, overlap, align)
    total = torch.zeros(length)
    for begin in begins:
        size = min(tile, length - begin)
        assert size > 0 and begin % align == 0
        total[begin : begin + size] += fade(begin, size, length, overlap)
    assert (total > 0).all() and begins[-1] + tile >= length
    assert all(b - a <= max(align, tile - overlap) for a, b in pairwise(begins))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p([]), "No image"),
        (lambda p: p(torch.rand(2, 1, 8, 8)), r"\(3, H, W\)"),
        (lambda p: p(torch.rand(3, 8, 8), output_type="jpeg"), "output_type"),
        (lambda p: p(torch.rand(3, 8, 8), tile=8, overlap=5), "overlap"),
        (lambda p: p(torch.rand(3, 8, 8), tile=8.0), "tile"),
        (lambda p: p(torch.rand(3, 8, 8), batch_size="4"), "batch_size"),
        (lambda p: p((torch.rand(3, 8, 8) * 255).byte()), r"not torch.uint8: `images.float\(\) / 255`"),
        (lambda p: p(torch.rand(2, 3, 8, 8) * 255), "Divide 8-bit values by 255"),
        (lambda p: p([torch.rand(3, 8, 8), torch.full((3, 8, 8), torch.nan)]), "none of them NaN"),
        (lambda p: p(torch.full((3, 8, 8), -torch.inf)), "about"),
        (lambda p: p(torch.rand(3, 0, 8)), r"\(3, 0, 8\)"),
        (lambda p: p(torch.rand(8, 8)), r"\(3, H, W\)"),
        (lambda p: p(np.zeros((8, 8, 3), np.uint8)), "not ndarray.*PIL.Image.fromarray"),
        (lambda p: p([None]), "not NoneType"),
        (lambda p: p(torch.rand(3, 8, 8), image=torch.rand(3, 8, 8)), "image is called images here"),
    ],
)
def test_pipeline_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call(make_denoiser())


TRAVELLER = """
import sys
sys.modules["models"] = sys.modules["triptych"] = None
import torch
from diffusers import DiffusionPipeline
for folder, again in (("saved", "again"), ("again", "third")):
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    image = torch.linspace(0, 1, 3 * 20 * 20).view(3, 20, 20)
    torch.save(pipeline(image, output_type="pt").images[0], folder + ".pt")
    pipeline.save_pretrained(again)
"""


def test_pipeline_travels(tmp_path):
    pipeline = make_denoiser()
    pipeline.save_pretrained(tmp_path / "original")
    shutil.copytree(tmp_path / "original", tmp_path / "saved")
    env = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = launched([sys.executable, "-c", TRAVELLER], tmp_path, env)
    assert done.returncode == 0, done.stderr
    expected = pipeline(torch.linspace(0, 1, 3 * 20 * 20).view(3, 20, 20), output_type="pt").images[0]
    for name in ("saved", "again"):
        torch.testing.assert_close(torch.load(tmp_path / f"{name}.pt"), expected)


# ---- training ----------------------------------------------------------------------------------------------


@pytest.fixture
def main(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    script = importlib.import_module("train_gan")

    def call(**changes: str) -> list[dict]:
        monkeypatch.setattr(sys, "argv", ["train_gan.py", *gan_flags(**changes)])
        configs = []
        command(lambda config: configs.append(config), GanConfig)
        script.main(configs[0])
        return [json.loads(line) for line in (tmp_path / f"runs/{changes['name']}/log.jsonl").read_text().splitlines()]

    return call


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_is_logged_apart(main, kind):
    rows = main(name="x", adversarial=kind, run__log_every=4)
    always = {"loss_generator", "loss_discriminator", "reconstruction", "psnr", "accuracy_real", "accuracy_restored"}
    assert all(always | {"grad_norm_generator", "grad_norm_discriminator", "r1"} <= row.keys() for row in rows)
    assert "adversarial" not in rows[0], "in the warm-up the generator minimises the reconstruction alone"
    for row in rows[1:]:
        parts = row["reconstruction"] + 0.01 * row["adversarial"] + 0.1 * row["feature_matching"]
        assert row["loss_generator"] == pytest.approx(parts, rel=1e-4)


def test_regression_has_no_game(main, tmp_path):
    """adversarial_weight 0: no discriminator anywhere in the log, and its weights stay as they were."""
    rows = main(name="x", adversarial_weight="0", feature_matching_weight="0")
    assert not any(key in row for row in rows for key in ("loss_discriminator", "adversarial", "accuracy_real"))
    states = [torch.load(p, weights_only=False) for p in (tmp_path / "runs/x/checkpoints").glob("*12/optimizer*.bin")]
    assert sum(bool(state["state"]) for state in states) == 2, "Muon and AdamW of the generator; nothing of the judge"


def test_the_generator_never_trains_the_judge(main, monkeypatch):
    """With a learning rate of next to nothing for the judge, only its own step could move it; gradients don't leak."""
    script = importlib.import_module("train_gan")
    seen = []
    original = script.take_step

    def watch(run, model, optimizers, norm, name):
        if name == "generator":
            judge = run.accelerator._models[1]
            seen.append(all(p.grad is None or not p.grad.any() for p in judge.parameters()))
        original(run, model, optimizers, norm, name)

    monkeypatch.setattr(script, "take_step", watch)
    main(name="x", gradient_accumulation_steps="1")
    assert seen and all(seen)


def test_training_restores(main, tmp_path):
    """Regression on the digits: far better than doing nothing, on test images it has not seen."""
    main(
        name="x",
        adversarial_weight="0",
        feature_matching_weight="0",
        num_updates="300",
        optimizer__name="adamw",
        optimizer__lr="2e-3",
        batch_size="32",
        gradient_accumulation_steps="1",
        generator__pixel_unshuffle="1",
        noise__sigma="[50, 50]",
        horizontal_flip="false",
    )
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "runs/x/pipeline", trust_remote_code=True)
    config = GanConfig(noise=NoiseConfig(sigma=(50, 50)))
    clean = to_images(load_images(config.data).__getitems__(range(200))["pixels"])
    noisy = degrade_by_index(clean, range(200), config.noise, seed=9)
    restored = torch.stack(pipeline(noisy / 2 + 0.5, output_type="pt").images) * 2 - 1
    before, after = ((x - clean).square().mean() for x in (noisy, restored))
    assert after < before / 2, f"{10 * torch.log10(before / after):.1f} dB gained"


def test_resume_is_exact_for_both_networks(main, tmp_path):
    whole = main(name="whole")
    original = Run.positions

    def dies(self, size):
        if self.update == 7:
            raise KeyboardInterrupt
        return original(self, size)

    Run.positions = dies
    try:
        with pytest.raises(KeyboardInterrupt):
            main(name="broken")
    finally:
        Run.positions = original
    assert main(name="broken", resume="latest") == whole
    for name in ("model.safetensors", "model_1.safetensors"):
        a, b = (load_file(tmp_path / f"runs/{run}/checkpoints/update_00000012/{name}") for run in ("whole", "broken"))
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_bad_input(main):
    for wrong in (
        {"noise__sigma": "[-5, 5]"},
        {"noise__sigma": "[0, 300]"},
        {"adversarial_weight": "0"},
        {"generator__prediction_type": "velocity"},
    ):
        with pytest.raises(SystemExit):
            main(name="x", **wrong)
    with pytest.raises(UserError, match="does not exist"):
        main(name="x", data__path="./nothing")


def test_the_demo_config_parses(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--config", str(ROOT / "configs/demo/gan_digits.yaml")])
    configs = []
    command(lambda config: configs.append(config), GanConfig)
    assert configs[0].noise.sigma == (50, 50)


def test_restoring_files(tmp_path, capsys):
    restore = importlib.import_module("restore").main
    make_denoiser().save_pretrained(tmp_path / "pipeline")
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    Image.new("RGB", (40, 23), "red").save(source / "a.jpg")
    Image.new("RGBA", (17, 17), "blue").save(source / "sub/b.png")
    (source / "broken.png").write_bytes(b"no image")
    (source / "notes.txt").write_text("left alone")
    restore(str(tmp_path / "pipeline"), source, tmp_path / "out")
    sizes = {str(p.relative_to(tmp_path / "out")): Image.open(p).size for p in (tmp_path / "out").rglob("*.png")}
    assert sizes == {"a.png": (40, 23), "sub/b.png": (17, 17)}
    said = capsys.readouterr()
    assert "2 of 3 images" in said.out and "broken.png cannot be read" in said.err
    restore(str(tmp_path / "pipeline"), source / "a.jpg", tmp_path / "one")
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "one/a.png")), np.asarray(Image.open(tmp_path / "out/a.png"))
    )
    for arguments, message in (
        ((source / "nothing", tmp_path / "x"), "does not exist"),
        ((source, tmp_path / "out"), "not empty"),
        ((tmp_path / "one/../pipeline/denoiser", tmp_path / "x"), "holds no images"),
    ):
        with pytest.raises(UserError, match=message):
            restore(str(tmp_path / "pipeline"), *arguments)
    Image.new("RGB", (8, 8)).save(source / "a.png")
    with pytest.raises(UserError, match="written twice"):
        restore(str(tmp_path / "pipeline"), source, tmp_path / "x")
