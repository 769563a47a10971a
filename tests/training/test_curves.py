"""The curves that a training draws beside its log."""

from __future__ import annotations

import json
from pathlib import Path

from curve_pixels import curve_pixels
from PIL import Image

from triptych.figures.palette import COLOURS
from triptych.training import curves


def test_curves_show_what_is_logged(tmp_path):
    """More of a curve for more rows; held-out images in their own colour; half a row at the end does no harm."""
    log = tmp_path / "log.jsonl"
    assert curves.draw_curves(tmp_path) is None
    log.write_text('{"update": 1, "lr": 0.1}\n')
    assert curves.draw_curves(tmp_path) is None, "a learning rate alone is no curve"
    rows = [{"update": 10 * k, "loss": 1 / k, "accuracy": 1 - 1 / k} for k in range(1, 60)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    few = curve_pixels(curves.draw_curves(tmp_path))
    rows[30]["validation_accuracy"], rows[40]["validation_accuracy"] = 0.4, 0.5
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"upd')
    path = curves.draw_curves(tmp_path)
    assert path == tmp_path / "curves.png" and curve_pixels(path) > 500 and few > 20
    assert curve_pixels(path, COLOURS[1]) > 50
    bottom = Image.open(path).crop((0, Image.open(path).height - 60, *Image.open(path).size))
    bottom.save(tmp_path / "legend.png")
    assert curve_pixels(tmp_path / "legend.png", COLOURS[1]) > 20, "the second panel's curve is named too"
    assert Image.open(path).width > 900, "two panels"


def test_curves_are_drawn_at_most_a_hundredth_of_the_time(monkeypatch, tmp_path):
    now, drawn = [0.0], []

    def draw(folder: Path) -> None:
        drawn.append(now[0])
        now[0] += 3

    monkeypatch.setattr(curves.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(curves, "draw_curves", draw)
    keeper = curves.Curves(tmp_path)
    while now[0] < 2000:
        keeper.keep_up()
        now[0] += 1
    assert len(drawn) >= 5 and 3 * len(drawn) <= 0.011 * now[0]
    keeper.keep_up(now=True)
    assert drawn[-1] == 2000
