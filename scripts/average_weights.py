"""Make the pipeline of an average of any width, after training (Karras et al. 2024, "EDM2", section 3).

python scripts/average_weights.py runs/diffusion_cifar10_night 0.08 runs/night_width_0.08

The run must have kept snapshots: --power_averages.widths 0.05,0.1 --power_averages.snapshot_every 2000.
"""

from __future__ import annotations

from triptych.cli import command

from pathlib import Path

from triptych.errors import UserError
from triptych.outputs import claim_folder
from triptych.pipelines.store import load_pipeline, save_pipeline
from triptych.publishing.cards import model_card
from triptych.training.averages import average_of
from triptych.training.run_folder import branched_from, first_update, trunk_of


def main(
    run: Path,
    width: float,
    output: Path,
    update: int | None = None,
    pipeline: str | None = None,
    overwrite: bool = False,
) -> None:
    """Average the weights of a run.

    Args:
        run: folder of a training run that kept snapshots, also while it is running.
        width: standard deviation of the average's profile as a fraction of training, such as 0.1.
        output: folder for the pipeline.
        update: of the snapshot at which the average ends; the newest if not given.
        pipeline: what to put the weights into; run/pipeline, which is there when a training has ended, if not given.
        overwrite: write into an output folder that already holds something.
    """
    claim_folder(output, overwrite)
    if not 0 < width < 0.28:
        raise UserError(f"width must lie between 0 and 0.28 (a fraction of training), not {width:g}.")
    paths = snapshots(run)
    pipe = load_pipeline(pipeline or str(run / "pipeline"), "unet")
    average = average_of(paths, width, update)
    shapes = {name: tuple(p.shape) for name, p in pipe.unet.named_parameters()}
    if shapes != {name: tuple(p.shape) for name, p in average.items()}:
        raise UserError(f"The network of {pipeline or run / 'pipeline'} is not the one that was trained in {run}.")
    pipe.unet.load_state_dict(average, strict=False)  # parameters are all that training changes
    facts = {"average": f"power function, width {width:g} (EDM2)", "update": update or "the newest", "run": run.name}
    save_pipeline(pipe, output, card=model_card(type(pipe).__name__, output.name, facts))
    print(f"Saved the pipeline to {output}.")


def snapshots(run: Path) -> list[Path]:
    """Those of a run, and of what it branched from up to there."""
    found = sorted((run / "averages").glob("update_*.safetensors"))
    checkpoint = branched_from(run)
    if checkpoint is not None:
        trunk = trunk_of(run, checkpoint)
        if trunk is None or not (trunk / "averages").exists():
            raise UserError(
                f"{run} goes on from {checkpoint}, and the averages that were kept before it are gone with the run "
                f"that the checkpoint was copied from. Put that run's averages/ into {trunk or checkpoint}."
            )
        found = [path for path in snapshots(trunk) if path.stem <= f"update_{first_update(run):08d}"] + found
    if not found:
        raise UserError(
            f"{run} holds no averages. Train with --power_averages.widths 0.05,0.1 and a snapshot_every beside it."
        )
    return found


if __name__ == "__main__":
    command(main)
