"""``curves.png`` of a run, kept up to date while it trains."""

from __future__ import annotations

import time
from pathlib import Path

from triptych.figures.charts import save_curves
from triptych.jsonl import read_rows
from triptych.measures import MEASURES

# What is drawn, in this order, where a run has logged it: a panel each, and what stands above it. What was measured on
# held-out images is the second curve of the panel.
PANELS = {
    "loss": "loss",
    "loss_generator": "generator's loss",
    "loss_discriminator": "discriminator's loss",
    **{key: MEASURES[key].column for key in ("psnr", "neg_elbo", "reconstruction", "kl", "accuracy")},
}


def draw_curves(folder: Path) -> Path | None:
    """Draw what the run in `folder` has logged, by update: its losses, and what else tells whether it learns.

    Returns:
        ``curves.png`` in that folder; None where nothing is logged yet.
    """
    rows = read_rows(folder / "log.jsonl")
    others = sorted({key for row in rows for key in row if key.startswith("loss")} - PANELS.keys())
    panels = {}
    for key, title in (PANELS | {key: key for key in others}).items():
        curves = {"training": key, "held-out images": f"validation_{key}"}
        points = {name: [(row["update"], row[k]) for row in rows if k in row] for name, k in curves.items()}
        if points["training"]:
            panels[title] = {name: tuple(zip(*pairs, strict=True)) for name, pairs in points.items() if pairs}
    if not panels:
        return None
    beside = folder / ".curves.png"  # whoever looks at the picture meanwhile sees a whole one
    return save_curves(panels, "update", beside).replace(folder / "curves.png")


class Curves:
    """Draws them so rarely that it takes at most a hundredth of the time, and at the end.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path):
        self._folder, self._cost, self._drawn_at = folder, 1.0, time.perf_counter()

    def keep_up(self, now: bool = False) -> None:
        """Draw them anew if it is time, or in any case."""
        begun = time.perf_counter()
        if now or begun - self._drawn_at > 100 * self._cost:
            self._drawn_at = begun  # also if it fails: it isn't tried again at once
            draw_curves(self._folder)
            self._cost = time.perf_counter() - begun
