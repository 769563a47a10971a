"""Two things that take turns in one process, so that a comparison holds while the machine's speed drifts."""

from __future__ import annotations

import dataclasses
import runpy
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.flop_counter import FlopCounterMode

from triptych.config.training import ExperimentConfig
from triptych.data.image_set import ImageSet
from triptych.devices import seconds_now
from triptych.training import machine
from triptych.training.run import Run

ROOT = Path(__file__).resolve().parents[1]
TURNS, STEPS, WARM_UP = 12, 10, 10  # turns of each, steps in a turn, steps of each before anything is timed


class Bare(Protocol):
    """The mathematics of a training step alone, on one fixed batch."""

    num_parameters: int

    def gradients(self) -> None:
        """Forward and backward."""

    def step(self) -> None:
        """Forward, backward and optimizer step."""


def loop_against_bare(script: str, config: ExperimentConfig, make_bare: Callable[[Run, ImageSet], Bare]) -> None:
    """Run ``scripts/<script>`` as users run it, its loop and the bare step taking turns, and report.

    What is reported is the median over the turns of the ratio of their speeds.
    """
    loop_times: list[float] = []
    bare_times: list[float] = []
    facts: dict[str, Any] = {}
    original = Run.batches

    def take_turns(run: Run, images: ImageSet) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The run's own batches; after every few steps the bare step has its turn."""
        batches, bare = original(run, images), None
        for turn in range(TURNS + 1):
            start = seconds_now(run.device)
            for _ in range(STEPS if turn else WARM_UP):
                batch = next(batches)  # closes the last step: counting, log
                yield batch
            if turn:
                loop_times.append((seconds_now(run.device) - start) / STEPS)
            else:
                facts["memory"] = machine.peak_memory_mb()
                bare = make_bare(run, images)
                facts["parameters"] = bare.num_parameters
                with FlopCounterMode(display=False) as counter:
                    bare.gradients()
                facts["gflop"] = counter.get_total_flops() / config.batch_size / 1e9
                facts["rate"] = multiplication_rate(run)
            start = seconds_now(run.device)
            for _ in range(STEPS if turn else WARM_UP):
                bare.step()
            if turn:
                bare_times.append((seconds_now(run.device) - start) / STEPS)
        batches.close()
        report(run, config, loop_times, bare_times, facts)
        sys.exit(0)

    Run.batches = take_turns
    with tempfile.TemporaryDirectory() as folder:
        settings = dataclasses.replace(
            config.run, output_dir=folder, log_every=STEPS, checkpoint_every=10**9, sample_every=0, progress=False
        )
        short = dataclasses.replace(config, name="benchmark", run=settings)
        runpy.run_path(str(ROOT / "scripts" / script))["main"](short)


def report(
    run: Run, config: ExperimentConfig, loop_times: list[float], bare_times: list[float], facts: dict[str, Any]
) -> None:
    """Print both speeds, their ratio, the arithmetic reached, and the memory."""
    ratios = sorted(b / a for a, b in zip(loop_times, bare_times, strict=True))
    a, b = (config.batch_size / statistics.median(times) for times in (loop_times, bare_times))
    print(
        f"{config.name}: {facts['parameters']:,} parameters, batch {config.batch_size}, {config.optimizer.name}, "
        f"precision {run.accelerator.mixed_precision}, {run.device_name}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads"
    )
    print(f"(a) training loop   {a:8.1f} images/s")
    print(f"(b) bare step       {b:8.1f} images/s")
    quartiles = f"{ratios[TURNS // 4]:.1%} and {ratios[-1 - TURNS // 4]:.1%}"
    print(f"speed (a) / (b)     {statistics.median(ratios):8.1%}   median of {TURNS} turns, quartiles {quartiles}")
    reached = b * facts["gflop"]
    print(f"(b) mathematics     {reached:8.0f} GFLOP/s   {facts['gflop']:.2f} GFLOP/image, both directions")
    print(f"matrix products     {facts['rate']:8.0f} GFLOP/s   of which (b) reaches {reached / facts['rate']:.0%}")
    print(f"peak memory of (a)  {facts['memory']:8.0f} MB")


def multiplication_rate(run: Run, side: int = 2048) -> float:
    """GFLOP/s of a square matrix product in the run's precision, the best of ten."""
    dtype = torch.bfloat16 if run.accelerator.mixed_precision == "bf16" else torch.float32
    a, b = torch.randn(2, side, side, device=run.device).to(dtype)

    def seconds(product: Callable[[], torch.Tensor]) -> float:
        start = seconds_now(run.device)
        product()
        return seconds_now(run.device) - start

    return 2 * side**3 / min(seconds(lambda: a @ b) for _ in range(10)) / 1e9
