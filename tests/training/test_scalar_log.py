"""The log of a run: means over steps, rows on disk, and what a resumed run finds there."""

from __future__ import annotations

import json
import math

import pytest
import torch

from triptych.training.log import COLLAPSE_NEEDS, ScalarLog, TrainingFailed, collapsed

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
    with pytest.raises(TrainingFailed, match="loss_kl became nan at update 8"):
        log.settle()


LEARNT = [2.0, *(0.2 + 0.02 * math.sin(k) for k in range(30))]


def feed(log: ScalarLog, losses: list[float], first_update: int = 1) -> None:
    for update, loss in enumerate(losses, start=first_update):
        log.refuse_collapse({"update": update, "loss": loss})


def test_a_loss_that_has_risen_back_to_where_it_began_and_stays_there_is_told(log, tmp_path):
    feed(log, [*LEARNT, 1.8, 2.2, 1.9])
    resumed = ScalarLog(tmp_path, lambda values: values, writes=True)
    resumed.load_state_dict(log.state_dict())
    for each in (log, resumed):
        with pytest.raises(TrainingFailed, match=r"rose from 0\.199 to 2.1 at update 32, and was still there at 35"):
            feed(each, [2.1], 35)
    said = str(
        TrainingFailed("x", 32, "Lower it.").explained(tmp_path, [tmp_path / f"update_{k:08d}" for k in (30, 34)])
    )
    assert f"The last good checkpoint is kept ({tmp_path / 'update_00000030'}). Lower it." in said


@pytest.mark.parametrize(
    "losses",
    [
        [*LEARNT, 2.0, 2.0, 2.0, 0.2, 2.0, 2.0],  # it came back at once
        [*LEARNT, *[0.7] * 9],  # more than three times as much, but not where it began
        [2.0, *[0.001, 0.004] * 30],  # small losses tremble
        [2.0, *[1.0] * 30, *[2.0] * 30],  # twice as much, a weight that grows
        [0.1, *[-0.2] * 30, *[5.0] * 30],  # of a density, which may be negative
        [2.0, *[0.2] * 10, *[2.0] * 10],  # too little to judge by
    ],
)
def test_other_losses_are_left_alone(log, losses):
    feed(log, losses)


def test_as_many_rows_are_remembered_as_are_looked_at(log):
    feed(log, LEARNT * 3 + [0.2] * 30)
    assert len(log.state_dict()["losses"]) == COLLAPSE_NEEDS + 1 and log.state_dict()["losses"][0] == (1, 2.0)
    assert collapsed(log.state_dict()["losses"]) is None
    log.load_state_dict({"bytes": 0, "settled": {}})  # a checkpoint of before
    feed(log, [0.2, 2.0])


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
