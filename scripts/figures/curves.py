"""Draw what runs have logged, one curve a run: against minutes, images or updates.

    python scripts/figures/curves.py runs/vae_mnist_z2,runs/vae_mnist_mlp_z2 --quantities validation_neg_elbo \\
        --against minutes --output runs/curves.png

Reads log.jsonl and timing.jsonl of each run folder, also of a run that is still training.
"""

from __future__ import annotations

from triptych.cli import command, listed

from pathlib import Path
from typing import Literal

from triptych.errors import UserError
from triptych.figures.charts import save_curves
from triptych.jsonl import read_rows
from triptych.outputs import PICTURES, claim_file


def main(
    runs: str,
    quantities: str = "loss",
    against: Literal["minutes", "images", "updates"] = "images",
    labels: str | None = None,
    output: Path = Path("runs/curves.png"),
    ylabel: str = "",
    log_x: bool = False,
    overwrite: bool = False,
) -> None:
    """Draw learning curves.

    Args:
        runs: run folders, separated by commas.
        quantities: keys of log.jsonl, separated by commas; a panel each.
        against: minutes of training (over all sessions of a run), images seen, or optimizer updates.
        labels: what to call the runs, separated by commas; their folders' names if not given.
        output: the picture to write, .png, .svg or .pdf.
        ylabel: what the quantities are measured in.
        log_x: logarithmic horizontal axis.
        overwrite: replace an output file that is there already.
    """
    claim_file(output, overwrite, *PICTURES)
    folders = [Path(part) for part in listed(runs)]
    names = listed(labels) or [folder.name for folder in folders]
    if not folders or not listed(quantities):
        raise UserError("runs and quantities must name at least one each.")
    if len(set(names)) != len(folders):
        raise UserError(f"labels: {len(folders)} runs need as many different names; there are {', '.join(names)}.")
    x = {"minutes": "minutes", "images": "images_seen", "updates": "update"}[against]
    curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {q: {} for q in listed(quantities)}
    for folder, label in zip(folders, names, strict=True):
        rows = read_log(folder)
        for quantity, of_runs in curves.items():
            having = [row for row in rows if all(isinstance(row.get(key), int | float) for key in (quantity, x))]
            if not having:
                if any(quantity in row for row in rows):
                    raise UserError(f"{folder} doesn't tell the {against} of its rows. Draw against something else.")
                known = sorted({key for row in rows for key in row} - {"update", "images_seen", "minutes"})
                raise UserError(f"{folder} has logged no {quantity!r}. It has: {', '.join(known)}.")
            of_runs[label] = ([row[x] for row in having], [row[quantity] for row in having])
    print(save_curves(curves, "images seen" if against == "images" else against, output, ylabel, log_x))


def read_log(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's log, each with the minutes it took to get there, where they are known."""
    if not (folder / "log.jsonl").exists():
        raise UserError(f"{folder} is not a run: there is no log.jsonl.")
    rows = read_rows(folder / "log.jsonl")
    # of updates done twice, the later; a run that is still training may not have timed its last row yet
    timing = [row for row in read_rows(folder / "timing.jsonl") if {"update", "seconds"} <= row.keys()]
    minutes = {row["update"]: {"minutes": row["seconds"] / 60} for row in timing}
    return [row | minutes.get(row.get("update"), {}) for row in rows]


if __name__ == "__main__":
    command(main)
