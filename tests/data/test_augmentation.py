"""Shifts and squares cut out, which the judge's training augments its images by."""

from __future__ import annotations

import torch

from triptych.data.augmentation import cut_out, shift_with_reflection


def test_shifts_move_and_reflect():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    zero, one, two = (torch.tensor([n]) for n in (0, 1, 2))
    assert torch.equal(shift_with_reflection(image, zero, zero, 2), image)
    down = shift_with_reflection(image, one, zero, 2)
    assert torch.equal(down[0, 0, 1:], image[0, 0, :2]) and torch.equal(down[0, 0, 0], image[0, 0, 1])
    left = shift_with_reflection(image, zero, -two, 2)
    assert left[0, 0, 0].tolist() == [2, 3, 2, 1]


def test_each_image_has_its_own_shift():
    images = torch.rand(5, 3, 8, 8)
    down, right = torch.tensor([-2, -1, 0, 1, 2]), torch.tensor([2, 0, -2, 1, -1])
    together = shift_with_reflection(images, down, right, 2)
    apart = [shift_with_reflection(images[i : i + 1], down[i : i + 1], right[i : i + 1], 2) for i in range(5)]
    assert torch.equal(together, torch.cat(apart))


def test_cut_out_is_a_square_as_far_as_it_lies_inside():
    images = torch.ones(3, 2, 6, 6)
    cut = cut_out(images, torch.tensor([1, -1, 5]), torch.tensor([2, -1, 0]), 3)
    assert (cut == 0).sum((1, 2, 3)).tolist() == [2 * 9, 2 * 4, 2 * 3]
    assert (cut[0, :, 1:4, 2:5] == 0).all() and (cut[1, :, :2, :2] == 0).all() and (cut[2, :, 5, :3] == 0).all()
    assert (images == 1).all(), "the caller's images are left alone"
