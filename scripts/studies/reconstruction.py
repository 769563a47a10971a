"""How much noise can be undone? Test images noised to step t and denoised by the network, t over the range, per class.

    python scripts/studies/reconstruction.py pretrained/cifar10-class-conditional \\
        --judge runs/classifier_cifar10/classifier --data.path uoft-cs/cifar10 --output runs/reconstruction

A little noise is undone almost exactly; much noise leaves the class, or only the label that is told. Rows are kept, so
the command can be interrupted. Ends in table.md, charts and a table of pictures.
"""

from __future__ import annotations

from triptych.cli import command

from pathlib import Path
from typing import Literal

import torch

from triptych.config.base import DataConfig
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.judges import judge_of, load_judge
from triptych.evaluation.reconstruction import PartialDiffusion, first_of_each_class, measure_reconstruction
from triptych.evaluation.work_sharing import require_one_process
from triptych.figures.images import save_reverse_process
from triptych.jsonl import Rows
from triptych.outputs import claim_study
from triptych.pipelines.schedulers import scheduler_class
from triptych.pipelines.store import load_pipeline, weights_hash
from triptych.studies.reconstruction import reconstruction_charts, reconstruction_table


def main(
    pipeline: str,
    judge: str | None = None,
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    timesteps: list[int] | None = None,
    num_inference_steps: int = 50,
    scheduler: str = "DDPM",
    guidance_scale: float = 1.0,
    num_images_per_class: int = 50,
    batch_size: int = 100,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    device: str | None = None,
    seed: int = 0,
    output: Path = Path("runs/reconstruction"),
    overwrite: bool = False,
) -> None:
    """Study reconstruction.

    Args:
        pipeline: folder of a saved class-conditional pipeline.
        judge: a classifier of scripts/train_classifier.py; if not given, the one in pretrained/ that knows the classes.
        data: the images; the first of each class are taken.
        timesteps: training steps to noise images to; eleven from the beginning to the end if not given.
        num_inference_steps: steps back from the last training step; from an earlier t in proportion.
        scheduler: a diffusers scheduler that takes timesteps, such as DDPM or DPMSolverMultistep.
        guidance_scale: 1 = no guidance: the network is told the true class, and not more.
        num_images_per_class: images of each class.
        batch_size: images at once.
        dtype: precision of the network.
        device: cpu, cuda, mps; the best there is if not given.
        seed: of the noise; an image's is the same at every t.
        output: folder of rows.jsonl, table.md and the figures.
        overwrite: write into an output folder that holds other things than this command's own work.
    """
    claim_study(output, overwrite)
    if num_images_per_class < 1 or batch_size < 1:
        raise UserError("num_images_per_class and batch_size must be at least 1.")
    require_one_process()
    place = find_device(device)
    images = load_images(data, need_labels=True)
    critic = load_judge(judge or judge_of(images.class_names, images.image_size), place)
    pipe = load_pipeline(pipeline, "unet", dtype=dtype).to(place)
    pipe.scheduler = scheduler_class(scheduler).from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    last = pipe.scheduler.config.num_train_timesteps - 1
    chosen = timesteps or [round(last * k / 10) for k in range(11)]
    if not all(0 <= t <= last for t in chosen) or num_inference_steps < 1:
        raise UserError(f"timesteps {chosen} must lie between 0 and {last}, num_inference_steps be at least 1.")
    if (images.channels, images.image_size, images.image_size) != pipe.image_shape:
        raise UserError(f"{pipeline} draws {pipe.image_shape}; the data has {images.channels, images.image_size}.")
    if images.class_names != pipe.class_names or set(pipe.class_names) - set(critic.class_names):
        names = ", ".join(pipe.class_names)
        raise UserError(f"The classes of {pipeline}, {names}, are not the data's and the judge's.")
    indices = first_of_each_class(images, num_images_per_class)
    rows = Rows(output / "rows.jsonl")
    key = {"weights": weights_hash(pipeline), "judge": critic.fingerprint, "data": data.path, "split": data.split}
    key |= {"n": len(indices), "seed": seed, "dtype": dtype, "scheduler": scheduler}
    key |= {"guidance_scale": guidance_scale, "num_inference_steps": num_inference_steps}
    diffusion = PartialDiffusion(pipe, images, num_inference_steps, guidance_scale, seed)
    for t in sorted(chosen):
        if not rows.find(**key, t=t):
            measured = measure_reconstruction(diffusion, critic, indices, t, batch_size)
            rows.add(key | {"t": t, "snr_db": diffusion.snr_db(t)} | measured)
    found = [rows.find(**key, t=t) for t in sorted(chosen)]
    text = reconstruction_table(found, pipe.class_names)
    (output / "table.md").write_text(text)
    made = reconstruction_charts(found, pipe.class_names, output)
    table_of_pictures = pictures(diffusion, indices[::num_images_per_class], chosen, output)
    print(f"\n{text}", output / "table.md", *made, table_of_pictures, sep="\n")


def pictures(diffusion: PartialDiffusion, indices: list[int], chosen: list[int], output: Path) -> Path:
    """Images, noised to every t and brought back."""
    parts = [diffusion.noise_and_denoise(indices, t) for t in sorted(chosen)]
    noisy = torch.stack([x_t / 2 + 0.5 for _, x_t, _ in parts], dim=1).clamp(0, 1)
    denoised = torch.stack([image for _, _, image in parts], dim=1)
    noisy, denoised = (x.permute(0, 1, 3, 4, 2).numpy() for x in (noisy, denoised))  # (images, steps, H, W, C)
    original = parts[0][0].permute(0, 2, 3, 1).numpy()
    return save_reverse_process(
        noisy,
        denoised,
        original,
        sorted(chosen),
        diffusion.images.class_names,
        output / "pictures.png",
        row_labels=("x_t", "brought back"),
        title="Noised to step t, and brought back",
    )


if __name__ == "__main__":
    command(main)
