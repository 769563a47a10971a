"""Checkpoints after accidents: nothing trained is lost, and nothing wrong is trained on."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, launched
from PIL import Image
from stand_ins import vae_flags

from torn_runs.conftest import TRAININGS
from torn_runs.damage import cut, empty, flip_a_bit, make_a_folder, remove, zero, zero_within
from triptych.errors import UserError
from triptych.training import checkpoints
from triptych.training.log import ScalarLog

# ---- what comes after an update -----------------------------------------------------------------


@pytest.mark.parametrize("script", TRAININGS)
def test_a_picture_or_a_score_that_fails_costs_no_training(train, script, monkeypatch, capsys):
    module = importlib.import_module(script)
    broken = "validate_classifier" if script == "train_classifier" else "save_image_grid"

    def fail(*_args, **_kwargs):
        raise RuntimeError("the pencil broke")

    whole = train("whole", script=script)
    monkeypatch.setattr(module, broken, fail)
    if script == "train_classifier":
        monkeypatch.setattr(module, "score", fail)
    every = {"validate_every": 3} if script == "train_classifier" else {"run__sample_every": 3}
    folder = train("broken", script=script, **every)
    said = capsys.readouterr().err
    assert said.count("the pencil broke") >= 4 and "warning: " in said
    assert list(folder.glob("traceback_*.txt"))
    assert [c.name for c in checkpoints.listed(folder / "checkpoints")] == ["update_00000008", "update_00000012"]
    saved = "classifier" if script == "train_classifier" else "pipeline"
    for path in (whole / saved).rglob("*.safetensors"):
        assert (folder / saved / path.relative_to(whole / saved)).read_bytes() == path.read_bytes()


def test_a_training_that_collapses_stops_and_keeps_the_checkpoint_of_before(train, monkeypatch):
    """As one of ours did in the night: it went on for hours, and good checkpoints gave way to bad ones."""
    take_means, bad = ScalarLog.take_means, range(33, 45)

    def means(log: ScalarLog) -> dict[str, float]:
        means.row += 1
        return take_means(log) | {"loss": 300.0 if means.row in {1, *bad} else 90.0}

    means.row = 0
    monkeypatch.setattr(ScalarLog, "take_means", means)
    settings = {"run__log_every": 1, "run__checkpoint_every": 10, "run__keep_checkpoints": 1, "num_updates": 50}
    with pytest.raises(UserError, match=r"loss rose from 90 to 300 at update 33.*still there at 36") as told:
        train("collapses", **settings)
    assert "checkpoints/update_00000030). A lower optimizer.lr" in str(told.value)
    assert [path.name for path in Path("runs/collapses/checkpoints").iterdir()] == ["update_00000030"]
    means.row = 0
    train("goes_on", **settings, run__stop_if_collapsed="false")


def test_publishing_that_fails_names_how_to_do_it_later(train, monkeypatch):
    monkeypatch.setattr("triptych.publishing.client.refuse_unless_free", lambda *_: None)

    def fail(*_args, **_kwargs):
        raise ConnectionResetError("the line broke")

    monkeypatch.setattr("triptych.publishing.staging.publish", fail)
    with pytest.raises(UserError, match=r"the line broke.*run is whole in runs/x; publish it with `python"):
        train("x", run__push_to="me/x")
    assert Path("runs/x/pipeline/model_index.json").exists()


@pytest.mark.parametrize(
    ("script", "count"), [("train_vae", 1), ("train_gan", 1), *((script, 2) for script in TRAININGS)]
)
def test_sets_of_one_or_two_images(train, script, count, tmp_path):
    for split in ("train", "test"):
        for k in range(count):
            path = tmp_path / f"set/{split}/{'ab'[k]}/{k}.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(np.full((8, 8), 80 * (k + 1), np.uint8)).save(path)
    folder = train("few", script=script, data__path=tmp_path / "set", num_updates=2, run__log_every=1)
    assert script == "train_classifier" or list((folder / "samples").glob("*.png"))
    assert (folder / "pipeline").exists() or (folder / "classifier").exists()


@pytest.mark.parametrize("damage", [cut, zero, zero_within, flip_a_bit, remove, empty, make_a_folder])
def test_a_damaged_file_of_a_checkpoint_is_noticed(trained, damage, tmp_path):
    whole = trained / "checkpoints/update_00000012"
    names = {path.name for path in whole.iterdir()}
    assert {"model.safetensors", "optimizer.bin", "custom_checkpoint_0.pkl", "config.yaml", "run.json"} <= names
    assert checkpoints.what_is_torn(whole) is None
    for name in names:
        torn = tmp_path / name / whole.name
        shutil.copytree(whole, torn)
        damage(torn / name)
        problem = checkpoints.what_is_torn(torn)
        assert problem and ("manifest" if name == "manifest.json" else name) in problem, name


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"files": []}', '{"files": {}}', '{"files": {"x": 1}}'])
def test_a_manifest_that_lists_nothing_seals_nothing(trained, content, tmp_path):
    shutil.copytree(trained / "checkpoints/update_00000012", tmp_path / "update_00000012")
    (tmp_path / "update_00000012/manifest.json").write_text(content)
    assert checkpoints.what_is_torn(tmp_path / "update_00000012")


def test_the_next_good_checkpoint_is_taken(run, train, capsys):
    zero_within(run / "checkpoints/update_00000012/model.safetensors")
    log = (run / "log.jsonl").read_bytes()
    train("run", resume="latest")
    said = capsys.readouterr().err
    assert "passing over runs/run/checkpoints/update_00000012: the bytes of model.safetensors are not" in said
    assert "Resuming from runs/run/checkpoints/update_00000008" in said
    assert (run / "log.jsonl").read_bytes() == log and (run / "pipeline").exists()


def test_manifests_of_old_have_no_checksums(run, train, capsys):
    path = run / "checkpoints/update_00000012/manifest.json"
    path.write_text(json.dumps({"files": json.loads(path.read_text())["files"]}))
    train("run", resume="latest")
    assert "Resuming from runs/run/checkpoints/update_00000012" in capsys.readouterr().err
    shutil.rmtree(run / "pipeline")
    zero(run / "checkpoints/update_00000012/optimizer.bin")  # which such a manifest can't tell
    with pytest.raises(UserError, match=r"update_00000012 cannot be loaded.*there are runs/.*update_00000008"):
        train("run", resume="latest")


def test_where_no_checkpoint_is_whole_nothing_is_begun_anew(run, train):
    for checkpoint in checkpoints.listed(run / "checkpoints"):
        cut(checkpoint / "model.safetensors")
    log = (run / "log.jsonl").read_bytes()
    with pytest.raises(
        UserError, match=r"None of the checkpoints in runs/run/checkpoints is whole.*model\.safetensors"
    ):
        train("run", resume="latest")
    assert (run / "log.jsonl").read_bytes() == log


def test_what_the_user_made_beside_the_checkpoints_stays(run, train):
    for name in ("update_00000008_good", "update_best"):
        shutil.copytree(run / "checkpoints/update_00000008", run / "checkpoints" / name)
    train("run", resume=run / "checkpoints/update_00000008", run__keep_checkpoints=1, run__checkpoint_every=1)
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["update_00000008_good", "update_00000012", "update_best"]


def test_the_checkpoint_just_written_is_never_the_one_removed(tmp_path):
    for update in (1, 2, 3, 2):  # gone back behind 3
        (checkpoints.begin(tmp_path, update) / "weights").write_bytes(b"x")
        checkpoints.commit(tmp_path / f".writing_{update:08d}", keep=1)
    assert [checkpoints.update_of(c) for c in checkpoints.listed(tmp_path)] == [2, 3]


def test_fewer_updates_than_are_done_are_refused(train, tmp_path):
    constant = {"optimizer__lr_schedule": "constant", "run__checkpoint_every": 3}
    folder = train("run", num_updates=6, **constant)
    before = {name: (folder / name).read_bytes() for name in ("config.yaml", "run.json", "log.jsonl")}
    with pytest.raises(UserError, match=r"num_updates 3 is less than the 6 that .*update_00000006 has done"):
        train("run", num_updates=3, resume="latest", **constant)
    assert before == {name: (folder / name).read_bytes() for name in before}
    train("run", num_updates=6, resume="latest", **constant)
    train("run", num_updates=7, resume="latest", **constant)


# ---- no room, no right ----------------------------------------------------------------------------


def test_no_room_for_a_checkpoint(tmp_path, trained):
    """The run, resumed where no file may grow beyond a few kilobytes: the paragraph names the place."""
    shutil.copytree(trained, tmp_path / "runs/run")
    folder = tmp_path / "runs/run/checkpoints"
    shutil.rmtree(folder / "update_00000012")
    program = (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        f"runpy.run_path({str(ROOT / 'scripts/train_vae.py')!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", program, *vae_flags(name="run", resume="latest")]
    done = launched(command, tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "The checkpoint of update 12 cannot be written to runs/run/checkpoints" in done.stderr
    assert "MB free there" in done.stderr and "Kept: update_00000008." in done.stderr
    assert [path.name for path in folder.iterdir()] == ["update_00000008"], "nothing half-written is left"
    assert checkpoints.what_is_torn(folder / "update_00000008") is None


def test_no_room_for_a_row_of_the_log(monkeypatch, tmp_path):
    def fail(self, *_args, **_kwargs):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("triptych.training.log.json.dumps", fail)
    with pytest.raises(UserError, match=r"log\.jsonl cannot be written: No space left"):
        ScalarLog(tmp_path, lambda x: x, True).write({}, {})


@pytest.mark.parametrize("where", ["file", "file/deep/er", "/proc/nowhere", "x" * 300], ids=str.split)
def test_a_folder_that_cannot_be_made_is_named_before_any_work(train, where, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("train_vae.load_images", lambda *_: pytest.fail("read images first"))
    with pytest.raises(UserError, match=r"cannot be written: .* at "):
        train("run", run__output_dir=where)
    assert (tmp_path / "file").read_text() == "mine"
