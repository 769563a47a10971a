"""Seeds differ where their keys differ, and only there."""

from __future__ import annotations

import torch

from triptych.seeds import keyed_generator, keyed_seed


def test_equal_keys_equal_numbers():
    draws = [torch.randn(5, generator=keyed_generator("noise", 3, 7)) for _ in range(2)]
    assert torch.equal(*draws)


def test_other_keys_other_numbers():
    keys = [("a", 1, 2), ("a", 2, 1), ("a", 1, 2, 0), ("a", 12), ("a", 1), ("a", 1, 0), ("b", 1, 2), ("a",)]
    assert len({keyed_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= keyed_seed(*key) < 2**63 for key in keys)
