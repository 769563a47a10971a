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
from stand_ins import make_diffusion

from triptych.config.base import DataConfig
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


def test_forward_process(script, tmp_path):
    main = script("figures.forward_process").main
    main(DataConfig(), tmp_path, timesteps=[0, 500, 999], images=[3])
    for name in ("forward_process.png", "schedules.png"):
        assert min(Image.open(tmp_path / name).size) > 200
    with pytest.raises(UserError, match="outside the process"):
        main(DataConfig(), tmp_path / "new", timesteps=[1000])
    with pytest.raises(UserError, match="0 to 1436"):
        main(DataConfig(), tmp_path / "new", images=[5000])


def test_reverse_process(saved, script, tmp_path):
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
        assert min(Image.open(tmp_path / f"{scheduler}.png").size) > 200
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


def test_curves_of_what_a_log_holds(script, tmp_path):
    main = script("figures.curves").main
    (tmp_path / "run").mkdir()
    (tmp_path / "run/log.jsonl").write_text(LOG)
    (tmp_path / "run/timing.jsonl").write_text('{"update": 1, "seconds": 2.0}\n{}\n{"update": 3, "seconds": 4.0}\n')
    main(str(tmp_path / "run"), output=tmp_path / "curves.png")
    assert min(Image.open(tmp_path / "curves.png").size) > 200
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
