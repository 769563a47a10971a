"""What the page asks of the pipelines."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT
from huggingface_hub import SpaceCard
from PIL import Image

import pipelines
from space.visiting import PHOTO, SILLY, bad_picture, pixels, silly


def test_drawing_yields_every_step_and_ends_with_the_pipelines_own_image(loaded):
    steps = list(pipelines.draw(loaded["diffusion"], "ship", 4, 2.0, 5))
    assert [(step.index, step.count) for step in steps] == [(i, 4) for i in range(5)]
    image = loaded["diffusion"](
        "ship", num_inference_steps=4, guidance_scale=2.0, generator=torch.Generator().manual_seed(5)
    ).images[0]
    assert np.array_equal(pixels(steps[-1].predicted), pixels(image))
    noisy = [pixels(step.noisy).std() for step in steps]
    assert noisy[0] > 80 > noisy[-1], "it starts from noise"


def test_an_image_is_its_seeds_alone_whoever_else_draws(loaded):
    """Two visitors whose steps take turns, and a third who left in the middle, against each on their own."""
    asked = [("cat", 5, 3, 1), ("truck", 5, 1.5, 2)]
    alone = [[pixels(s.predicted) for s in pipelines.draw(loaded["diffusion"], *one)] for one in asked]
    leaver = pipelines.draw(loaded["diffusion"], "dog", 100, 3, 3)
    next(leaver)
    leaver.close()
    turns = zip(*(pipelines.draw(loaded["diffusion"], *one) for one in asked), strict=True)
    together = [[pixels(s.predicted) for s in one] for one in zip(*turns, strict=True)]
    assert all(
        np.array_equal(*frames) for pair in zip(alone, together, strict=True) for frames in zip(*pair, strict=True)
    )
    other = list(pipelines.draw(loaded["diffusion"], "cat", 5, 3, 2))[-1]
    assert not np.array_equal(pixels(other.predicted), alone[0][-1]), "the seed must matter"


def test_several_images_are_what_their_seeds_give_alone(loaded):
    together = [*pipelines.draw(loaded["diffusion"], "frog", 3, 2.0, 7, 3)][-1]
    for k, image in enumerate(together.images):
        alone = [*pipelines.draw(loaded["diffusion"], "frog", 3, 2.0, 7 + k)][-1].predicted
        assert np.abs(pixels(image).astype(int) - pixels(alone)).max() <= 1
    assert len(together.images) == 3 and np.array_equal(pixels(together.predicted), pixels(together.images[0]))
    for count in (0, 9, 1.5, None, "all"):
        with pytest.raises(ValueError, match="Images must be a whole number from 1 to 8"):
            next(pipelines.draw(loaded["diffusion"], "frog", 3, 2.0, 7, count))


@pytest.mark.parametrize(("change", "message"), SILLY, ids=lambda value: str(value)[:30])
def test_silly_numbers_are_refused_in_words(loaded, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        next(pipelines.draw(loaded["diffusion"], *silly(change)))


def test_the_plane_and_the_place_in_it(loaded):
    for place in ((0.5, 0.5), (0.1, 0.9), (0.73, 0.2)):
        assert pipelines.place_of(*pipelines.latents_at(place)) == pytest.approx(place, abs=1e-5)
    z1, z2 = pipelines.latents_at((1, 0))
    assert 2.9 < z1 <= 3.01 and 2.9 < z2 <= 3.01, "z1 grows to the right, z2 upwards; the sliders reach the corner"
    plane = pixels(pipelines.draw_plane(loaded["vae"]))
    cell = plane[3 * 28 : 4 * 28, 12 * 28 : 13 * 28].astype(int)
    digit = pixels(pipelines.decode(loaded["vae"], *pipelines.latents_at((12.5 / 20, 3.5 / 20)))).astype(int)
    assert plane.shape == (560, 560) and digit.max() > 128 and np.abs(cell - digit).max() <= 1


@pytest.mark.parametrize("place", [None, "here", [0.5], [0.5, "x"], [0.5, 1.5], [float("nan"), 0.5]])
def test_places_outside_the_plane_are_refused(place):
    with pytest.raises(ValueError, match="must be a number from 0 to 1"):
        pipelines.latents_at(place)


@pytest.mark.parametrize("z", [(None, 0.0), ("x", 0.0), (0.0, 5.0), (0.0, float("nan"))])
def test_points_outside_the_plane_are_refused(loaded, z):
    with pytest.raises(ValueError, match=r"z[12] must be a number from -4 to 4"):
        pipelines.decode(loaded["vae"], *z)


def test_noise_is_added_and_taken_out(loaded, tmp_path):
    photo = Image.open(PHOTO).crop((100, 40, 260, 160))
    photo.save(path := tmp_path / "photo.png")
    done = pipelines.clean(loaded["denoiser"], str(path), 25)
    assert done.before.size == done.after.size == photo.size
    noise = pixels(done.before) - pixels(photo).astype(float)
    assert np.square(noise).mean() ** 0.5 == pytest.approx(25, rel=0.05)
    before, after = map(float, re.findall(r"([\d.]+) dB", done.note))
    assert before == pytest.approx(20.2, abs=0.2) and after > before + 6
    again = pipelines.clean(loaded["denoiser"], str(path), 25)
    assert np.array_equal(pixels(again.before), pixels(done.before))
    assert np.array_equal(pixels(again.after), pixels(done.after))
    own = pipelines.clean(loaded["denoiser"], str(path), 0)
    assert np.array_equal(pixels(own.before), pixels(photo)) and own.note == ""


def test_pictures_of_every_kind_are_taken(loaded, tmp_path):
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        path = tmp_path / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}"
        colours.convert(mode).save(path)
        assert pipelines.clean(loaded["denoiser"], str(path), 0).after.size == (40, 30), mode
    exif = colours.getexif()
    exif[274] = 6  # the camera was turned
    colours.save(tmp_path / "turned.jpg", exif=exif)
    assert pipelines.clean(loaded["denoiser"], str(tmp_path / "turned.jpg"), 0).after.size == (30, 40)
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    assert pipelines.clean(loaded["denoiser"], str(tmp_path / "dot.png"), 10).after.size == (1, 1)


@pytest.mark.parametrize("size", [(12, 8), (1, 1), (700, 3)])
def test_a_picture_is_what_its_file_says(loaded, tmp_path, size):
    """16 bits, floats, transparency, a turned camera, frames: never white, black or another picture's colours."""
    width, height = size
    grey = np.random.default_rng(1).integers(0, 256, (height, width), dtype=np.uint8)
    colour = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    hidden = np.dstack([colour, np.full_like(grey, 255)])
    hidden[0, 0] = (200, 10, 10, 0)  # a colour that nobody sees
    on_white = colour.copy()
    on_white[0, 0] = 255
    exif = Image.Exif()
    exif[274] = 6
    first, second = Image.fromarray(colour), Image.fromarray(255 - colour)
    files = {
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 257), {}, grey, "more than 8 bits"),
        "deep.tif": (Image.fromarray(grey.astype(np.uint16) * 257), {}, grey, "more than 8 bits"),
        "floats.tif": (Image.fromarray(grey.astype(np.float32) / 255), {}, grey, "more than 8 bits"),
        "clear.png": (Image.fromarray(hidden), {}, on_white, "laid on white"),
        "clear.webp": (Image.fromarray(hidden), {"lossless": True}, on_white, "laid on white"),
        "moving.png": (first, {"save_all": True, "append_images": [second]}, colour, "the first"),
        "turned.png": (first, {"exif": exif}, np.rot90(colour, -1), ""),
        "print.tif": (
            Image.merge("CMYK", [*Image.fromarray(255 - colour).split(), Image.new("L", size)]),
            {},
            colour,
            "",
        ),
        "plain.bmp": (first, {}, colour, ""),
    }
    for name, (image, options, right, note) in files.items():
        image.save(tmp_path / name, **options)
        done = pipelines.clean(loaded["denoiser"], str(tmp_path / name), 0)
        right = right if right.ndim == 3 else np.repeat(right[..., None], 3, axis=2)
        assert np.abs(pixels(done.before).astype(int) - right).max() <= 1, name
        assert done.after.size == done.before.size and note in done.note, name
        assert note or not done.note, name


def test_of_a_large_picture_the_middle_is_taken(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines, "MAX_SIDE", 64)
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 200, 3), dtype=np.uint8))
    large.save(tmp_path / "large.png")
    done = pipelines.clean(loaded["denoiser"], str(tmp_path / "large.png"), 0)
    assert np.array_equal(pixels(done.before), pixels(large)[:, 68:132])
    assert done.note == "Your picture has 200 x 50 pixels; this is its middle, 64 x 50."


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "Give a picture first"),
        ("missing", "can't be read as a picture"),
        ("empty", "can't be read as a picture"),
        ("text", "can't be read as a picture"),
        ("drawing", "can't be read as a picture"),
        ("torn", "can't be read as a picture"),
        ("huge", "more than 50 million pixels"),
        ("monstrous", "more than 50 million pixels"),
        ("measured", "can't be read as a picture: measured.tif .* floats from -3 to 900"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_picture_is_refused_in_words(loaded, tmp_path, kind, message):
    with pytest.raises(ValueError, match=message):
        pipelines.clean(loaded["denoiser"], bad_picture(kind, tmp_path), 0)


@pytest.mark.parametrize("sigma", [-1, 56, None, "much", float("nan")])
def test_silly_noise_is_refused(loaded, sigma):
    with pytest.raises(ValueError, match="Noise to add must be a number from 0 to 55"):
        pipelines.clean(loaded["denoiser"], str(PHOTO), sigma)


def test_where_the_models_are_looked_for(tmp_path, monkeypatch):
    asked = []
    shutil.copytree(ROOT / "pretrained/vae-mnist-z2", tmp_path / "vae-mnist-z2")
    monkeypatch.setattr(
        pipelines.DiffusionPipeline, "from_pretrained", lambda *args, **kwargs: asked.append((args[0], kwargs)) or 1 / 0
    )
    for where, found in (
        ("an-account", "an-account/vae-mnist-z2"),
        (str(tmp_path), f"{tmp_path}/vae-mnist-z2"),
        ("", f"{ROOT}/pretrained/vae-mnist-z2"),
    ):
        monkeypatch.setenv("TRIPTYCH_MODELS", where)
        with pytest.raises(ValueError, match="could not be loaded: division by zero"):
            pipelines.load("vae")
        assert asked.pop() == (found, {"trust_remote_code": True})
    for where in (str(tmp_path / "vae-mnist-z2"), str(tmp_path / "nowhere"), "some/where"):
        monkeypatch.setenv("TRIPTYCH_MODELS", where)
        with pytest.raises(ValueError, match=r"no pipeline in `.*vae-mnist-z2`.*TRIPTYCH_MODELS"):
            pipelines.load("vae")
    assert asked == []


def test_the_card_is_a_spaces(tmp_path):
    card = SpaceCard.load(ROOT / "space/README.md")
    assert card.data.sdk == "gradio" and card.data.license == "apache-2.0"
    assert (ROOT / "space" / card.data.app_file).is_file() and len(card.data.short_description) <= 60
    extras = re.findall(r'"gradio>=([\d.]+),<(\d+)"', (ROOT / "pyproject.toml").read_text())
    version = tuple(map(int, card.data.sdk_version.split(".")))
    assert extras
    for floor, ceiling in extras:
        assert tuple(map(int, floor.split("."))) <= version < (int(ceiling),)
