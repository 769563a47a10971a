"""What every training script does around its algorithm: a step of the optimizers, and the end of the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline

from triptych.pipelines.store import save_pipeline
from triptych.training import follow_up
from triptych.training.averages import averaged_weights
from triptych.training.networks import unwrapped
from triptych.training.run import Run


def take_step(
    run: Run,
    weights: list[torch.nn.Parameter],
    optimizers: Sequence[torch.optim.Optimizer],
    max_grad_norm: float | None,
    name: str | None = None,
) -> None:
    """Clip the gradients, step, and forget them; accelerate skips the step until an update's last batch.

    Args:
        run: logs the norm as ``grad_norm``, or ``grad_norm_<name>``.
        weights: what `optimizers` train; a list, because finding them among a model's modules costs a millisecond.
        optimizers: as accelerate wraps them.
        max_grad_norm: L2 norm to clip to; None = the gradients stay as they are, and no norm is logged.
        name: of one of several networks.
    """
    if run.updated and max_grad_norm is not None:
        run.log(**{f"grad_norm_{name}" if name else "grad_norm": run.clip_grad_norm(weights, max_grad_norm)})
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


def save_and_finish(
    run: Run, ema: Any, model: torch.nn.Module, make_pipeline: Callable[[], DiffusionPipeline], card: str
) -> None:
    """Save ``pipeline/`` with the averaged weights and the model's card, say what is there now, and end the run.

    Args:
        run: the run, all its updates done.
        ema: the average of the weights, diffusers' ``EMAModel``.
        model: what it averages, as accelerate wraps it.
        make_pipeline: wraps `model`; called while it has the averaged weights.
        card: the text of the README.
    """
    if run.is_main:
        with averaged_weights(ema, unwrapped(run.accelerator, model)):
            pipeline, folder = make_pipeline(), run.folder / "pipeline"
            save_pipeline(pipeline, folder, card=card)
            follow_up.tell(run, folder, type(pipeline).__name__, pipeline)
    run.finish()
