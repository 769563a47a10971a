"""Contours: points where the function has the height, each line of them whole."""

from __future__ import annotations

import numpy as np
import torch

from triptych.figures.contours import contours, rounded


def test_the_height_of_a_cone_is_a_circle():
    (low, high) = contours(lambda x: -x.norm(dim=1), [-3.0, -1.0], half=4.0, n=200)
    for level, radius in ((low, 3), (high, 1)):
        assert level["level"] == -radius
        (line,) = level["lines"]
        np.testing.assert_allclose(np.hypot(*np.array(line).T), radius, atol=0.02)
    assert contours(lambda x: -x.norm(dim=1), [1.0], half=4.0)[0]["lines"] == [], "nowhere so high"


def test_x_grows_to_the_right_and_y_upwards():
    ((vertical,),) = (level["lines"] for level in contours(lambda x: x[:, 0], [2.0], half=4.0))
    ((horizontal,),) = (level["lines"] for level in contours(lambda x: x[:, 1], [-1.0], half=4.0))
    assert {x for x, _ in vertical} == {2.0} and {y for _, y in horizontal} == {-1.0}
    assert rounded(torch.tensor([[0.12345, -1.0]])) == [[0.123, -1.0]]
