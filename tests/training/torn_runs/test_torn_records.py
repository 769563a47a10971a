"""Records that are torn, folders that moved, second processes: what happened is told, and the run goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, environment, launched
from stand_ins import vae_flags

from torn_runs.damage import cut, cut_at_a_line, cut_in_half, empty, remove, zero
from triptych.errors import UserError
from triptych.training import checkpoints, run_folder


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


def test_a_run_that_lost_its_config_is_no_branch_of_its_own_checkpoint(run, train):
    """Given by its folder, too: what the sessions were stays, and nothing says that it goes on from elsewhere."""
    (run / "config.yaml").unlink()
    own = run / "checkpoints/update_00000008"
    assert run_folder.trunk_of(run, str(own)) is None
    train("run", resume=own)
    record = json.loads((run / "run.json").read_text())
    assert "branched_from" not in record and [session["from_update"] for session in record["sessions"]] == [0, 8]


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
