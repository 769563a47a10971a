"""Pictures of images: grids, tables, sequences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import BboxImage
from matplotlib.transforms import Bbox, BboxTransformFrom, BboxTransformTo, ScaledTranslation, TransformedBbox

from triptych.errors import UserError

matplotlib.use("Agg")  # files only: no display is needed, and none is opened
PIXELS_PER_INCH = 150


def show(axis: plt.Axes, image: np.ndarray) -> None:
    """Draw one image, (H, W, C) in [0, 1], every pixel a clean square."""
    image = np.clip(np.asarray(image, dtype=np.float32), 0, 1)
    axis.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def save(figure: Figure, path: Path, trim: bool = True) -> Path:
    """Write a figure and free it; `trim` cuts its edges to what is drawn."""
    kinds = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise UserError(f"{path} ends in no kind of picture that can be drawn. Those are: {', '.join(sorted(kinds))}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=PIXELS_PER_INCH, bbox_inches="tight" if trim else None, facecolor="white")
    plt.close(figure)
    return path


class Cell(BboxImage):
    """An image of a table, drawn without axes, whose ticks and spines take five times as long as the image.

    Its pixels are the same, to the last one, as those of ``Axes.imshow`` in axes at this place.

    Args:
        figure: what it is drawn on.
        image: (H, W) or (H, W, 3), in [0, 1].
        place: its box in fractions of the figure; an image of another shape is centred within.
    """

    def __init__(self, figure: Figure, image: np.ndarray, place: Bbox):
        height, width = image.shape[:2]
        page = Bbox.unit().transformed(figure.transSubfigure)
        box = place.shrunk_to_aspect(height / width, place, page.height / page.width).anchored("C", place)
        on_page = TransformedBbox(box, figure.transSubfigure)
        super().__init__(on_page, cmap="gray", norm=Normalize(0, 1), interpolation="nearest", origin="upper")
        self.set_data(image)
        self.set_clip_box(on_page)

    def make_image(self, renderer: object, magnification: float = 1.0, unsampled: bool = False) -> tuple:
        """As ``AxesImage`` does: by other sums a pixel on the border of two may fall to the other one."""
        height, width = self.get_size()
        extent = Bbox([[-0.5, height - 0.5], [width - 0.5, -0.5]])
        self._transform = BboxTransformFrom(extent) + BboxTransformTo(self.bbox)
        onto = TransformedBbox(extent, self._transform)
        return self._make_image(self._A, extent, onto, self.bbox, magnification, unsampled=unsampled)


def image_table(
    images: np.ndarray,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    title: str | None = None,
    cell: float = 0.62,
) -> Figure:
    """A table of images, (rows, columns, H, W, C) in [0, 1], with labels and a caption under each on request.

    `cell` is the side of an image in inches.
    """
    rows, columns = images.shape[:2]
    caption_height = 0.0 if captions is None else 0.2
    left = 0.0 if row_labels is None else 0.12 + 0.085 * max(map(len, row_labels))
    top = 0.05 + (0.0 if column_labels is None else 0.22) + (0.0 if title is None else 0.22)
    gap = 0.03
    width = left + columns * (cell + gap)
    height = top + rows * (cell + caption_height + gap)
    figure = plt.figure(figsize=(width, height), dpi=PIXELS_PER_INCH)
    figure.add_axes((0.5, 0.5, 1e-6, 1e-6)).set_axis_off()  # a point: a notebook shows no figure that has no axes
    pixels = np.clip(np.asarray(images, dtype=np.float32), 0, 1)
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels

    def write(x: float, y: float, text: str, points: tuple[float, float], **look: object) -> None:
        """Text `points` (1/72 inch) away from (x, y), which are fractions of the figure."""
        away = ScaledTranslation(points[0] / 72, points[1] / 72, figure.dpi_scale_trans)
        figure.text(x, y, text, transform=figure.transSubfigure + away, **look)

    for r in range(rows):
        for c in range(columns):
            x, y = left + c * (cell + gap), top + r * (cell + caption_height + gap)
            place = Bbox.from_bounds(x / width, 1 - (y + cell) / height, cell / width, cell / height)
            picture = figure.add_artist(Cell(figure, pixels[r, c], place))
            box = picture.bbox.transformed(figure.transSubfigure.inverted())
            middle, centre = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
            if captions is not None:
                write(middle, box.y0, captions[r][c], (0, -2), ha="center", va="top", fontsize=6)
            if row_labels is not None and c == 0:
                write(box.x0, centre, row_labels[r], (-5, 0), ha="right", va="center", fontsize=8)
            if column_labels is not None and r == 0:
                write(middle, box.y1, column_labels[c], (0, 3), ha="center", va="baseline", fontsize=7)
    if title is not None:
        middle = left + columns * (cell + gap) / 2
        figure.text(middle / width, 1 - 0.02 / height, title, ha="center", va="top", fontsize=9)
    return figure


def save_image_grid(
    images: np.ndarray,
    path: Path,
    row_labels: Sequence[str] | None = None,
    title: str | None = None,
    column_labels: Sequence[str] | None = None,
) -> Path:
    """Write (rows, columns, H, W, C) images in [0, 1] as one labelled PNG."""
    return save(image_table(images, row_labels=row_labels, column_labels=column_labels, title=title), path)


def save_forward_process(
    noisy: np.ndarray, schedules: Sequence[str], timesteps: Sequence[int], snr_db: np.ndarray, path: Path
) -> Path:
    """The forward process as a table of pictures.

    Args:
        noisy: (images, schedules, steps, H, W, C) in [0, 1].
        schedules, timesteps: names of the second and third axis.
        snr_db: signal-to-noise ratio in decibels, (schedules, steps).
        path: the PNG to write.
    """
    num_images, num_schedules = noisy.shape[:2]
    table = noisy.reshape(num_images * num_schedules, *noisy.shape[2:])
    captions = [[f"{value:+.1f} dB" if np.isfinite(value) else "no signal" for value in row] for row in snr_db]
    return save(
        image_table(
            table,
            row_labels=list(schedules) * num_images,
            column_labels=[f"t = {t}" for t in timesteps],
            captions=captions * num_images,
            title="Forward process: x_t and its signal-to-noise ratio",
        ),
        path,
    )


def save_captioned(images: np.ndarray, titles: Sequence[str], captions: Sequence[Sequence[str]], path: Path) -> Path:
    """Images by row, what became of them by column, (images, columns, H, W, C), enlarged, a caption under each."""
    return save(image_table(images, column_labels=titles, captions=captions, cell=1.05), path)


def save_panels(panels: dict[str, tuple[str, np.ndarray]], path: Path, side: int = 504) -> Path:
    """Squares of images side by side, a title and a line under each; every pixel of an image is a clean square.

    Args:
        panels: by title: the line under it, and as many rows of images as columns, (n, n, H, W, C) in [0, 1].
        path: the PNG to write.
        side: of a panel in pixels; images are enlarged by the largest whole number that fits, gaps take the rest.

    Raises:
        ValueError: the images of a panel don't fit into it.
    """
    squares = [mosaic(images, side) for _, images in panels.values()]
    edge, gap, below = 24, 45, 102
    width, height = 2 * edge + len(panels) * (side + gap) - gap, edge + side + below
    figure = plt.figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH), dpi=PIXELS_PER_INCH)
    with plt.rc_context({"font.family": "cmss10"}):  # Computer Modern Sans, which comes with matplotlib
        for number, (title, (line, _)) in enumerate(panels.items()):
            left = edge + number * (side + gap)
            figure.figimage(squares[number], xo=left, yo=below)
            for text, y, size, colour in ((title, 57, 14, "black"), (line, 24, 11, "0.35")):
                figure.text(left / width, y / height, text, fontsize=size, color=colour)
    return save(figure, path, trim=False)


def mosaic(images: np.ndarray, side: int) -> np.ndarray:
    """A square of images on white, (n, n, H, W, C) in [0, 1] -> uint8 (side, side, 3)."""
    n, _, image_height, image_width, _ = images.shape
    factor = side // (n * max(image_height, image_width))
    if factor == 0:
        raise ValueError(f"{n} images of {image_width}x{image_height} pixels in a row don't fit into {side} pixels.")
    pixels = (np.clip(images, 0, 1) * 255).round().astype(np.uint8)
    pixels = pixels.repeat(factor, axis=2).repeat(factor, axis=3)
    canvas = np.full((side, side, 3), 255, np.uint8)
    for row, top in enumerate(np.linspace(0, side - pixels.shape[2], n).round().astype(int)):
        for column, left in enumerate(np.linspace(0, side - pixels.shape[3], n).round().astype(int)):
            canvas[top : top + pixels.shape[2], left : left + pixels.shape[3]] = pixels[
                row, column
            ]  # a single grey channel fills all three
    return canvas


def save_reverse_process(
    noisy: np.ndarray,
    predicted: np.ndarray,
    final: np.ndarray,
    timesteps: Sequence[float],
    names: Sequence[str],
    path: Path,
    row_labels: tuple[str, str] = ("x_t", "predicted x_0"),
    title: str = "Reverse process",
) -> Path:
    """From noise to image: for each image a row of x_t and below it the x_0 the network expects.

    Args:
        noisy, predicted: (images, steps, H, W, C) in [0, 1].
        final: the finished images, (images, H, W, C) in [0, 1].
        timesteps: training step of each column.
        names: class of each image.
        path: the PNG to write.
        row_labels: what the two rows of an image are called.
        title: of the figure.
    """
    last = final[:, None]
    rows = np.stack([np.concatenate([part, last], axis=1) for part in (noisy, predicted)], axis=1)
    table = rows.reshape(-1, *rows.shape[2:])
    labels = [label for name in names for label in (f"{name}  {row_labels[0]}", row_labels[1])]
    columns = [f"t = {t:.0f}" for t in timesteps] + ["image"]
    return save(image_table(table, row_labels=labels, column_labels=columns, title=title), path)
