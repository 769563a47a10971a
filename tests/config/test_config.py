"""Bad settings are refused by name before any work begins; good ones arrive as they were meant."""

from __future__ import annotations

from triptych.cli import command

import importlib
import json
import sys

import jsonargparse
import pytest
import yaml
from conftest import ROOT, flags
from stand_ins import write_images

from triptych.config.base import to_dict, write_yaml
from triptych.config.classifier import ClassifierConfig
from triptych.config.diffusion import DiffusionConfig, DistillationConfig, UNetConfig
from triptych.config.gan import GanConfig
from triptych.config.vae import VaeConfig
from triptych.errors import UserError


def parse(monkeypatch, *arguments: str) -> DiffusionConfig:
    monkeypatch.setattr(sys, "argv", ["train_diffusion.py", *arguments])
    received = []
    command(lambda config: received.append(config), DiffusionConfig)
    return received[0]


def complaint(monkeypatch, capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        parse(monkeypatch, *arguments)
    assert left.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/**/diffusion*.yaml")), ids=lambda p: p.stem)
def test_every_config_parses_and_builds(monkeypatch, path):
    config = parse(monkeypatch, "--config", str(path))
    side, channels = (8, 1) if config.data.path == "digits" else (32, 3)
    assert (
        config.unet.arguments(side, channels, config.pixel_unshuffle)["sample_size"] == side // config.pixel_unshuffle
    )


def test_dotted_overrides_and_exponents(monkeypatch, tmp_path):
    (tmp_path / "x.yaml").write_text("name: x\noptimizer:\n  lr: 1e-4\nunet:\n  block_out_channels: [32, 64]\n")
    config = parse(monkeypatch, "--config", str(tmp_path / "x.yaml"), "--optimizer.betas", "[0.8, 0.9]", "--seed", "7")
    assert config.optimizer.lr == 1e-4 and config.optimizer.betas == (0.8, 0.9)
    assert config.unet.block_out_channels == (32, 64) and config.seed == 7


def test_saved_configs_read_back(monkeypatch, tmp_path):
    config = parse(monkeypatch, *flags(name="x"))
    write_yaml(config, tmp_path / "config.yaml")
    assert parse(monkeypatch, "--config", str(tmp_path / "config.yaml")) == config
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == to_dict(config)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--optimizer.learning_rate", "1"], "learning_rate"),
        (["--batch_sise", "4"], "Did you mean 'batch_size'"),
        (["--batch_size", "many"], "batch_size"),
        (["--optimizer.lr", "-1"], "optimizer.lr must be positive"),
        (["--schedule.prediction_type", "noise"], "v_prediction"),
        (["--schedule.beta_start", "0.5"], "beta_start"),
        (["--unet.block_out_channels", "[30]"], "norm_num_groups"),
        (["--ema.decay", "1"], "ema.decay"),
        (["--name", "a/b"], "name may hold"),
        (["--label_dropout", "1"], "label_dropout"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--run.log_every", "0"], "log_every"),
    ],
)
def test_bad_settings_are_named(monkeypatch, capsys, arguments, says):
    said = complaint(monkeypatch, capsys, *arguments)
    assert says in said and "Traceback" not in said


def test_unknown_key_in_a_file(monkeypatch, capsys, tmp_path):
    (tmp_path / "x.yaml").write_text("optimizer:\n  learning_rate: 1e-4\n")
    assert "learning_rate" in complaint(monkeypatch, capsys, "--config", str(tmp_path / "x.yaml"))


def test_images_the_network_cannot_halve():
    config = UNetConfig(block_out_channels=(32, 32, 32), attention_resolutions=())
    assert config.arguments(28, 1, 1)["sample_size"] == 28
    for side, unshuffle in ((30, 1), (28, 2), (31, 1)):
        with pytest.raises(UserError, match=r"multiple of (4|8)"):
            config.arguments(side, 1, unshuffle)


def test_attention_where_there_is_no_such_map():
    with pytest.raises(UserError, match=r"\[7\].*\[32, 16\]"):
        UNetConfig(block_out_channels=(32, 32), attention_resolutions=(7,)).arguments(32, 3, 1)


# ---- run folders, through the script's own main ----------------------------------------------------------


@pytest.fixture
def main(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    script = importlib.import_module("train_diffusion")

    def call(**changes: str) -> None:
        script.main(parse(monkeypatch, *flags(**changes)))

    return call


def test_an_existing_run_is_not_overwritten(main, tmp_path):
    main(name="mine", num_updates=1)
    before = (tmp_path / "runs/mine/log.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"already holds a run.*--resume latest"):
        main(name="mine", num_updates=1)
    with pytest.raises(UserError, match=r"unet.layers_per_block: 1 -> 2"):
        main(name="mine", num_updates=1, unet__layers_per_block=2, resume="latest")
    assert (tmp_path / "runs/mine/log.jsonl").read_bytes() == before
    record = tmp_path / "runs/mine/run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "kind": "VaeConfig"}))
    with pytest.raises(UserError, match="VaeConfig, not of DiffusionConfig"):
        main(name="mine", num_updates=1, resume="latest")


def test_a_folder_of_something_else_is_left_alone(main, tmp_path):
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/mine/thesis.txt").write_text("years of work")
    for resume in ("null", "latest"):
        with pytest.raises(UserError, match="not a training run"):
            main(name="mine", resume=resume)
    assert [p.name for p in (tmp_path / "runs/mine").iterdir()] == ["thesis.txt"]


def test_a_failed_start_leaves_nothing(main, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        main(name="new", data__path="./missing")
    with pytest.raises(UserError, match="no scheduler"):
        main(name="new", sampling__scheduler="Magic")
    with pytest.raises(UserError, match="multiple of"):
        main(name="new", data__image_size=9)
    assert not (tmp_path / "runs/new").exists()


def test_resuming_from_a_named_checkpoint_that_is_not_there(main):
    with pytest.raises(UserError, match="holds no run"):
        main(name="new", resume="runs/new/checkpoints/update_00000005")


def test_a_corrupt_image_in_a_stream_costs_no_training(main, tmp_path):
    """Only decoding finds it, in the middle of the first epoch; the run goes on once the file is mended."""
    write_images(tmp_path / "set", count=16)
    whole = (tmp_path / "set/dog/9.png").read_bytes()
    (tmp_path / "set/dog/9.png").write_bytes(whole[:-60])
    settings = {"name": "stream", "data__path": tmp_path / "set", "data__memory_limit_mb": 0, "batch_size": 1}
    settings |= {"gradient_accumulation_steps": 1, "num_updates": 16, "seed": 1, "run__checkpoint_every": 100}
    with pytest.raises(UserError, match=r"9\.png"):
        main(**settings)
    (saved,) = (tmp_path / "runs/stream/checkpoints").iterdir()
    (tmp_path / "set/dog/9.png").write_bytes(whole)
    settings["data__memory_limit_mb"] = 100  # how the data is held is nobody's business but the machine's
    main(**settings, resume="latest")
    sessions = json.loads((tmp_path / "runs/stream/run.json").read_text())["sessions"]
    assert sessions[1]["from_update"] == int(saved.name.split("_")[1]) > 0


@pytest.mark.filterwarnings("ignore:.*no supported trackers")
def test_trackers_that_are_not_there(main):
    with pytest.raises(UserError, match=r"run\.tracker 'abacus'.*tensorboard"):
        main(name="new", run__tracker="abacus")
    with pytest.raises(UserError, match=r"'swanlab' is not installed"):
        main(name="new", run__tracker="swanlab")


def test_tensorboard_events_are_written(main, tmp_path):
    main(name="board", num_updates=1, run__log_every=1, run__tracker="tensorboard")
    assert list((tmp_path / "runs/board").rglob("events.out.tfevents*"))


@pytest.mark.parametrize("config", [DiffusionConfig, DistillationConfig, VaeConfig, GanConfig, ClassifierConfig])
def test_help_explains_every_setting(config):
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(config)
    groups = {action.dest for action in parser._actions if "CONFIG" in str(action.metavar)}
    unexplained = [a.dest for a in parser._actions if a.dest not in groups and not str(a.help or "").strip()]
    assert len(parser._actions) > 40 and unexplained == []
