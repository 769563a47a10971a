"""One decoder: every kind of pixel scaled honestly or refused by name, whatever the file's format or container."""

from __future__ import annotations

import importlib
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from models import opening
from models.gan import DenoisingUNet
from models.pipeline_denoiser import DenoiserPipeline
from triptych.config.base import DataConfig
from triptych.data.decoding import FORMATS, SUFFIXES, DecodingError, Header, decode, read_header, resize, to_channels
from triptych.data.image_set import ImageSet
from triptych.data.sources import load_images
from triptych.errors import UserError

GREY = np.array([[80, 126], [43, 255]], np.uint8)  # what it must look like, whatever it is stored as


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: np.ndarray, colour_type: int = 0, before: bytes = b"", behind: bytes = b"") -> bytes:
    """A PNG of 16 bits, written by hand: Pillow writes only grey ones."""
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [chunk(b"IHDR", head), before, chunk(b"IDAT", zlib.compress(rows)), behind, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(values: np.ndarray, bits: int, photometric: int = 1) -> bytes:
    """A grey TIFF of 16-bit words, little-endian, that says how many bits count."""
    tags = {256: values.shape[1], 257: values.shape[0], 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: values.shape[0], 279: values.size * 2}
    pixels = values.astype("<u2").tobytes()
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)


def saved(image: Image.Image, kind: str, **how) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


SIXTEEN = GREY.astype(np.uint16) * 257
DEEP = {
    "png": saved(Image.fromarray(SIXTEEN), "PNG"),
    "png, by hand": png(SIXTEEN),
    "tiff": saved(Image.fromarray(SIXTEEN), "TIFF"),
    "tiff, big-endian": saved(Image.frombytes("I;16B", (2, 2), SIXTEEN.astype(">u2").tobytes()), "TIFF"),
    "tiff, 0 is white": tiff(65535 - SIXTEEN, 16, photometric=0),
    "pgm": b"P5 2 2 65535\n" + SIXTEEN.astype(">u2").tobytes(),
    "pgm up to 1020": b"P5 2 2 1020\n" + (GREY.astype(np.uint16) * 4).astype(">u2").tobytes(),
    "jpeg 2000": saved(Image.fromarray(SIXTEEN), "JPEG2000"),
    "float tiff": saved(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
    "8 bits": saved(Image.fromarray(GREY), "PNG"),
    "grey and opaque": saved(Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (2, 2), 255)]), "PNG"),
}


@pytest.mark.parametrize("content", DEEP.values(), ids=DEEP)
def test_depths_are_scaled_to_8_bits(content):
    assert np.array_equal(decode(content)[..., 0], GREY)
    assert read_header(content).grey and read_header(content).size == (2, 2)


def test_twelve_bits_of_a_tiff_that_says_so():
    twelve = (GREY.astype(np.uint32) * 4095 + 127) // 255
    packed = b"".join(((int(a) << 12) + int(b)).to_bytes(3, "big") for a, b in twelve)
    content = tiff(twelve, 12).replace(twelve.astype("<u2").tobytes(), packed + b"..")
    assert np.array_equal(decode(content)[..., 0], GREY)


REFUSED = {
    "32 bits": (saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "mode I, TIFF"),
    "floats up to 255": (saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "floats from 43 to 255"),
    "not a number": (saved(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"), "floats from nan"),
    "below zero": (saved(Image.fromarray(np.full((2, 2), -0.5, np.float32)), "TIFF"), "floats from -0.5"),
    "no image": (b"hello", "no image"),
    "nothing": (b"", "no image"),
    "torn": (
        saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)), "PNG")[:900],
        "trunc",
    ),
    "a drawing": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no image"),
}


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_known_white_is_refused_by_name(content, reason):
    with pytest.raises(DecodingError, match=reason):
        decode(content)


def test_a_bomb_is_named(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    content = saved(Image.new("L", (5, 5)), "PNG")
    for read in (read_header, decode):
        with pytest.raises(DecodingError, match="more than 20 pixels; scale it down"):
            read(content)


def transparent(mode: str) -> bytes:
    """One pixel that is to be seen, grey 100, and one that is hidden, dark."""
    rgba = Image.fromarray(np.array([[[100, 100, 100, 255], [10, 10, 10, 0]]], np.uint8))
    if mode == "P":
        image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
        image.putpalette([100, 100, 100, 10, 10, 10])
        return saved(image, "PNG", transparency=1)
    if mode in ("L", "RGB"):
        return saved(rgba.convert(mode), "PNG", transparency=10 if mode == "L" else (10, 10, 10))
    if mode == "RGBa":
        return saved(rgba, "TIFF", tiffinfo={338: 1})  # colours already multiplied by alpha
    return saved(rgba.convert(mode), "PNG")


TRANSPARENT = {mode: transparent(mode) for mode in ("RGBA", "LA", "P", "L", "RGB", "RGBa")}
TRANSPARENT |= {
    "16 bits": png(np.array([[100 * 257, 10 * 257]]), before=chunk(b"tRNS", struct.pack(">H", 10 * 257))),
    "16 bits of colour": png(
        np.array([[100 * 257] * 3 + [10 * 257] * 3]).reshape(1, 2, 3),
        2,
        before=chunk(b"tRNS", struct.pack(">HHH", *[10 * 257] * 3)),
    ),
    "16 bits and alpha": png(np.array([[[100 * 257] * 3 + [65535], [10 * 257] * 3 + [0]]]), 6),
    "webp": saved(Image.fromarray(np.array([[[100] * 3 + [255], [10] * 3 + [0]]], np.uint8)), "WEBP", lossless=True),
}


@pytest.mark.parametrize("content", TRANSPARENT.values(), ids=TRANSPARENT)
def test_transparency_is_laid_on_white(content):
    pixels = decode(content)
    assert np.unique(pixels[0, 0]).tolist() == [100] and np.unique(pixels[0, 1]).tolist() == [255]


def test_half_transparent_colours_mix_with_white():
    content = saved(Image.new("RGBA", (1, 1), (0, 0, 200, 51)), "PNG")
    assert decode(content)[0, 0].tolist() == [204, 204, 244]


def test_colour_spaces():
    red = Image.new("RGB", (8, 8), (220, 20, 20))
    lab = ImageCms.profileToProfile(
        red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    for content in (
        saved(red.convert("CMYK"), "TIFF"),
        saved(red.convert("CMYK"), "JPEG", quality=100),
        saved(red.convert("P", palette=Image.Palette.ADAPTIVE), "GIF"),
        saved(lab, "TIFF"),
        saved(red, "BMP"),
        saved(red, "JPEG2000"),
        saved(red, "QOI"),
        saved(red, "WEBP", lossless=True),
        png(np.full((8, 8, 3), [220 * 257, 20 * 257, 20 * 257]), 2),
    ):
        assert np.abs(decode(content)[4, 4].astype(int) - [220, 20, 20]).max() <= 6
        assert not read_header(content).grey


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_as_the_camera_was_held(kind, orientation):
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8] = 255  # the corner that tells
    exif = Image.Exif()
    exif[274] = orientation
    content = saved(Image.fromarray(pixels), kind, exif=exif)
    upright = decode(content)
    assert upright.shape[:2] == ((24, 16) if orientation > 4 else (16, 24))
    assert read_header(content).size == (upright.shape[1], upright.shape[0])
    corners = [upright[0, 0, 0], upright[0, -1, 0], upright[-1, -1, 0], upright[-1, 0, 0]]
    assert np.argmax(corners) == {1: 0, 2: 1, 3: 2, 4: 3, 5: 0, 6: 1, 7: 2, 8: 3}[orientation]


def test_orientation_behind_the_pixels():
    """Where some programs write it; Pillow finds it only once all is decoded."""
    exif = Image.Exif()
    exif[274] = 6
    turned = png(np.zeros((2, 3)), behind=chunk(b"eXIf", exif.tobytes()[6:]))
    assert read_header(turned).size == (2, 3) and decode(turned).shape == (3, 2, 1)
    assert read_header(png(np.zeros((2, 3)), behind=chunk(b"tEXt", b"a\0b"))).size == (3, 2)


def test_channels_and_sizes():
    grey, colour = np.full((4, 6, 1), 7, np.uint8), np.full((4, 6, 3), (10, 200, 30), np.uint8)
    assert to_channels(grey, 3).shape == (4, 6, 3) and to_channels(grey, 1) is grey and to_channels(colour, 3) is colour
    assert np.array_equal(to_channels(colour, 1)[..., 0], np.asarray(Image.fromarray(colour).convert("L")))
    assert resize(grey, 2).shape == (2, 2, 1) and resize(colour, 5).shape == (5, 5, 3)
    assert read_header(saved(Image.new("I;16", (3, 2)), "PNG")) == Header(3, 2, grey=True, deep=True)


def test_documents_are_no_images():
    assert {".png", ".jpg", ".jpeg", ".avif", ".webp", ".tif", ".bmp", ".gif", ".jp2", ".pgm"} <= SUFFIXES
    assert not {".pdf", ".ps", ".eps", ".h5", ".hdf", ".mpg", ".grib", ".wmf", ".csv", ".zip", ""} & SUFFIXES


# ---- restoring -------------------------------------------------------------------------------------------


@pytest.fixture
def restore(tmp_path):
    """scripts/restore.py with a saved denoiser that finds no noise: every image comes back as it was read."""
    denoiser = DenoisingUNet(3, (4, 4), layers_per_block=1)
    torch.nn.init.zeros_(denoiser.tail.weight)
    DenoiserPipeline(denoiser).save_pretrained(tmp_path / "pipeline")
    main = importlib.import_module("restore").main
    return lambda source, output, **more: main(str(tmp_path / "pipeline"), source, output, **more)


def test_restoring_sees_what_training_sees(restore, tmp_path, capsys):
    contents = {**DEEP, **TRANSPARENT}
    (tmp_path / "in").mkdir()
    for name, content in contents.items():
        kind = Image.open(io.BytesIO(content)).format.lower()
        (tmp_path / f"in/{name}.{ {'jpeg2000': 'jp2', 'ppm': 'pgm'}.get(kind, kind) }").write_bytes(content)
    Image.new("RGB", (2, 2), (9, 8, 7)).save(tmp_path / "in/a.avif", quality=100)
    (tmp_path / "in/._a.png").write_bytes(b"what macOS leaves")
    (tmp_path / "in/Thumbs.db").write_bytes(b"what Windows leaves")
    restore(tmp_path / "in", tmp_path / "out")
    for name, content in contents.items():
        assert np.array_equal(decode(tmp_path / f"out/{name}.png"), to_channels(decode(content), 3)), name
    said = capsys.readouterr()
    assert f"{len(contents) + 1} of {len(contents) + 1} images restored" in said.out
    assert "passed over: 1 .db, 1 hidden" in said.err and "left out" not in said.err


def test_restoring_refuses_what_it_cannot_scale_and_overwrites_nothing(restore, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tif").write_bytes(REFUSED["32 bits"][0])
    with pytest.raises(UserError, match="None of 1 images"):
        restore(tmp_path / "in", tmp_path / "out")
    assert "a.tif cannot be read (it holds integers of more than 8 bits" in capsys.readouterr().err
    Image.new("L", (4, 4), 9).save(tmp_path / "in/b.png")
    with pytest.raises(UserError, match="one of the originals"):
        restore(tmp_path / "in", tmp_path / "in", overwrite=True)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="is no folder"):
        restore(tmp_path / "in", tmp_path / "file")
    with pytest.raises(UserError, match=r"file/out.*cannot be written"):
        restore(tmp_path / "in", tmp_path / "file/out")


# ---- one against the other -------------------------------------------------------------------------------

SIDE = 12
FUZZ_SEED = 20


def random_image(rng: np.random.Generator) -> tuple[str, bytes, np.ndarray]:
    """A suffix, a file of a random mode, depth and format that loses nothing, and what it must decode to."""
    grey = rng.integers(0, 256, (SIDE, SIDE, 1), np.uint8)
    colour = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    alpha = rng.choice(np.array([0, 255], np.uint8), (SIDE, SIDE, 1))
    bits = rng.integers(0, 2, (SIDE, SIDE, 1), np.uint8) * 255
    palette = rng.integers(0, 256, (256, 3), np.uint8)

    def white(pixels: np.ndarray) -> np.ndarray:
        return np.where(alpha == 255, pixels, 255).astype(np.uint8)

    def indexed() -> Image.Image:
        image = Image.fromarray(grey[..., 0], "P")
        image.putpalette(palette.tobytes())
        return image

    plain = {"png": "PNG", "tif": "TIFF", "bmp": "BMP", "TIFF": "TIFF", "PNG": "PNG"}
    suffix = str(rng.choice([*plain]))
    kind = plain[suffix]
    one, three = Image.fromarray(grey[..., 0]), Image.fromarray(colour)
    sixteen = Image.fromarray(grey[..., 0].astype(np.uint16) * 257)
    choices = [
        lambda: (suffix, saved(one, kind), grey),
        lambda: (suffix, saved(three, kind), colour),
        lambda: (suffix, saved(Image.fromarray(bits[..., 0]).convert("1"), kind), bits),
        lambda: (suffix, saved(indexed(), kind), palette[grey[..., 0]]),
        lambda: ("webp", saved(three, "WEBP", lossless=True), colour),
        lambda: ("ppm", saved(three, "PPM"), colour),
        lambda: ("tga", saved(three, "TGA"), colour),
        lambda: ("jp2", saved(three, "JPEG2000"), colour),
        lambda: ("png", saved(Image.fromarray(np.concatenate([grey, alpha], 2)), "PNG"), white(grey)),
        lambda: ("png", saved(Image.fromarray(np.concatenate([colour, alpha], 2)), "PNG"), white(colour)),
        lambda: ("tiff", saved(Image.fromarray(np.concatenate([colour, alpha], 2)), "TIFF"), white(colour)),
        lambda: ("gif", saved(indexed(), "GIF"), palette[grey[..., 0]]),
        lambda: ("png", saved(sixteen, "PNG"), grey),
        lambda: ("tif", saved(sixteen, "TIFF"), grey),
        lambda: ("png", png(colour.astype(np.uint16) * 257, 2), colour),
        lambda: ("tif", saved(Image.fromarray(grey[..., 0].astype(np.float32) / 255), "TIFF"), grey),
        lambda: ("pgm", b"P5 12 12 65535\n" + (grey.astype(np.uint16) * 257).astype(">u2").tobytes(), grey),
    ]
    return choices[rng.integers(len(choices))]()


def write_containers(root: Path, files: list[tuple[str, bytes, int]], class_names: list[str]) -> dict[str, Path]:
    """The same files as a folder, a zip, a table and an archive of WebDataset."""
    paths = {kind: root / kind for kind in ("folder", "parquet")} | {"zip": root / "set.zip"}
    paths["parquet"].mkdir(parents=True)
    with zipfile.ZipFile(paths["zip"], "w") as archive:
        for name, content, _ in files:
            file = paths["folder"] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            archive.writestr(name, content)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=class_names)})
    columns = {
        "image": [{"bytes": content, "path": name} for name, content, _ in files],
        "label": [label for _, _, label in files],
    }
    datasets.Dataset.from_dict(columns, features).to_parquet(paths["parquet"] / "train.parquet")
    paths["webdataset"] = root / "webdataset"
    paths["webdataset"].mkdir()
    with tarfile.open(paths["webdataset"] / "shard-000000.tar", "w") as archive:
        for number, (name, content, label) in enumerate(files):
            for suffix, data in ((Path(name).suffix.lower(), content), (".cls", str(label).encode())):
                entry = tarfile.TarInfo(f"{number:05d}{suffix}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return paths


def everything(images: ImageSet) -> tuple[torch.Tensor, list[int]]:
    batch = images.__getitems__(range(len(images)))
    return batch["pixels"], batch["labels"].tolist()


@pytest.mark.parametrize("turn", range(12))
def test_every_container_gives_the_same_images(tmp_path, turn):
    """Images of every mode, depth and format: values, labels and counts, against what was written and each other."""
    seed = FUZZ_SEED + turn
    rng = np.random.default_rng(seed)
    print(f"fuzz seed {seed}")  # pytest shows it where it fails
    class_names = sorted(
        rng.choice(["cat", "dog", "train", "گربه", "no. 1", "A"], rng.integers(2, 5), replace=False).tolist()
    )
    files, expected = [], []
    for number in range(int(rng.integers(20, 40))):
        suffix, content, pixels = random_image(rng)
        label = number if number < len(class_names) else int(rng.integers(len(class_names)))
        files.append((f"{class_names[label]}/{number:03d}.{suffix}", content, label, pixels))
    files.sort(key=lambda file: file[0])
    expected = [file[3] for file in files]
    channels = 1 if all(pixels.shape[2] == 1 for pixels in expected) else 3
    wanted = torch.from_numpy(np.stack([to_channels(pixels, channels).transpose(2, 0, 1) for pixels in expected]))
    for kind, path in write_containers(tmp_path, [file[:3] for file in files], class_names).items():
        for limit in (0, 2048):
            images = load_images(DataConfig(path=str(path), memory_limit_mb=limit), need_labels=True)
            pixels, labels = everything(images)
            assert len(images) == len(files) and images.channels == channels, (kind, limit)
            assert labels == [file[2] for file in files], (kind, limit)
            different = [files[i][0] for i in range(len(files)) if not torch.equal(pixels[i], wanted[i])]
            assert not different, (kind, limit, different)
            if kind != "webdataset":
                assert images.class_names == class_names


def test_the_pipelines_own_opener_is_the_same(tmp_path):
    """``models/`` travels alone and so opens images itself: by the same list of formats, to the same pixels."""
    assert set(opening.SUFFIXES) == set(SUFFIXES) and set(opening.FORMATS) == set(FORMATS)
    rng = np.random.default_rng(FUZZ_SEED)
    contents = [content for _, content, _ in (random_image(rng) for _ in range(60))]
    for content in (*contents, *DEEP.values(), *TRANSPARENT.values()):
        (tmp_path / "image").write_bytes(content)
        ours = np.asarray(opening.open_image(tmp_path / "image"))
        assert np.array_equal(ours.reshape(*ours.shape[:2], -1), decode(content))
    for content, _ in REFUSED.values():
        (tmp_path / "image").write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as an image"):
            opening.open_image(tmp_path / "image")
