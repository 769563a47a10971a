"""The commands after training, on a pipeline that was really trained and saved."""

from __future__ import annotations

from triptych.cli import command

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from stand_ins import make_diffusion

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.pipelines.sampling import chosen_classes
from triptych.pipelines.store import load_pipeline


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "tiny"
    make_diffusion().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def script():
    return importlib.import_module


def test_generate(saved, script, tmp_path):
    main = script("generate").main
    main(saved, tmp_path / "a", classes=["ship", 0], num_images_per_class=3, batch_size=4)
    names = sorted(p.name for p in (tmp_path / "a").glob("*.png"))
    assert names == [
        *(f"00_cat_{k:05d}.png" for k in range(3)),
        *(f"01_ship_{k:05d}.png" for k in range(3)),
        "grid.png",
    ]
    settings = json.loads((tmp_path / "a/settings.json").read_text())
    assert settings["classes"] == ["ship", "cat"] and settings["guidance_scale"] == 2.0 and settings["seed"] == 0
    # The same images from another order, another batch size, a longer list.
    main(saved, tmp_path / "b", num_images_per_class=5, batch_size=7)
    for name in names[:-1]:
        first, second = (np.asarray(Image.open(tmp_path / x / name), dtype=int) for x in "ab")
        assert np.abs(first - second).max() <= 1
    with pytest.raises(UserError, match="not empty"):
        main(saved, tmp_path / "a")
    main(saved, tmp_path / "a", classes=["frog"], num_images_per_class=1, scheduler="DDIM", overwrite=True)
    assert (tmp_path / "a/02_frog_00000.png").exists()


def test_real_images_stand_at_the_left_of_what_is_drawn(script, tmp_path):
    digits = make_diffusion(channels=1)
    digits.register_to_config(id2label={"0": "2", "1": "7", "2": "0"})
    digits.save_pretrained(tmp_path / "digits")
    generate = script("generate")
    pipe = load_pipeline(str(tmp_path / "digits"))
    found = generate.real_images("digits", pipe, [1, 2])
    real = load_digits()
    for row, digit in zip(found, (7, 0), strict=True):
        ours = real.images[real.target == digit][:, None, ..., None] / 16  # against both, (N, 1, H, W, 1)
        same = np.abs(row - ours).max(axis=(2, 3, 4)) < 0.5 / 255 + 1e-6
        assert row.shape == (2, 8, 8, 1) and same.any(axis=0).all() and not np.array_equal(*row)
    generate.main(str(tmp_path / "digits"), tmp_path / "out", num_images_per_class=3, real="digits")
    generate.main(str(tmp_path / "digits"), tmp_path / "alone", num_images_per_class=3)
    wide, narrow = (Image.open(tmp_path / name / "grid.png").width for name in ("out", "alone"))
    assert wide > narrow + 2.5 * narrow / 4
    with pytest.raises(UserError, match="real 'digits': images of each class to show 999: a class has only"):
        generate.real_images("digits", pipe, [1], count=999)
    with pytest.raises(UserError, match="real 'digits' has no class 'cat'"):
        pipe.register_to_config(id2label={"0": "cat", "1": "7", "2": "0"})
        generate.real_images("digits", pipe, [1, 0])


def test_classes_from_the_command_line(saved):
    pipeline = load_pipeline(saved)
    assert chosen_classes(pipeline, None) == [0, 1, 2]
    assert chosen_classes(pipeline, "frog, cat,1") == chosen_classes(pipeline, ["frog", "cat", 1]) == [2, 0, 1]
    digits = make_diffusion()
    digits.register_to_config(id2label={"0": "2", "1": "1", "2": "a, b"})
    assert chosen_classes(digits, "2") == [0], "a name that is a number is a name"
    assert chosen_classes(digits, "a, b") == [2], "a name with a comma is a name"
    with pytest.raises(UserError, match="no class 'dog'"):
        chosen_classes(pipeline, "dog,cat")


def test_generate_refuses(saved, script, tmp_path):
    main = script("generate").main
    with pytest.raises(UserError, match=r"no class 'dog'.*'ship'"):
        main(saved, tmp_path / "x", classes=["dog"])
    with pytest.raises(UserError, match="does not exist"):
        main(str(tmp_path / "nothing"), tmp_path / "x")
    with pytest.raises(UserError, match="no scheduler"):
        main(saved, tmp_path / "x", scheduler="Magic")
    (tmp_path / "run/pipeline").mkdir(parents=True)
    (tmp_path / "run/pipeline/model_index.json").write_text("{}")
    with pytest.raises(UserError, match=r"Did you mean .*pipeline"):
        main(str(tmp_path / "run"), tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_inference_steps", "0"], "num_inference_steps must be a whole number of at least 1, not 0"),
        (["--guidance_interval", "[2, 1]"], "guidance_interval must be (low, high)"),
        (["--seed", "-1"], "seed must be 0 or more, not -1"),
        (["--device", "nowhere"], "device 'nowhere' is none that there is here"),
    ],
)
def test_what_a_pipeline_refuses_is_no_fault_of_the_script(
    saved, script, tmp_path, monkeypatch, capsys, flags, message
):
    arguments = [saved, "--output", str(tmp_path / "x"), "--num_images_per_class", "1", *flags]
    monkeypatch.setattr(sys, "argv", ["generate.py", *arguments])
    with pytest.raises(SystemExit) as left:
        command(script("generate").main)
    said = capsys.readouterr().err
    assert left.value.code == 2 and f"error: {message}" in said and "traceback" not in said.lower()


def pictures_of(figure) -> np.ndarray:
    """The images of a table, in the order they were drawn, row by row: (N, H, W) or (N, H, W, C) in [0, 1]."""
    return np.stack([np.asarray(artist.get_array()) for artist in figure.artists])


def words_of(figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_forward_process(script, tmp_path, figures):
    main = script("figures.forward_process").main
    main(DataConfig(), tmp_path, schedules=["linear", "sigmoid"], timesteps=[0, 500, 999], images=[3])
    assert all((tmp_path / name).exists() for name in ("forward_process.png", "schedules.png"))
    table, chart = figures
    assert {"linear", "sigmoid", "t = 0", "t = 500", "t = 999"} <= set(words_of(table))
    pictures = pictures_of(table).reshape(2, 3, 8, 8)
    digit = load_images(DataConfig()).whole(3)[0].numpy() / 255
    for row in pictures:  # a row for each schedule: the digit sinks into noise
        near = [np.corrcoef(digit.flat, picture.flat)[0, 1] for picture in row]
        assert near[0] > 0.98 and near[0] > near[1] > near[2]
    ratios = [word for word in words_of(table) if word.endswith(" dB")]
    assert len(ratios) == 6 and float(ratios[0].removesuffix(" dB")) > 20 > -20 > float(ratios[2].removesuffix(" dB"))
    assert [text.get_text() for text in chart.legends[0].get_texts()] == ["linear", "sigmoid"]
    with pytest.raises(UserError, match="outside the process"):
        main(DataConfig(), tmp_path / "new", timesteps=[1000])
    with pytest.raises(UserError, match="0 to 1436"):
        main(DataConfig(), tmp_path / "new", images=[5000])


def test_reverse_process(saved, script, tmp_path, figures):
    main = script("figures.reverse_process").main
    for scheduler in ("DDPM", "EulerDiscrete"):
        main(
            saved,
            tmp_path / f"{scheduler}.png",
            classes=["cat", 2],
            num_inference_steps=6,
            num_columns=4,
            scheduler=scheduler,
        )
        assert (tmp_path / f"{scheduler}.png").exists()
        words = words_of(figures[-1])
        assert [word for word in words if word.endswith("x_t")] == ["cat  x_t", "frog  x_t"]
        columns = [float(word.removeprefix("t = ")) for word in words if word.startswith("t = ")]
        assert len(columns) == 4 and columns == sorted(columns, reverse=True) and "image" in words
        pictures = pictures_of(figures[-1]).reshape(2, 2, 5, 8, 8, 3)  # image, x_t or x_0, column
        np.testing.assert_array_equal(pictures[:, 0, -1], pictures[:, 1, -1])  # both rows end in the finished image
        assert pictures[0, 0, 0].std() > 0.2, "x_t begins as noise"
        assert np.abs(pictures[0, 0, -1] - pictures[1, 0, -1]).max() > 0.01, "two images, not one twice"
    with pytest.raises(UserError, match="no class"):
        main(saved, tmp_path / "x.png", classes=["dog"])


def test_export_halves_and_still_loads(saved, script, tmp_path):
    main = script("export_pipeline").main
    (Path(saved) / "README.md").write_text("the card")
    main(saved, tmp_path / "half")
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "half" / weights).stat().st_size < 0.6 * (Path(saved) / weights).stat().st_size
    assert (tmp_path / "half/README.md").read_text() == "the card"
    whole, half = load_pipeline(saved), load_pipeline(str(tmp_path / "half"))
    for a, b in zip(whole.unet.parameters(), half.unet.parameters(), strict=True):
        assert b.dtype == a.dtype and (a - b).abs().max() < 2e-3
    with pytest.raises(UserError, match="not empty"):
        main(saved, tmp_path / "half")
    main(saved, tmp_path / "half", overwrite=True)
    with pytest.raises(UserError, match="is the original"):
        main(saved, Path(saved), overwrite=True)


def test_nothing_but_a_saved_model_is_replaced_by_one(saved, script, tmp_path):
    run, file = tmp_path / "run", tmp_path / "file"
    (run / "checkpoints/update_00000001").mkdir(parents=True)
    (run / "config.yaml").write_text("name: run\n")
    file.write_text("mine")
    for name in ("export_pipeline", "generate"):
        with pytest.raises(UserError, match="file is no folder"):
            script(name).main(saved, file, overwrite=True)
    with pytest.raises(UserError, match="holds something else than a saved model"):
        script("export_pipeline").main(saved, run, overwrite=True)
    assert (run / "checkpoints/update_00000001").is_dir() and file.read_text() == "mine"


LOG = (
    '{"update": 1, "images_seen": 8, "loss": 1.0}\n{"images_seen": 16}\n{"update": 3, "images_seen": 24, "loss": "a"}\n'
)


def test_curves_of_what_a_log_holds(script, tmp_path, figures):
    main = script("figures.curves").main
    (tmp_path / "run").mkdir()
    (tmp_path / "run/log.jsonl").write_text(LOG)
    (tmp_path / "run/timing.jsonl").write_text('{"update": 1, "seconds": 2.0}\n{}\n{"update": 3, "seconds": 4.0}\n')
    main(str(tmp_path / "run"), output=tmp_path / "curves.png")
    (axis,) = figures[0].axes
    assert axis.get_title() == "loss" and axis.get_xlabel() == "images seen" and (tmp_path / "curves.png").exists()
    assert axis.lines[0].get_xydata().tolist() == [[8, 1.0]], "of the row that has both numbers"
    for runs, quantities, output, message in (
        ("", "loss", "x.png", "must name at least one"),
        (str(tmp_path / "run"), "", "x.png", "must name at least one"),
        (str(tmp_path / "run"), "kl", "x.png", "logged no 'kl'"),
        (str(tmp_path / "run"), "loss", "x.picture", r"x\.picture must end in \.png or \.svg"),
        (str(tmp_path / "run"), "loss", "x", "must end in"),
    ):
        with pytest.raises(UserError, match=message):
            main(runs, quantities, output=tmp_path / output)


def test_settings_that_a_command_makes_of_its_flags(script, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["figures/forward_process.py", "--beta_start", "2"])
    with pytest.raises(SystemExit) as left:
        command(script("figures.forward_process").main)
    assert (
        left.value.code == 2 and "error: schedule: 0 < beta_start < beta_end < 1 must hold" in capsys.readouterr().err
    )
