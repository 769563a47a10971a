"""Which images a step sees: every image once an epoch, whatever the processes, from any step on."""

from __future__ import annotations

from triptych.data.order import BatchOrder

# ---- order ---------------------------------------------------------------------------------------------


def test_every_image_once_an_epoch():
    steps = list(BatchOrder(num_images=10, batch_size=4, seed=1, stop=5))
    flat = [i for batch in steps for i in batch]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]


def test_skipping_is_exact():
    whole = list(BatchOrder(10, 4, seed=1, stop=9))
    assert list(BatchOrder(10, 4, seed=1, start=6, stop=9)) == whole[6:]


def test_two_processes_share_the_batch_of_one():
    one = list(BatchOrder(10, 4, seed=1, stop=6))
    two = [list(BatchOrder(10, 2, seed=1, stop=6, process_index=p, num_processes=2)) for p in range(2)]
    assert [a + b for a, b in zip(*two, strict=True)] == one


def test_seed_decides_the_order():
    assert list(BatchOrder(50, 8, seed=1, stop=2)) != list(BatchOrder(50, 8, seed=2, stop=2))
