"""The denoiser's pipeline: images of every kind and size, files, tiles, refusals; elsewhere it answers the same."""

from __future__ import annotations

import shutil
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import environment, launched
from PIL import Image
from stand_ins import make_denoiser, seeded

from models.gan import DenoisingUNet
from models.pipeline_denoiser import DenoiserPipeline, fade, starts


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
    tensor = torch.stack([torch.from_numpy(np.array(pictures[i])).permute(2, 0, 1) / 255 for i in (0, 2)])
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
