"""Pictures of images: every image where it belongs, its pixels clean squares, its words beside it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from triptych.errors import UserError
from triptych.figures.images import PIXELS_PER_INCH, image_table, mosaic, save, save_image_grid, save_panels, show


def colours(rows: int, columns: int, shape: tuple[int, int] = (4, 4)) -> np.ndarray:
    """Images of one colour each, no two alike: (rows, columns, H, W, 3); red says the row, green the column."""
    images = np.zeros((rows, columns, *shape, 3), np.float32)
    images[..., 0] = (np.arange(1, rows + 1) / 8)[:, None, None, None]
    images[..., 1] = (np.arange(1, columns + 1) / 8)[None, :, None, None]
    return images


def pixels_of(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (12, 20, 3)])
def test_a_table_is_drawn_as_axes_would(shape):
    images = np.random.default_rng(0).random((3, 4, *shape), dtype=np.float32) * 1.2 - 0.1
    drawn = image_table(images)
    width, height = drawn.get_size_inches()
    by_axes = plt.figure(figsize=(width, height), dpi=PIXELS_PER_INCH)
    for r in range(3):
        for c in range(4):
            x, y, side = c * 0.65, 0.05 + r * 0.65, 0.62
            show(by_axes.add_axes((x / width, 1 - (y + side) / height, side / width, side / height)), images[r, c])
    np.testing.assert_array_equal(pixels_of(drawn), pixels_of(by_axes))
    plt.close("all")


def test_every_image_and_word_has_its_place():
    words = {"row_labels": ["cat", "dog"], "column_labels": ["a", "b", "c"], "title": "Pets"}
    figure = image_table(colours(2, 3), captions=[["1", "2", "3"], ["4", "5", "6"]], **words)
    pixels = pixels_of(figure)
    where = {text.get_text(): text.get_window_extent() for text in figure.texts}
    assert set(where) == {"cat", "dog", "a", "b", "c", "Pets", *"123456"}
    boxes = [artist.bbox for artist in figure.artists]
    for number, box in enumerate(boxes):
        row, column = divmod(number, 3)
        x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        np.testing.assert_allclose(
            pixels[int(len(pixels) - y), int(x)] / 255, [(row + 1) / 8, (column + 1) / 8, 0], atol=0.01
        )
        below = where["123456"[number]]
        assert below.y1 < box.y0 and abs((below.x0 + below.x1) / 2 - x) < 1.5
        if column == 0:
            label = where[["cat", "dog"][row]]
            assert label.x1 < box.x0 and label.y0 < y < label.y1
        if row == 0:
            label = where["abc"[column]]
            assert box.y1 < label.y0 and abs((label.x0 + label.x1) / 2 - x) < 1.5
    assert where["Pets"].y0 > where["a"].y1
    plt.close(figure)


def test_a_saved_grid_is_cut_to_the_images(tmp_path):
    path = save_image_grid(colours(2, 3), tmp_path / "new/grid.png")
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    seen = {tuple(colour) for colour in pixels.reshape(-1, 3)} - {(255, 255, 255)}
    assert {(round(r / 32), round(g / 32)) for r, g, _ in seen} == {(r, c) for r in (1, 2) for c in (1, 2, 3)}
    assert not plt.get_fignums()  # the figure is freed


def test_pictures_of_no_kind_are_refused(tmp_path):
    figure = image_table(colours(1, 1))
    with pytest.raises(UserError, match=r"grid\.txt ends in no kind of picture"):
        save(figure, tmp_path / "grid.txt")
    plt.close(figure)


def test_a_mosaic_enlarges_by_whole_numbers_and_fills_its_square():
    square = mosaic(colours(2, 2), 19)
    assert square.shape == (19, 19, 3)
    assert (square[:8, :8] == square[0, 0]).all() and (square[-8:, -8:] == square[-1, -1]).all()
    assert (square[8:11] == 255).all() and (square[:, 8:11] == 255).all()
    with pytest.raises(ValueError, match="2 images of 4x4 pixels in a row don't fit into 7"):
        mosaic(colours(2, 2), 7)


def test_panels_stand_side_by_side_in_their_order(tmp_path):
    panels = {name: ("a line", np.full((1, 1, 2, 2, 1), grey)) for name, grey in (("first", 0.0), ("second", 0.5))}
    with Image.open(save_panels(panels, tmp_path / "panels.png", side=200)) as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
    assert pixels.shape == (24 + 200 + 102, 2 * 24 + 2 * 200 + 45)
    assert (pixels[24:224, 24:224] == 0).all() and abs(pixels[24:224, 269:469] - 128).max() <= 1
    assert (pixels[24:224, 224:269] == 255).all() and pixels[224:, :].min() < 128  # white between, words below


def test_a_notebook_shows_a_table():
    """Jupyter passes over figures that hold no axes."""
    assert image_table(np.zeros((1, 2, 4, 4, 1))).axes
