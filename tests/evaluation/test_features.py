"""Features: what the judge and Inception answer, in shares, on any input, and the cache, never believed blindly."""

from __future__ import annotations

import evaluate
import numpy as np
import pytest
import torch
from conftest import ROOT
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTImageProcessor,
)

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.evaluation import extraction, judges
from triptych.evaluation.extraction import extract, extract_share
from triptych.evaluation.judges import Inception, Judge, load_judge
from triptych.paths import project_path


def make_judge(seed: int = 0, name: str = "judge") -> Judge:
    torch.manual_seed(seed)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    model = ResNetForImageClassification(ResNetConfig(**sizes, id2label={0: "cat", 1: "dog", 2: "frog"}))
    processor = ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return Judge(model, processor, name)


def some_images(count: int = 7, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 8, 8), dtype=torch.uint8, generator=generator)


@pytest.fixture(autouse=True)
def _one_thread(_threads) -> None:
    torch.set_num_threads(1)  # two only wait for each other over networks this small


@pytest.fixture
def judge() -> Judge:
    return make_judge()


# ---- what an extractor answers ---------------------------------------------------------------------------------


def test_features_are_what_the_head_sees(judge):
    images = some_images()
    answer = judge(images)
    assert answer["features"].shape == (7, 16) and answer["logits"].shape == (7, 3)
    torch.testing.assert_close(judge.model.classifier(answer["features"]), answer["logits"])
    pooled = judge.model.resnet(judge.prepare(images)).pooler_output.flatten(1)
    torch.testing.assert_close(answer["features"], pooled)
    assert [tuple(m.shape) for m in judge.feature_maps(images)] == [(7, 8, 4, 4), (7, 8, 4, 4), (7, 16, 2, 2)]
    assert judge.class_names == ["cat", "dog", "frog"]


def test_other_families_answer_too():
    config = ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], patch_size=2, num_stages=2, num_labels=3)
    processor = make_judge().processor
    answer = Judge(ConvNextForImageClassification(config), processor, "x")(some_images())
    assert answer["features"].shape == (7, 16) and answer["logits"].shape == (7, 3)


def test_floats_bytes_and_grey_images_are_the_same_images(judge):
    grey = some_images(channels=1)
    as_bytes, as_floats = (judge(x)["logits"] for x in (grey, grey / 255))
    # bytes are rounded once more after being enlarged, as a viewer's are
    torch.testing.assert_close(as_bytes, as_floats, atol=0.02, rtol=0)
    torch.testing.assert_close(judge(grey.expand(-1, 3, -1, -1))["logits"], as_bytes)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.rand(3, 8, 8), r"\(B, C, H, W\)"),
        (torch.rand(2, 2, 8, 8), "1 or 3 channels"),
        (torch.rand(2, 3, 8, 8) * 2 - 1, r"x / 2 \+ 0.5"),
        (torch.full((2, 3, 8, 8), torch.nan), r"\[0, 1\]"),
        (torch.ones(2, 3, 8, 8, dtype=torch.int64), "uint8"),
    ],
)
def test_bad_images_are_named(judge, images, says):
    with pytest.raises(UserError, match=says):
        judge(images)


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("side", [8, 16, 5])
def test_images_are_prepared_as_the_processor_does(side, resample):
    """Enlarged, left as they are and made smaller; bytes and floats; every channel by its own numbers."""
    statistics = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    processor = ViTImageProcessor(size={"height": side, "width": side + 1}, resample=resample, **statistics)
    prepare = Judge(make_judge().model, processor, "judge").prepare
    for images in (some_images(), some_images() / 255):
        settings = {"do_rescale": not images.is_floating_point(), "input_data_format": "channels_first"}
        expected = processor(list(images), **settings, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(prepare(images), expected, atol=1e-5, rtol=0)


def test_there_must_be_images(judge):
    with pytest.raises(UserError, match="no images"):
        extract(judge, some_images(0))


def test_batches_and_shares_make_the_whole(judge):
    images = some_images(11)
    whole = extract(judge, images, batch_size=11)
    parts = [extract_share(judge, images, 2, i, 3) for i in range(3)]
    for key, value in whole.items():
        torch.testing.assert_close(torch.cat([part[key] for part in parts]), value)
        assert value.dtype == torch.float32 and not value.requires_grad


def test_a_set_is_read_as_it_lies(judge):
    images = load_images(DataConfig(split="test"))
    pixels = images.__getitems__(range(len(images)))["pixels"]
    torch.testing.assert_close(extract(judge, images)["logits"], extract(judge, pixels, batch_size=100)["logits"])


def test_perceptual_distance_takes_the_judges_maps(judge):
    clean = some_images() / 255
    slightly, strongly = ((clean + level * torch.randn(clean.shape)).clamp(0, 1) for level in (0.02, 0.5))
    compute = evaluate.load(str(ROOT / "metrics/perceptual_distance"), keep_in_memory=True).compute
    settings = {"feature_maps": judge.feature_maps, "features": judge.name}
    nothing, little, much = (
        compute(predictions=x, references=clean, **settings)["perceptual_distance"] for x in (clean, slightly, strongly)
    )
    assert nothing == 0 and 0 < little < much


# ---- loading ---------------------------------------------------------------------------------------------------


def save(judge: Judge, folder) -> None:
    judge.model.save_pretrained(folder)
    judge.processor.save_pretrained(folder)


def test_a_saved_judge_is_the_same(judge, tmp_path):
    save(judge, tmp_path / "runs/mine/classifier")
    again = load_judge(tmp_path / "runs/mine/classifier")
    assert again.name == "features of mine" and again.class_names == judge.class_names
    assert again.fingerprint == judge.fingerprint
    torch.testing.assert_close(again(some_images())["logits"], judge(some_images())["logits"])


def test_no_judge_there(judge, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    save(judge, tmp_path / "run/classifier")
    with pytest.raises(UserError, match=r"Did you mean .*run/classifier"):
        load_judge(tmp_path / "run")
    with pytest.raises(UserError, match="could not be loaded"):
        load_judge(tmp_path / "nothing")
    (tmp_path / "run/classifier/preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="could not be loaded"):
        load_judge(tmp_path / "run/classifier")
    save(judge, tmp_path / "torn")
    weights = tmp_path / "torn/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="could not be loaded"):
        load_judge(tmp_path / "torn")


def test_inception_without_its_weights(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", refused)
    with pytest.raises(UserError, match=r"could not be downloaded \(OSError: no route .* there is no FID"):
        Inception()
    (tmp_path / "weights.pth").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"could not be read from .*weights\.pth"):
        Inception(tmp_path / "weights.pth")


def test_inception_with_weights_of_its_form(monkeypatch):
    """Random ones: the real ones need a network. Grey images, bytes and floats alike."""
    network = judges.FeatureExtractorInceptionV3
    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
    monkeypatch.setattr(network, "load_state_dict", lambda *_: None)
    inception = Inception()
    images = some_images(1, channels=1)
    answer = inception(images)
    assert answer["features"].shape == (1, 2048) and answer["logits"].shape == (1, 1008)
    torch.testing.assert_close(inception(images / 255), answer)
    compute = evaluate.load(str(ROOT / "metrics/inception_score"), keep_in_memory=True).compute
    assert compute(predictions=answer["logits"], features=inception.name, num_splits=1)["name"] == "Inception score"


# ---- cache -----------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(judge, monkeypatch):
    """A judge, and how often it was asked."""
    asked = []

    class Counted:
        name, fingerprint = judge.name, judge.fingerprint

        def __call__(self, images):
            asked.append(len(images))
            return judge(images)

    return Counted(), asked


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_what_was_seen_is_not_looked_at_again(counted, tmp_path):
    extractor, asked = counted
    first = extract(extractor, some_images(), batch_size=4, cache=tmp_path / "cache")
    again = extract(extractor, some_images(), batch_size=3, cache=tmp_path / "cache")
    assert asked == [4, 3] and equal(first, again)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_other_pixels_or_weights_are(counted, tmp_path):
    extractor, asked = counted
    extract(extractor, some_images(), cache=tmp_path)
    changed = some_images()
    changed[6, 2, 7, 7] ^= 1
    for images in (changed, some_images(6), some_images().flip(0), some_images() / 255):
        extract(extractor, images, cache=tmp_path)
    assert len(asked) == 5
    other = make_judge()
    with torch.no_grad():
        other.model.classifier[1].bias[0] += 1e-6
    assert Judge(other.model, other.processor, "x").fingerprint != extractor.fingerprint
    finer = ViTImageProcessor(size={"height": 32, "width": 32})
    assert Judge(make_judge().model, finer, "x").fingerprint != extractor.fingerprint
    assert make_judge().fingerprint == extractor.fingerprint


@pytest.mark.parametrize("how", ["cut short", "a bit flipped", "empty", "another's", "no zip"])
def test_a_file_that_cannot_be_trusted_is_made_anew(counted, tmp_path, capsys, how):
    extractor, asked = counted
    expected = extract(extractor, some_images(), cache=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if how == "another's":
        extract(extractor, some_images(5), cache=tmp_path)
        (other,) = set(tmp_path.iterdir()) - {path}
        other.replace(path)
    else:
        at = whole.index(expected["features"].numpy().tobytes()) + 5
        flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        broken = {"cut short": whole[: len(whole) // 2], "a bit flipped": flipped, "empty": b"", "no zip": b"x" * 999}
        path.write_bytes(broken[how])
    asked.clear()
    assert equal(extract(extractor, some_images(), cache=tmp_path), expected)
    assert asked and "is made anew" in capsys.readouterr().err
    assert path.read_bytes() == whole or equal(extraction.read_cache(path), expected)
    asked.clear()
    extract(extractor, some_images(), cache=tmp_path)
    assert not asked


def test_the_cache_holds_no_code(tmp_path):
    path = tmp_path / "abc.npz"
    np.savez(path, key=np.array([object()], dtype=object))
    assert extraction.read_cache(path) is None


def test_the_shipped_judge_steps_in_where_inception_is_not(monkeypatch, capsys):
    """Without --judge: Inception if it can be had, else the judge that knows the images, else Inception's own error."""
    names = load_judge(project_path("pretrained/judge-cifar10")).class_names
    digits = [str(digit) for digit in range(10)]
    assert judges.shipped_judge(names, 32) == project_path("pretrained/judge-cifar10")
    assert judges.shipped_judge(digits, 28) == project_path("pretrained/judge-mnist")
    for other in ((names, 96), (names[::-1], 32), (digits, 8), (None, None)):
        assert judges.shipped_judge(*other) is None

    monkeypatch.setattr(judges, "Inception", lambda device: "Inception")
    assert judges.load_critic(None, names, 32) == judges.load_critic("inception", None, None) == "Inception"

    def missing(device):
        raise UserError("Inception's weights could not be downloaded.")

    monkeypatch.setattr(judges, "Inception", missing)
    assert judges.load_critic(None, names, 32).name == "features of judge-cifar10"
    assert "judge: " in (said := capsys.readouterr().err) and "judge-cifar10, which knows these classes" in said
    with pytest.raises(UserError, match=r"could not be downloaded\. Or name a classifier by --judge"):
        judges.load_critic(None, ["cat"], 32)
    with pytest.raises(UserError, match="could not be downloaded"):
        judges.load_critic("inception", names, 32)
