"""Run folders after accidents: nothing trained is lost, nothing wrong is trained on, and what happened is told."""

from __future__ import annotations

from triptych.cli import command

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, environment, flags, launched
from PIL import Image
from stand_ins import classifier_flags, gan_flags, vae_flags

from triptych.config.classifier import ClassifierConfig
from triptych.config.diffusion import DiffusionConfig
from triptych.config.gan import GanConfig
from triptych.config.vae import VaeConfig
from triptych.errors import UserError
from triptych.training import checkpoints, run_folder
from triptych.training.log import ScalarLog

TRAININGS = {
    "train_diffusion": (DiffusionConfig, flags),
    "train_vae": (VaeConfig, vae_flags),
    "train_gan": (GanConfig, gan_flags),
    "train_classifier": (ClassifierConfig, classifier_flags),
}


@pytest.fixture
def start(monkeypatch, tmp_path):
    """A training in this process, from its command line on; the run's folder."""
    monkeypatch.chdir(tmp_path)

    def call(script: str, *arguments: object) -> Path:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        configs = []
        command(lambda config: configs.append(config), TRAININGS[script][0])
        importlib.import_module(script).main(configs[0])
        return Path(configs[0].run.output_dir) / configs[0].name

    return call


@pytest.fixture
def train(start):
    """The tiny experiment of one of the scripts."""

    def call(name: str, script: str = "train_vae", **changes: object) -> Path:
        return start(script, *TRAININGS[script][1](name=name, **{k: str(v) for k, v in changes.items()}))

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of twelve updates with checkpoints of 8 and 12."""
    folder = tmp_path_factory.mktemp("trained")
    script = [sys.executable, str(ROOT / "scripts/train_vae.py"), *vae_flags(name="run")]
    done = launched(script, folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("Training run: cpu, 1 thread, precision fp32.\n")
    return folder / "runs/run"


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of it, stopped before its pipeline was saved."""
    shutil.copytree(trained, tmp_path / "runs/run")
    shutil.rmtree(tmp_path / "runs/run/pipeline")
    return tmp_path / "runs/run"


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


# ---- checkpoints ----------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def zero_within(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(100)
    path.write_bytes(content)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


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


# ---- records --------------------------------------------------------------------------------------


def cut_at_a_line(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [empty, cut_in_half, cut_at_a_line, remove])
@pytest.mark.parametrize("name", run_folder.RECORDS)
def test_a_torn_record_is_taken_from_the_checkpoint(run, train, name, damage, capsys):
    before = (run / name).read_text()
    damage(run / name)
    with pytest.raises(UserError, match="already holds a run"):
        train("run")
    train("run", resume="latest")
    said = capsys.readouterr().err
    assert f"runs/run/{name} is " in said and "its copy" in said and "update_00000012" in said
    if name == "config.yaml":
        assert (run / name).read_text() == before
    else:
        sessions = json.loads((run / name).read_text())["sessions"]
        assert [session["from_update"] for session in sessions] == [0, 12]


def test_a_torn_config_given_by_name_points_at_its_copy(run, start, capsys):
    empty(run / "config.yaml")
    with pytest.raises(SystemExit):
        start("train_vae", "--config", run / "config.yaml", "--resume", "latest")
    copy = run / "checkpoints/update_00000012/config.yaml"
    assert f"--config {copy}" in capsys.readouterr().err
    assert start("train_vae", "--config", copy, "--resume", "latest").resolve() == run
    assert (run / "pipeline").exists() and (run / "config.yaml").read_text() == copy.read_text()


def test_settings_that_a_cut_config_lost_are_not_replaced_by_defaults(run, start, capsys):
    """Half of a config is a config: resumed by it, the run would go on with other settings."""
    lines = (run / "config.yaml").read_text().splitlines(keepends=True)
    (run / "config.yaml").write_text("".join(lines[: next(k for k, line in enumerate(lines) if "optimizer" in line)]))
    with pytest.raises(UserError, match=r"other settings.*--config runs/run/checkpoints/update_00000012/config\.yaml"):
        start("train_vae", "--config", "runs/run/config.yaml", "--resume", "latest")


@pytest.mark.parametrize("name", run_folder.RECORDS)
def test_a_torn_record_without_a_copy_is_named_with_the_mend(run, train, start, name, capsys):
    for checkpoint in checkpoints.listed(run / "checkpoints"):  # as they were before they held copies
        for record in run_folder.RECORDS:
            remove(checkpoint / record)
        files = {path.name: path.stat().st_size for path in checkpoint.iterdir() if path.name != "manifest.json"}
        (checkpoint / "manifest.json").write_text(json.dumps({"files": files}))
    whole = (run / name).read_text()
    zero(run / name)
    with pytest.raises(UserError, match=rf"{name} is empty or torn, and no checkpoint holds a copy\. (Write|Remove)"):
        train("run", resume="latest")
    if name == "config.yaml":
        (run / name).write_text(whole)
    else:
        remove(run / name)
    train("run", resume="latest")
    assert (run / "pipeline").exists()


@pytest.mark.parametrize("damage", [remove, empty, cut, zero, cut_at_a_line])
def test_a_log_that_is_not_the_checkpoints_is_begun_afresh(run, train, damage, capsys):
    rows = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(rows[:2]))  # as it was when checkpoint 8 was written
    damage(run / "log.jsonl")
    left = (run / "log.jsonl").read_bytes() if (run / "log.jsonl").exists() else b""
    shutil.rmtree(run / "checkpoints/update_00000012")
    train("run", resume="latest")
    assert "it is begun afresh" in capsys.readouterr().err
    log = (run / "log.jsonl").read_bytes()
    assert b"\0" not in log and [json.loads(line)["update"] for line in log.splitlines()] == [9, 12]
    aside = list(run.glob("log_until_*.jsonl"))
    assert [path.read_bytes() for path in aside] == ([left] if left else [])


# ---- a folder that moved, a second process ---------------------------------------------------------


@pytest.mark.parametrize("where", ["runs/other", "elsewhere/other", "run"])
def test_a_renamed_run_goes_on_in_its_folder(run, start, where, tmp_path, monkeypatch, capsys):
    moved = tmp_path / where
    moved.parent.mkdir(exist_ok=True)
    run.rename(moved)
    for folder, config in ((tmp_path, moved / "config.yaml"), (moved, "config.yaml"), (moved, "./config.yaml")):
        shutil.rmtree(moved / "pipeline", ignore_errors=True)
        monkeypatch.chdir(folder)
        assert start("train_vae", "--config", config, "--resume", "latest").resolve() == moved
        assert (moved / "pipeline").exists()
    assert "note: going on in " in capsys.readouterr().err
    assert list((tmp_path / "runs").iterdir()) == ([moved] if moved.parent.name == "runs" else [])
    assert not (moved / "runs").exists()


def test_a_renamed_run_goes_on_by_its_new_name(run, train, tmp_path):
    run.rename(tmp_path / "runs/other")
    train("other", resume="latest")
    assert (tmp_path / "runs/other/pipeline").exists() and not run.exists()


def test_what_the_command_line_says_of_the_folder_counts(run, start, tmp_path):
    """The settings of one run for another: repeated under another name."""
    arguments = ["--config", run / "config.yaml", "--name", "again", "--num_updates", 2, "--resume", "latest"]
    assert start("train_vae", *arguments) == Path("runs/again")
    assert not (run / "pipeline").exists()
    assert start("train_vae", "--config", run / "config.yaml", "--run.output_dir", "b", "--resume", "latest") == Path(
        "b/run"
    )


def hold(folder: Path, seconds: int = 60) -> subprocess.Popen:
    """Another process that trains the run in `folder`."""
    program = (
        "import time; from pathlib import Path; from triptych.training import run_folder\n"
        f"run_folder.lock(Path({str(folder)!r}))\n"
        f"print('held', flush=True); time.sleep({seconds})"
    )
    process = subprocess.Popen([sys.executable, "-c", program], env=environment(), stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_process_is_refused_and_a_killed_one_leaves_nothing_behind(run, train):
    before = {path: path.read_bytes() for path in run.glob("*.*")}
    other = hold(run)
    try:
        with pytest.raises(UserError, match="is being trained by another process"):
            train("run", resume="latest")
        assert before == {path: path.read_bytes() for path in run.glob("*.*")}
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    train("run", resume="latest")
    assert (run / "pipeline").exists()
    hold(run, 0).wait(timeout=60)  # a finished run is let go of, by this process too


def test_loaders_that_outlive_a_killed_training_hold_nothing(run, train):
    """They are forked from it, with all that it has open."""
    program = (
        "import os, sys, time; from pathlib import Path; from triptych.training import run_folder\n"
        f"run_folder.lock(Path({str(run)!r}))\n"
        "if os.fork() == 0: time.sleep(20); os._exit(0)\n"
        "print('forked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment(), stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout.readline() == b"forked\n"
    process.kill()
    process.wait()
    try:
        train("run", resume="latest")
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_two_trainings_of_one_new_name(train, tmp_path):
    """Both found the folder free; the second to begin is refused."""
    (tmp_path / "runs/run").mkdir(parents=True)
    other = hold(tmp_path / "runs/run")
    try:
        with pytest.raises(UserError, match="is being trained by another process"):
            train("run")
    finally:
        other.kill()
        other.wait()
    train("run")


def test_a_file_system_without_locks_is_told(run, train, monkeypatch, capsys):
    def no_locks(*_args):
        raise OSError(37, os.strerror(37))

    monkeypatch.setattr(run_folder.fcntl, "flock", no_locks)
    train("run", resume="latest")
    assert "note: no locks at runs/run (No locks available)" in capsys.readouterr().err


def test_one_process_where_two_were_asked_for_is_told(tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "-q", "--cpu", "--num_processes", "2"]
    script = [str(ROOT / "scripts/train_vae.py"), *vae_flags(name="x", num_updates=1)]
    done = launched([*command, *script], tmp_path)
    assert done.returncode == 0 and "Training x: cpu, " in done.stderr, done.stderr
    assert "warning: accelerate was asked for several processes and started one" in done.stderr
