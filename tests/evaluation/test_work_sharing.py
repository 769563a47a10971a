"""Processes that share work, and commands that refuse to be several."""

from __future__ import annotations

import importlib

import pytest
from conftest import ROOT, launch_command, launched

from triptych.errors import UserError
from triptych.evaluation.work_sharing import Processes, join, require_one_process
from triptych.studies import stages

SHARES = """
import os
import sys
sys.path.insert(0, {root!r})
from triptych.evaluation.work_sharing import join
processes = join()
gathered = processes.gather([processes.index])
said = processes.from_main(None if processes.is_main else "of another process")
processes.wait()
line = " ".join(map(str, (processes.count, gathered, said)))
os.write(1, (line + chr(10)).encode())  # at once, so that two lines cannot mix
"""


def test_alone_everything_is_one_s_own(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join() == Processes(0, 1) and join().is_main
    assert join().gather("mine") == ["mine"] and join().from_main([1]) == [1]
    join().wait()
    require_one_process()


def test_two_processes_gather_in_their_order_and_hear_the_main_one(tmp_path):
    (tmp_path / "shares.py").write_text(SHARES.format(root=str(ROOT)))
    command = launch_command("--multi_gpu", "--num_processes", "2", script=tmp_path / "shares.py")
    done = launched(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2 [[0], [1]] None"] * 2


def test_what_is_not_shared_is_refused_in_several_processes(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for call in (
        lambda: importlib.import_module("generate").main("pipeline", tmp_path / "out"),
        lambda: importlib.import_module("studies.reconstruction").main("pipeline", output=tmp_path / "out"),
        lambda: importlib.import_module("score_vae").main("pipeline", output=tmp_path / "out.json"),
        lambda: importlib.import_module("score_denoiser").main(output=tmp_path / "out", methods=""),
        lambda: stages.run("score.py"),
    ):
        with pytest.raises(UserError, match="2 processes were launched, but this command does its work in one"):
            call()
    assert not list(tmp_path.iterdir())
