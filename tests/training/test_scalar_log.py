"""The log of a run: means over steps, rows on disk, and what a resumed run finds there."""

from __future__ import annotations

import json
import math

import pytest
import torch

from triptych.training.log import NotFinite, ScalarLog

CPU = torch.device("cpu")


@pytest.fixture
def log(tmp_path) -> ScalarLog:
    return ScalarLog(tmp_path, lambda values: values, writes=True)


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_means_are_over_the_steps_since_the_last_time(log):
    log.record(1, {"loss": 1.0, "kl": torch.tensor(4.0, requires_grad=True)}, CPU)
    log.record(1, {"loss": 2.0}, CPU)
    log.settle()
    log.record(2, {"loss": 6.0}, CPU)
    assert log.take_means() == {"loss": 3.0, "kl": 4.0}
    assert log.take_means() == {}


def test_a_loss_that_is_no_number_is_told_with_its_update(log):
    log.record(7, {"loss_kl": 1.0, "grad_norm": math.inf}, CPU)
    log.settle()  # a norm may be infinite
    log.record(8, {"loss_kl": math.nan}, CPU)
    with pytest.raises(NotFinite, match="loss_kl became nan at update 8"):
        log.settle()


def test_rows_after_the_state_are_dropped_and_those_before_stay(log, tmp_path):
    log.write({"update": 1}, {"seconds": 1})
    state = log.state_dict()
    log.write({"update": 2}, {"seconds": 2})
    resumed = ScalarLog(tmp_path, lambda values: values, writes=True)
    resumed.load_state_dict(state)
    resumed.cut_back()
    assert rows(tmp_path) == [{"update": 1}]
    resumed.write({"update": 2, "again": True}, {"seconds": 3})
    assert rows(tmp_path) == [{"update": 1}, {"update": 2, "again": True}]


def test_another_log_is_kept_beside_the_new_one(log, tmp_path, capsys):
    log.write({"update": 1}, {})
    state = log.state_dict()
    (tmp_path / "log.jsonl").write_text("x")  # shorter than what the state knew
    log.load_state_dict(state)
    log.cut_back()
    assert rows(tmp_path) == []
    (kept,) = tmp_path.glob("log_until_*.jsonl")
    assert kept.read_text() == "x" and "begun afresh" in capsys.readouterr().err


def test_only_the_process_that_writes_does(tmp_path):
    ScalarLog(tmp_path, lambda values: values, writes=False).write({"update": 1}, {})
    assert not list(tmp_path.iterdir())
