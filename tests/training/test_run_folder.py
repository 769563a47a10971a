"""What may be written to a run's folder, without a training."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from triptych.config.base import DataConfig, read_yaml
from triptych.config.diffusion import DiffusionConfig
from triptych.config.training import OptimizerConfig, RunConfig
from triptych.config.vae import VaeConfig
from triptych.errors import UserError
from triptych.training.run_folder import begin_session, refuse_unless_fits

DATA = {"num_images": 1437, "channels": 1}
SETTINGS = {"name": "x", "optimizer": OptimizerConfig(lr_schedule="cosine")}


@pytest.fixture
def folder(tmp_path):
    begin_session(tmp_path / "x", DiffusionConfig(**SETTINGS, resume="latest"), DATA, {"from_update": 0})
    return tmp_path / "x"


def test_sessions_are_entered_one_after_the_other(folder):
    begin_session(folder, DiffusionConfig(**SETTINGS, batch_size=64), DATA, {"from_update": 7})
    record = json.loads((folder / "run.json").read_text())
    assert record["kind"] == "DiffusionConfig" and record["data"] == DATA
    assert [session["from_update"] for session in record["sessions"]] == [0, 7]
    assert all(session["started"] for session in record["sessions"])
    saved = read_yaml(folder / "config.yaml")
    assert saved["batch_size"] == 64 and saved["resume"] is None, "the last session's settings, ready for a new run"
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "run.json"]


def test_other_data_are_refused(folder):
    before = (folder / "run.json").read_text()
    with pytest.raises(UserError, match=r"started on other data.*1437.*data.path 'digits' gives.*1438"):
        begin_session(folder, DiffusionConfig(**SETTINGS), DATA | {"num_images": 1438}, {})
    assert (folder / "run.json").read_text() == before


def test_bookkeeping_may_change_and_what_is_learned_may_not(folder):
    resumed = DiffusionConfig(**SETTINGS, resume="latest")
    moved = replace(resumed.data, path="elsewhere", num_workers=2)
    refuse_unless_fits(folder, replace(resumed, batch_size=64, data=moved, run=RunConfig(log_every=1)))
    changes = {"seed": 1, "data": DataConfig(channels=3), "num_updates": 5}
    for key, value in changes.items():
        with pytest.raises(UserError, match=rf"other settings \({key}.*--resume latest"):
            refuse_unless_fits(folder, replace(resumed, **{key: value}))
    with pytest.raises(UserError, match="DiffusionConfig, not of VaeConfig"):
        refuse_unless_fits(folder, VaeConfig(name="x", resume="latest"))
    with pytest.raises(UserError, match="already holds a run"):
        refuse_unless_fits(folder, replace(resumed, resume=None))


def test_a_constant_learning_rate_lets_a_run_grow(tmp_path):
    config = DiffusionConfig(name="x", optimizer=OptimizerConfig(lr_schedule="constant"), num_updates=5)
    begin_session(tmp_path / "x", config, DATA, {})
    refuse_unless_fits(tmp_path / "x", replace(config, num_updates=10, resume="latest"))


def test_a_run_from_before_a_setting_goes_on_with_its_default(folder):
    """A config.yaml that lacks what was added since is taken as if it had the default, and nothing else."""
    path = folder / "config.yaml"
    saved = read_yaml(path)
    del saved["noise_levels"], saved["data_std"]
    path.write_text(yaml.safe_dump(saved))
    resumed = DiffusionConfig(**SETTINGS, resume="latest")
    refuse_unless_fits(folder, resumed)
    with pytest.raises(UserError, match=r"data_std: 1\.0 -> 0\.5"):
        refuse_unless_fits(folder, replace(resumed, data_std=0.5))
