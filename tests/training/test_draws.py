"""The random numbers of a step: those of all processes together are those of one."""

from __future__ import annotations

import pytest
import torch

from triptych.seeds import keyed_generator
from triptych.training.draws import Draws


def draws(process_index: int = 0, num_processes: int = 1, step: int = 3) -> Draws:
    made = Draws()
    made.generator, made.device, made.step = keyed_generator("step", 0, step), torch.device("cpu"), step
    made.process_index, made.num_processes = process_index, num_processes
    return made


@pytest.mark.parametrize(
    "draw",
    [
        lambda of, size: of.randn(size, 2, 3),
        lambda of, size: of.rand(size),
        lambda of, size: of.spread(size),
        lambda of, size: of.randint(10, size),
    ],
    ids=["randn", "rand", "spread", "randint"],
)
def test_two_processes_draw_what_one_draws(draw):
    together = torch.cat([draw(draws(index, 2), 4) for index in (0, 1)])
    torch.testing.assert_close(together, draw(draws(), 8))


def test_spread_numbers_are_one_in_each_of_equal_parts():
    numbers = draws().spread(16)
    assert sorted((numbers * 16).int().tolist()) == list(range(16))
    assert not torch.equal(numbers, draws(step=4).spread(16))


def test_positions_count_the_images_of_the_whole_run():
    assert [list(draws(index, 2, step=5).positions(3)) for index in (0, 1)] == [[30, 31, 32], [33, 34, 35]]
    assert list(draws(step=5).positions(6)) == list(range(30, 36))
