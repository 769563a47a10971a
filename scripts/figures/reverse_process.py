"""Draw the reverse process of a saved pipeline: x_t and the x_0 the network expects, from noise to image.

python scripts/figures/reverse_process.py pretrained/cifar10-class-conditional --output runs/reverse.png
"""

from __future__ import annotations

from triptych.cli import command

from pathlib import Path

import numpy as np

from triptych.devices import find_device
from triptych.figures.images import save_reverse_process
from triptych.outputs import PICTURES, claim_file
from triptych.pipelines.sampling import chosen_classes
from triptych.pipelines.schedulers import scheduler_class
from triptych.pipelines.store import load_pipeline
from triptych.seeds import image_generators


def main(
    pipeline: str,
    output: Path = Path("runs/reverse_process.png"),
    classes: list[str | int] | str | None = None,
    num_inference_steps: int = 50,
    guidance_scale: float | None = None,
    scheduler: str = "DDPMScheduler",
    num_columns: int = 9,
    device: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Draw sampling step by step.

    Args:
        pipeline: folder of a saved pipeline, or a Hub id.
        output: the picture to write, .png, .svg or .pdf.
        classes: names or ids, separated by commas; the first four classes if not given.
        num_inference_steps: steps of the scheduler.
        guidance_scale: 1 = no guidance; the pipeline's own default if not given.
        scheduler: any diffusers scheduler by name; DDPM is the paper's reverse process.
        num_columns: how many of the steps to show, evenly spaced.
        device: cpu, cuda, mps; the best there is if not given.
        seed: of the noise.
        overwrite: replace an output file that is there already.
    """
    claim_file(output, overwrite, *PICTURES)
    pipe = load_pipeline(pipeline, "unet").to(find_device(device))
    pipe.scheduler = scheduler_class(scheduler).from_config(pipe.scheduler.config)
    ids = chosen_classes(pipe, classes) if classes is not None else chosen_classes(pipe, None)[:4]
    result = pipe(
        ids,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        generator=image_generators(seed, [(i, 0) for i in ids]),
        output_type="np",
        return_intermediates=True,
    )
    columns = np.unique(np.linspace(0, len(result.timesteps) - 1, num_columns).round().astype(int))

    def chosen(steps):  # (S, B, C, H, W) in [-1, 1] -> (B, columns, H, W, C) in [0, 1]
        return (steps[columns] / 2 + 0.5).clamp(0, 1).permute(1, 0, 3, 4, 2).numpy()

    path = save_reverse_process(
        chosen(result.noisy_images),
        chosen(result.predicted_images),
        result.images,
        [result.timesteps[c] for c in columns],
        [pipe.class_names[i] for i in ids],
        output,
    )
    print(path)


if __name__ == "__main__":
    command(main)
