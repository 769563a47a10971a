"""Charts: what is drawn is what was measured, read from the figure before it is written."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from triptych.figures import charts


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are saved, kept instead of written."""
    figures: list[Figure] = []
    monkeypatch.setattr(charts, "save", lambda figure, path, **_: figures.append(figure) or path)
    yield figures
    plt.close("all")


def test_schedules_show_the_signal_and_its_ratio_to_the_noise(drawn):
    charts.save_schedules({"a": np.array([1.0, 0.5, 0.0])}, [0, 2], Path("x.png"))
    signal, ratio = drawn[0].axes
    np.testing.assert_allclose(signal.lines[0].get_ydata(), [1, 0.5, 0])
    np.testing.assert_allclose(ratio.lines[0].get_ydata(), [np.nan, 0, np.nan], atol=1e-12)  # no number is infinite
    assert ratio.get_ylim() == (-60, 45) and signal.lines[0].get_markevery() == [0, 2]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["a"]


def test_points_of_a_class_have_the_colour_the_legend_gives_it(drawn):
    points, labels = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]), np.array([1, 0, 1])
    charts.save_latent_space(points, labels, ["cat", "dog"], ("z1", "z2"), "Three", Path("x.png"))
    (axis,) = drawn[0].axes
    (dots,) = axis.collections
    legend = drawn[0].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["cat", "dog"]
    colours = [plt.matplotlib.colors.to_rgb(line.get_color()) for line in legend.get_lines()]
    seen = {
        tuple(point): tuple(colour[:3]) for point, colour in zip(dots.get_offsets(), dots.get_facecolors(), strict=True)
    }
    assert seen == {tuple(point): colours[label] for point, label in zip(points, labels, strict=True)}
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_title()) == ("z1", "z2", "Three")
    assert axis.get_aspect() == 1  # a unit of z1 is as long as one of z2


def test_planes_of_decoded_images_keep_their_order(drawn):
    tiles = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1, 1) / 10
    charts.save_latent_planes({"A": (np.zeros((1, 2)), tiles, tiles[::-1])}, np.array([0]), ["cat"], Path("x.png"))
    top, middle, bottom = drawn[0].axes
    assert top.get_title() == "A"
    np.testing.assert_allclose(middle.images[0].get_array(), [[0, 0.1, 0.2], [0.3, 0.4, 0.5]], atol=1e-6)
    np.testing.assert_allclose(bottom.images[0].get_array(), [[0.3, 0.4, 0.5], [0, 0.1, 0.2]], atol=1e-6)
