"""What a training shows while it goes on: six lines at its beginning, then a bar, or a line for each row of the log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import notebook_tqdm, std_tqdm, tqdm

from triptych.config.training import ExperimentConfig
from triptych.data.image_set import ImageSet
from triptych.training.log import ScalarLog

# ---- the six lines -------------------------------------------------------------------------------


def tell_device(name: str, device: torch.device, count: int, precision: str) -> None:
    """The first line, as soon as it is known: what trains `name`, in how many processes, in which of accelerate's
    precisions. Warns where fewer processes came than were asked for."""
    threads = torch.get_num_threads()
    place = f"{device.type} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
    if device.type == "cpu":
        place += f", {threads} thread{'s' if threads > 1 else ''}" + (" each" if count > 1 else "")
    several = f"{count} processes, " if count > 1 else ""
    precision = "fp32" if precision == "no" else precision
    print(f"Training {name}: {several}{place}, precision {precision}.", file=sys.stderr)
    # The launcher says where the processes meet, but starts one alone on a CPU unless told how to start more.
    asked = {"MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"} <= os.environ.keys()
    if asked and "WORLD_SIZE" not in os.environ and count == 1:
        print(
            "warning: accelerate was asked for several processes and started one. On a CPU, --multi_gpu beside "
            "--num_processes starts them all, for all its name.",
            file=sys.stderr,
        )


def tell_plan(
    config: ExperimentConfig,
    folder: Path,
    networks: Sequence[torch.nn.Module],
    images: ImageSet,
    held_out: ImageSet | None,
    images_per_update: int,
    resumed: tuple[Path | None, int] | None,
) -> None:
    """The other five: the networks, the data, the work, where it is written, how to stop and go on.

    Args:
        config: the experiment.
        folder: the run's.
        networks: that are trained.
        images: to train on.
        held_out: on which the training is validated, if it is.
        images_per_update: over all processes.
        resumed: the checkpoint, None where there was none yet, and the updates it has done; None for a new run.
    """
    size = "of any sizes" if not images.image_size else f"of {images.image_size}x{images.image_size} pixels"
    size += " cut from larger ones" if images.by_visit else ""
    channels = f"{images.channels} channel{'s' if images.channels > 1 else ''}"
    data = f"{len(images):,} {'pairs' if images.paired else 'images'} {size} and {channels}{images.remark}"
    data += f"; validated on {len(held_out):,} others" if held_out is not None else ""
    in_all = images_per_update * config.num_updates
    work = f"{config.num_updates:,} of {images_per_update:,} images, {in_all:,} images in all, "
    work += f"{in_all / len(images):,.1f} epochs"
    if resumed is not None:
        checkpoint, update = resumed
        work += f". Resuming from {checkpoint or 'the beginning'}" + (f", after update {update:,}" if update else "")
    sizes = [f"{type(n).__name__}, {sum(p.numel() for p in n.parameters()):,} parameters" for n in networks]
    for title, text in {
        "network": "; ".join(sizes),
        "data": f"{config.data.path}, split {config.data.split}: {data}",
        "updates": work,
        "written": f"to {folder}, a checkpoint every {config.run.checkpoint_every:,} updates",
        "to stop": "Ctrl-C, which saves a checkpoint; the same command with --resume latest goes on from there",
    }.items():
        print(f"  {title:9} {text}", file=sys.stderr)


# ---- the course ----------------------------------------------------------------------------------


class Progress:
    """A bar where it can be redrawn, in a terminal or a notebook; elsewhere a line for each row of the log.

    Args:
        total: updates in all.
        done: updates done before.
        shown: whether anything is.
    """

    def __init__(self, total: int, done: int, shown: bool):
        redrawn = sys.stderr.isatty() or notebook_tqdm is not std_tqdm
        self._bar = tqdm(total=total, initial=done, disable=not (shown and redrawn), unit="update", dynamic_ncols=True)
        self._in_lines = shown and not redrawn
        self._total, self._begun_with, self._begun_at = total, done, time.perf_counter()
        self._rows = 0

    def step(self, update: int, log: ScalarLog) -> None:
        """An update is done. Until the first row of the log, the 1st, 2nd, 4th, 8th, ... shows its losses: reading them
        costs a synchronisation with an accelerator."""
        self._bar.update()
        done = update - self._begun_with
        if not self._bar.disable and not self._rows and done & (done - 1) == 0:
            self._bar.set_postfix(in_short(log.newest()))

    def row(self, update: int, means: dict[str, float], images_per_second: float) -> None:
        """A row of the log has been written."""
        self._rows += 1
        losses = {key: value for key, value in means.items() if key.startswith(("loss", "validation"))}
        self._bar.set_postfix(in_short(losses | means), refresh=False)
        if self._in_lines:
            seconds = (time.perf_counter() - self._begun_at) / max(1, update - self._begun_with)
            left = tqdm.format_interval(seconds * (self._total - update))
            said = ", ".join(f"{key} {value}" for key, value in in_short(losses).items())
            speed = f"{images_per_second:,.0f} images/s"
            print(f"update {update:,}/{self._total:,}: {said}; {speed}, {left} left", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()


def in_short(values: dict[str, float]) -> dict[str, str]:
    """Four digits of each."""
    return {key: f"{value:.4g}" for key, value in values.items()}
