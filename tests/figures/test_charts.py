"""Charts: what is drawn is what was measured, read from the figure before it is written."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from triptych.figures import charts, latents
from triptych.figures.palette import COLOURS, in_words, look_of
from triptych.paths import project_path


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that are saved, kept instead of written."""
    figures: list[Figure] = []
    for module in (charts, latents):
        monkeypatch.setattr(module, "save", lambda figure, path, **_: figures.append(figure) or path)
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
    latents.save_latent_space(points, labels, ["cat", "dog"], ("z1", "z2"), "Three", Path("x.png"))
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
    latents.save_latent_planes({"A": (np.zeros((1, 2)), tiles, tiles[::-1])}, np.array([0]), ["cat"], Path("x.png"))
    top, middle, bottom = drawn[0].axes
    assert top.get_title() == "A"
    np.testing.assert_allclose(middle.images[0].get_array(), [[0, 0.1, 0.2], [0.3, 0.4, 0.5]], atol=1e-6)
    np.testing.assert_allclose(bottom.images[0].get_array(), [[0.3, 0.4, 0.5], [0, 0.1, 0.2]], atol=1e-6)


def test_a_method_looks_the_same_in_whatever_company():
    alone, among = look_of(["GAN"]), look_of(["noisy", "BM3D", "regression", "GAN", "mine"])
    assert alone["GAN"] == among["GAN"]
    assert len({look["color"] for look in among.values()}) == 5  # a method nobody knows takes a colour that is left
    assert look_of(["DPMSolverMultistepScheduler"])["DPMSolverMultistepScheduler"]["label"] == "DPM-Solver++"
    one, many = look_of(["diffusion, 1 step", "diffusion, 25 steps"]).values()
    assert one["color"] == many["color"] == look_of(["diffusion"])["diffusion"]["color"]
    assert one["linestyle"] != many["linestyle"] and one["marker"] != many["marker"]
    weights = look_of(["GAN 0.003", "GAN 0.01", "GAN 0.03"]).values()
    assert len({look["marker"] for look in weights}) == 3, "dots of one colour can be told apart"
    strangers = look_of([f"run {k}" for k in range(12)]).values()
    assert len({(look["color"], look["marker"], look["linestyle"]) for look in strangers}) == 12
    assert look_of(["GANs of old"])["GANs of old"]["label"] == "GANs of old"  # a word that only begins like a method
    assert in_words("neg_elbo") == "-ELBO" and in_words("grad_norm") == "grad norm"
    assert in_words("validation_neg_elbo") == "held-out -ELBO" and in_words("validation_mse") == "held-out mse"


def test_the_zeros_of_large_counts_do_not_run_together(drawn):
    for x in ([0, 400_000, 1_600_000], [0, 0.5, 1]):
        charts.save_curves({"loss": {"run": (x, [3, 2, 1])}}, "x", Path("x.png"))
    large, small = (figure.axes[0].xaxis.get_major_formatter() for figure in drawn)
    assert (large(400_000), large(1_600_000)) == ("400 k", "1.6 M")
    small.set_locs([0, 0.5, 1])
    assert small(0.5) == "0.5"  # and not 500 thousandths


def test_the_report_has_the_same_palette():
    template = project_path("report/template.typ").read_text()
    assert 'json("/triptych/figures/palette.json")' in template and "#0072b2" not in template


def test_intervals_stand_where_they_were_measured(drawn):
    charts.save_curves({"psnr": {"GAN": ([15, 25], [30.0, 28.0], [0.5, 1.0])}}, "sigma", Path("x.png"))
    (axis,) = drawn[0].axes
    (bars,) = axis.collections
    np.testing.assert_allclose(bars.get_segments(), [[[15, 29.5], [15, 30.5]], [[25, 27], [25, 29]]])
    low, high = axis.get_ylim()
    assert low < 27 and high > 30.5  # none is cut off

    charts.save_bars({"score": {"base": (2.0, 0.5), "other": (3.0, 0.25)}}, "Two", Path("x.png"))
    (axis,) = drawn[1].axes
    np.testing.assert_allclose([bar.get_width() for bar in axis.patches], [2, 3])
    segments = axis.collections[0].get_segments()
    np.testing.assert_allclose([segment[:, 0] for segment in segments], [[1.5, 2.5], [2.75, 3.25]])
    assert len({bar.get_facecolor() for bar in axis.patches}) == 2

    charts.save_tradeoff({"sigma 25": {"GAN": (28.0, (0.4, 0.1)), "BM3D": (29.0, 0.8)}}, "PSNR", "FD", Path("x.png"))
    (axis,) = drawn[2].axes
    assert [(*line.get_xdata(), *line.get_ydata()) for line in axis.lines] == [(28, 0.4), (29, 0.8)]
    assert [line.get_color() for line in axis.lines] == [look_of([m])[m]["color"] for m in ("GAN", "BM3D")]
    (interval,) = axis.collections
    np.testing.assert_allclose(interval.get_segments(), [[[28, 0.3], [28, 0.5]]])


def test_classes_and_latent_sizes_are_points_and_not_a_line(drawn):
    scores = {"GAN": [(1.0, 0.1), (2.0, 0.1)], "BM3D": [(3.0, 0.1), (np.nan, 0.0)]}
    charts.save_by_class(scores, ["cat", "dog"], "PSNR", "Two", Path("x.png"))
    (axis,) = drawn[0].axes
    assert all(line.get_linestyle() == "None" for line in axis.lines)
    places = [line.get_xdata()[0] for line in axis.lines]
    assert len(set(places)) == 4 and [round(place) for place in places] == [0, 1, 0, 1]  # side by side, by their class
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["GAN", "BM3D"]

    charts.save_comparison({"PSNR": {2: [1.0, 2.0], 16: [5.0, 7.0]}}, "latent size", Path("x.png"))
    (axis,) = drawn[1].axes
    (means,) = axis.lines
    assert means.get_linestyle() == "None"
    np.testing.assert_allclose(means.get_ydata(), [1.5, 6])
    assert [tuple(dots.get_offsets()[:, 1]) for dots in axis.collections] == [(1, 2), (5, 7)]


def test_small_multiples_show_one_curve_each_before_all_the_others(drawn):
    curves = {name: ([0, 1], [k, k + 1.0], [0.1, 0.1]) for k, name in enumerate("abc")}
    charts.save_small_multiples(curves, "t", "PSNR", Path("x.png"), columns=2)
    *panels, empty = drawn[0].axes
    assert [panel.get_title() for panel in panels] == ["a", "b", "c"] and not empty.get_visible()
    for k, panel in enumerate(panels):
        (own,) = [line for line in panel.lines if line.get_color() == COLOURS[0]]
        np.testing.assert_allclose(own.get_ydata(), [k, k + 1])
        assert len(panel.lines) == 3 and len(panel.collections) == 1


def legend_of(figure: Figure) -> dict[str, tuple[float, ...]]:
    """The colours of a figure's legend by its texts."""
    (legend,) = figure.legends
    colours = {}
    for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
        colour = handle.get_color() if hasattr(handle, "get_color") else handle.get_facecolor()[0]
        colours[text.get_text()] = plt.matplotlib.colors.to_rgb(colour)
    return colours


def test_curves_are_the_numbers_given_a_panel_for_each_quantity(drawn):
    runs = {"a": ([1, 2, 4], [3.0, 2.0, 1.0]), "b": ([1, 4], [5.0, 4.0])}
    charts.save_curves({"loss": runs, "KL": {"a": ([1], [7.0]), "b": ([4], [9.0])}}, "update", Path("x.png"), "nats")
    loss, kl = drawn[0].axes
    assert (loss.get_title(), kl.get_title(), loss.get_xlabel(), loss.get_ylabel()) == ("loss", "KL", "update", "nats")
    for line, (name, (x, y)) in zip(loss.lines, runs.items(), strict=True):
        assert line.get_label() == name and line.get_xydata().tolist() == [
            list(point) for point in zip(x, y, strict=True)
        ]
        assert legend_of(drawn[0])[name] == plt.matplotlib.colors.to_rgb(line.get_color())
    assert loss.get_ylim()[0] < 1 and loss.get_ylim()[1] > 5, "every point of few is within the axes"
    assert kl.lines[1].get_xydata().tolist() == [[4, 9]]


def test_a_few_settings_on_a_logarithmic_axis_are_its_ticks(drawn):
    charts.save_curves({"loss": {"a": ([5, 250], [1.0, 2.0]), "b": ([20], [1.0])}}, "steps", Path("x.png"), log_x=True)
    (axis,) = drawn[0].axes
    assert axis.get_xscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["5", "20", "250"]


def test_the_first_of_many_steps_does_not_flatten_the_rest(drawn):
    charts.save_curves({"loss": {"a": (range(100), [1000.0, *np.linspace(2, 1, 99)])}}, "update", Path("x.png"))
    assert drawn[0].axes[0].get_ylim()[1] < 3


def test_a_tradeoff_has_a_dot_for_each_method_in_the_colour_of_the_legend(drawn):
    points = {"sigma 25": {"A": (30.0, 2.0), "B": (28.0, 1.0)}, "sigma 50": {"B": (25.0, 4.0)}}
    charts.save_tradeoff(points, "PSNR, dB", "distance", Path("x.png"))
    first, second = drawn[0].axes
    assert [axis.get_title() for axis in (first, second)] == list(points)
    assert (first.get_xlabel(), first.get_ylabel()) == ("PSNR, dB", "distance")
    assert first.get_xscale() == "linear" and first.get_yscale() == "log"
    legend = legend_of(drawn[0])
    assert list(legend) == ["A", "B"]
    for axis, methods in zip((first, second), points.values(), strict=True):
        for dot, (name, place) in zip(axis.lines, methods.items(), strict=True):
            assert dot.get_xydata().tolist() == [list(place)]
            assert plt.matplotlib.colors.to_rgb(dot.get_color()) == legend[name]
    charts.save_tradeoff(points, "ms", "distance", Path("x.png"), log_x=True)
    assert drawn[1].axes[0].get_xscale() == "log"


def test_labels_of_a_logarithmic_axis_are_plain_numbers(drawn):
    charts.save_tradeoff({"level": {"A": (1.0, 0.02), "B": (1.0, 30.0)}}, "x", "y", Path("x.png"))
    drawn[0].canvas.draw()
    labels = {label.get_text() for label in drawn[0].axes[0].get_yticklabels()} - {""}
    assert {"0.1", "1", "10"} <= labels and not any("10^" in label for label in labels)


def test_bars_are_as_long_as_their_scores_from_the_top_down(drawn):
    scores = {"PSNR": {"noisy": 20.0, "GAN": 30.0}, "SSIM": {"noisy": 0.5, "GAN": 0.9}}
    charts.save_bars(scores, "Restoration", Path("x.png"))
    assert drawn[0].get_suptitle() == "Restoration"
    for axis, (name, values) in zip(drawn[0].axes, scores.items(), strict=True):
        assert axis.get_title() == name
        assert [bar.get_width() for bar in axis.patches] == list(values.values())
    first = drawn[0].axes[0]
    assert [label.get_text() for label in first.get_yticklabels()] == ["noisy", "GAN"]
    upper, lower = (bar.get_window_extent().y0 for bar in first.patches)
    assert upper > lower, "the first stands on top"
    drawn[0].canvas.draw()
    pixels = np.asarray(drawn[0].canvas.buffer_rgba())[..., :3]
    for bar in first.patches:  # a bar has its colour, between two grid lines, and what lies right of its end has not
        box, colour = bar.get_window_extent(), np.array(bar.get_facecolor()[:3]) * 255
        y, x = int(len(pixels) - (box.y0 + box.y1) / 2), int(0.7 * box.x0 + 0.3 * box.x1)
        assert np.abs(pixels[y, x] - colour).max() <= 1 and np.abs(pixels[y, int(box.x1) + 3] - colour).max() > 1


def test_classes_stand_in_their_order_each_method_in_its_colour(drawn):
    values = {"A": [1.0, 2.0, np.nan], "B": [3.0, 4.0, 5.0]}
    charts.save_by_class(values, ["cat", "dog", "ship"], "PSNR, dB", "sigma 25", Path("x.png"))
    (axis,) = drawn[0].axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["cat", "dog", "ship"]
    assert (axis.get_ylabel(), axis.get_title()) == ("PSNR, dB", "sigma 25")
    heights = [dot.get_ydata()[0] for dot in axis.lines]
    np.testing.assert_array_equal(heights, [*values["A"], *values["B"]])
    colours = [plt.matplotlib.colors.to_rgb(dot.get_color()) for dot in axis.lines]
    assert legend_of(drawn[0]) == {"A": colours[0], "B": colours[3]} and colours[0] != colours[3]


def test_a_comparison_has_a_dot_for_each_seed_and_a_line_through_the_means(drawn):
    scores = {"-ELBO": {2: [10.0, 12.0], 16: [4.0, 6.0]}, "active units": {2: [2, 2], 16: [9, 12]}}
    charts.save_comparison(scores, "latent variables", Path("x.png"))
    elbo, units = (axis for axis in drawn[0].axes if axis.get_visible())
    assert (elbo.get_title(), elbo.get_xlabel()) == ("-ELBO", "latent variables")
    assert elbo.lines[0].get_ydata().tolist() == [11, 5]
    assert [dots.get_offsets().tolist() for dots in elbo.collections] == [[[0, 10], [0, 12]], [[1, 4], [1, 6]]]
    assert [label.get_text() for label in elbo.get_xticklabels()] == ["2", "16"]
    assert all(float(tick).is_integer() for tick in units.get_yticks()), "units are counted"
    charts.save_comparison({str(k): {1: [0.0]} for k in range(4)}, "x", Path("x.png"))
    assert [axis.get_visible() for axis in drawn[1].axes] == [True] * 4 + [False] * 2
