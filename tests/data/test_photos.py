"""Images of any sizes: squares cut the same way every time, pairs cut alike, whatever is missing named."""

from __future__ import annotations

from triptych.cli import command

import importlib
import sys
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import gan_flags

from triptych.config.base import DataConfig
from triptych.config.gan import GanConfig
from triptych.data.order import BatchOrder, make_loader
from triptych.data.photos import load_photos
from triptych.errors import UserError
from triptych.pipelines.store import load_pipeline

SIZES = [(20, 31), (16, 16), (48, 17), (33, 20)]  # width, height


def write(path: Path, size: tuple[int, int], mode: str = "RGB", seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels, mode).save(path)
    return pixels


@pytest.fixture
def photos(tmp_path):
    """Photographs of four sizes in a folder, and the same in a zip with other files among them."""
    for number, size in enumerate(SIZES):
        write(tmp_path / f"photos/{number}.png", size, seed=number)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in sorted((tmp_path / "photos").iterdir()):
            archive.write(file, f"holiday/{file.name}")
        archive.writestr("holiday/notes.txt", "not a picture")
        archive.writestr("__MACOSX/holiday/._0.png", "what macOS leaves in zips")
    return tmp_path


@pytest.fixture
def pairs(tmp_path):
    """Three pairs whose noisy half is the clean one inverted, the noisy ones of another format."""
    for number, size in enumerate(SIZES[:3]):
        clean = write(tmp_path / f"pairs/clean/sub/{number}.png", size, seed=number)
        (tmp_path / "pairs/noisy/sub").mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - clean).save(tmp_path / f"pairs/noisy/sub/{number}.bmp")
    return tmp_path / "pairs"


@pytest.mark.parametrize("source", ["photos", "photos.zip"])
def test_squares_are_parts_of_the_images(photos, source):
    images = load_photos(DataConfig(path=str(photos / source)), crop_size=16)
    assert (len(images), images.channels, images.image_size, images.class_names) == (4, 3, 16, None)
    for index, (width, height) in enumerate(SIZES):
        whole = images.whole(index)
        assert whole.shape == (3, height, width)
        assert np.array_equal(whole.permute(1, 2, 0), np.asarray(Image.open(photos / f"photos/{index}.png")))
        square = images.__getitems__([index])["pixels"][0]
        windows = whole.unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4)
        assert (windows == square).flatten(2).all(-1).any(), "found in the image, somewhere"


def test_every_visit_has_its_own_square_and_always_the_same(photos):
    config = DataConfig(path=str(photos / "photos"))
    held, streamed = (
        load_photos(c, 16, seed=5) for c in (config, DataConfig(path=config.path, memory_limit_mb=0, num_workers=2))
    )
    visits = [2 + 4 * epoch for epoch in range(20)]
    squares = held.__getitems__(visits)["pixels"]
    assert len({square.numpy().tobytes() for square in squares}) > 10
    order = BatchOrder(4, 3, seed=1, stop=6, by_visit=True)
    assert [i % 4 for batch in order for i in batch] == [i for batch in BatchOrder(4, 3, seed=1, stop=6) for i in batch]
    later = BatchOrder(4, 3, seed=1, start=4, stop=6, by_visit=True)
    batches = [b["pixels"] for b in make_loader(held, order)]
    again = [b["pixels"] for b in make_loader(streamed, later, num_workers=2)]
    assert all(torch.equal(a, b) for a, b in zip(batches[4:], again, strict=True)), "as a resumed run sees them"


def test_grey_and_transparent_images_become_colour(photos):
    write(photos / "photos/4.png", (16, 16), "L")
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(photos / "photos/5.png")
    images = load_photos(DataConfig(path=str(photos / "photos")), 16)
    grey, clear = images.whole(4), images.whole(5)
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2]) and clear.unique().tolist() == [255]
    assert load_photos(DataConfig(path=str(photos / "photos")), num_channels=1).whole(0).shape == (1, 31, 20)


def test_pairs_are_cut_alike(pairs):
    images = load_photos(DataConfig(path=str(pairs)), 16, paired=True)
    assert len(images) == 3 and images.paired and images.channels == 3 and images.class_names is None
    clean, noisy = images.__getitems__(range(30))["pixels"].chunk(2, dim=1)
    assert torch.equal(noisy, 255 - clean)
    assert images.whole(0).shape == (6, 31, 20)


def test_zipped_pairs(pairs):
    with zipfile.ZipFile(pairs.parent / "pairs.zip", "w") as archive:
        for file in sorted(pairs.rglob("*.*")):
            archive.write(file, file.relative_to(pairs.parent))
    zipped = load_photos(DataConfig(path=str(pairs.parent / "pairs.zip")), 16, paired=True)
    folder = load_photos(DataConfig(path=str(pairs)), 16, paired=True)
    assert torch.equal(zipped.__getitems__(range(6))["pixels"], folder.__getitems__(range(6))["pixels"])


@pytest.mark.parametrize("limit", [0, 2048])
def test_what_stands_in_for_a_torn_photo_brings_its_own_label(tmp_path, limit, capsys):
    """The last cat is torn: what is shown in its place is a dog, and called so."""
    for number in range(6):
        write(tmp_path / f"set/{'cat' if number < 3 else 'dog'}/{number}.png", (20, 16 + number), seed=number)
    torn = tmp_path / "set/cat/2.png"
    torn.write_bytes(torn.read_bytes()[:-60])
    images = load_photos(DataConfig(path=str(tmp_path / "set"), on_corrupt="skip", memory_limit_mb=limit), 16)
    batch = images.__getitems__([12 + index for index in range(6)])
    assert batch["labels"].tolist() == [images.label(index) for index in range(6)] == [0, 0, 1, 1, 1, 1]
    assert torch.equal(images.whole(2), images.whole(3))
    assert capsys.readouterr().err.count("cat/2.png") == 1


def turned(path: Path, pixels: np.ndarray, orientation: int = 6) -> None:
    """Save `pixels` as a camera does that was held upright: on their side, with a note."""
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.rot90(pixels, 1 if orientation == 6 else -1).copy()).save(path, exif=exif)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_pairs_are_compared_as_the_camera_was_held(tmp_path, suffix):
    clean = write(tmp_path / "pairs/clean/0.png", (20, 31))
    (tmp_path / "pairs/noisy").mkdir()
    turned(tmp_path / f"pairs/noisy/0.{suffix}", 255 - clean)
    config = DataConfig(path=str(tmp_path / "pairs"))
    images = load_photos(config, 16, paired=True)
    first, second = images.whole(0).chunk(2)
    assert images.whole(0).shape == (6, 31, 20)
    if suffix != "webp":  # which loses a little
        assert torch.equal(second, 255 - first)
    write(tmp_path / "pairs/clean/0.png", (31, 20))  # as the other is stored, but not as it was held
    with pytest.raises(UserError, match="clean/0 is 31x20 pixels and noisy/0 20x31"):
        load_photos(config, 16, paired=True)


def test_pairs_are_matched_whatever_form_an_accent_has(tmp_path):
    for half, form in (("clean", "NFC"), ("noisy", "NFD")):
        write(tmp_path / "pairs" / half / unicodedata.normalize(form, "café/é.png"), (16, 16))
    assert len(load_photos(DataConfig(path=str(tmp_path / "pairs")), 16, paired=True)) == 1


@pytest.mark.parametrize("broken", ["clean", "noisy"])
@pytest.mark.parametrize("content", [b"no image", None])
@pytest.mark.parametrize("limit", [0, 2048])
def test_a_pair_with_a_torn_half_is_left_out_whole(pairs, broken, content, limit):
    file = pairs / broken / "sub" / f"1.{'png' if broken == 'clean' else 'bmp'}"
    file.write_bytes(content or file.read_bytes()[:-200])
    config = DataConfig(path=str(pairs), on_corrupt="skip", memory_limit_mb=limit)
    images = load_photos(config, 16, paired=True)
    clean, noisy = images.__getitems__(range(12))["pixels"].chunk(2, dim=1)
    assert torch.equal(noisy, 255 - clean)
    assert len(images) == (3 if content is None else 2)
    with pytest.raises(UserError, match=rf"{broken}/sub/1.*cannot be decoded"):
        refused = load_photos(DataConfig(path=str(pairs), memory_limit_mb=limit), 16, paired=True)
        refused.whole(1)


def test_zipped_pairs_of_two_splits(tmp_path):
    for split, count in (("train", 3), ("test", 1)):
        for half in ("clean", "noisy"):
            for number in range(count):
                write(tmp_path / f"set/{split}/{half}/{number}.png", (16, 16), seed=number)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted((tmp_path / "set").rglob("*.png")):
            archive.write(file, file.relative_to(tmp_path / "set"))
    for path in (tmp_path / "set", tmp_path / "set.zip"):
        assert len(load_photos(DataConfig(path=str(path)), 16, paired=True)) == 3
        assert len(load_photos(DataConfig(path=str(path), split="test"), 16, paired=True)) == 1


def test_bad_photos_are_named(photos):
    with pytest.raises(UserError, match=r"2 of 4 images are smaller than crop_size 18, such as .*1\.png\) \(16x16\)"):
        load_photos(DataConfig(path=str(photos / "photos.zip")), 18)
    with zipfile.ZipFile(photos / "empty.zip", "w") as archive:
        archive.writestr("notes.txt", "no picture at all")
    with pytest.raises(UserError, match="holds no images"):
        load_photos(DataConfig(path=str(photos / "empty.zip")), 16)
    with pytest.raises(UserError, match="one of the two"):
        load_photos(DataConfig(path=str(photos / "photos"), image_size=16), 16)
    with pytest.raises(UserError, match="digits"):
        load_photos(DataConfig(), 16)
    whole = (photos / "photos/0.png").read_bytes()
    (photos / "photos/0.png").write_bytes(whole[: len(whole) // 2])  # a good header, half of the pixels
    with pytest.raises(UserError, match=r"0\.png.*cannot be decoded"):
        load_photos(DataConfig(path=str(photos / "photos")), 16)
    images = load_photos(DataConfig(path=str(photos / "photos"), on_corrupt="skip"), 16)
    assert images.num_skipped == 1 and torch.equal(images.whole(0), images.whole(1)), "the next one stands in"


def test_bad_pairs_are_named(pairs):
    config = DataConfig(path=str(pairs))
    write(pairs / "clean/lonely.png", (16, 16))
    with pytest.raises(UserError, match=r"1 images have no counterpart: clean/lonely"):
        load_photos(config, 16, paired=True)
    write(pairs / "noisy/lonely.png", (16, 17))
    with pytest.raises(UserError, match=r"clean/lonely is 16x16 pixels and noisy/lonely 16x17"):
        load_photos(config, 16, paired=True)
    write(pairs / "noisy/lonely.png", (16, 16))
    write(pairs / "noisy/lonely.bmp", (16, 16))
    with pytest.raises(UserError, match="two images noisy/lonely"):
        load_photos(config, 16, paired=True)
    (pairs / "noisy/lonely.bmp").unlink()
    write(pairs / "other.png", (16, 16))
    with pytest.raises(UserError, match="lies neither"):
        load_photos(config, 16, paired=True)


def train(monkeypatch, tmp_path, **changes: str) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_gan.py", *gan_flags(gradient_accumulation_steps="1", **changes)])
    configs = []
    command(lambda config: configs.append(config), GanConfig)
    importlib.import_module("train_gan").main(configs[0])
    return tmp_path / "runs" / changes["name"]


def test_training_on_a_zip_and_going_on_from_its_weights(monkeypatch, photos):
    source = {"data__path": str(photos / "photos.zip"), "crop_size": "16"}
    folder = train(monkeypatch, photos, name="first", **source)
    still = {"num_updates": "1", "optimizer__lr": "1e-9", "optimizer__name": "adamw", "ema__decay": "0"}
    started = train(monkeypatch, photos, name="second", generator_init=str(folder / "pipeline"), **source, **still)
    before, after = (load_pipeline(str(f / "pipeline")).denoiser.state_dict() for f in (folder, started))
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before), "it starts where the first ended"
    with pytest.raises(UserError, match=r"another architecture \(block_out_channels"):
        changes = {"generator_init": str(folder / "pipeline"), "generator__block_out_channels": "[8, 24]"}
        train(monkeypatch, photos, name="third", **source, **changes)


def test_training_on_pairs(monkeypatch, pairs):
    """The noisy half is an inversion: no denoiser of Gaussian noise, and learned within a few hundred steps."""
    changes = {"adversarial_weight": "0", "feature_matching_weight": "0", "generator__bias": "true"}
    changes |= {"generator__prediction_type": "sample", "optimizer__name": "adamw", "optimizer__lr": "1e-2"}
    changes |= {"data__path": str(pairs), "crop_size": "16", "paired": "true", "num_updates": "150"}
    folder = train(monkeypatch, pairs.parent, name="x", horizontal_flip="true", **changes)
    pipeline = load_pipeline(str(folder / "pipeline"))
    clean, noisy = (load_photos(DataConfig(path=str(pairs)), paired=True).whole(0) / 255).chunk(2)
    restored = pipeline(noisy, output_type="pt").images[0]
    before, after = ((image - clean).abs().mean() for image in (noisy, restored))
    assert after < before / 2


def test_pairs_need_a_crop_size():
    with pytest.raises(ValueError, match="crop_size"):
        GanConfig(paired=True)
