"""How far back is the way? Test images noised to step t and brought back by the network, t over the range, per class.

    python scripts/studies/reconstruction.py pretrained/cifar10-class-conditional \\
        --judge runs/classifier_cifar10/classifier --data.path uoft-cs/cifar10 --output runs/reconstruction

A little noise is undone almost exactly; much noise leaves the class, or only the label that is told. Rows are kept, so
the command can be interrupted. Ends in table.md, charts and a table of pictures.
"""

from __future__ import annotations

from triptych.cli import command

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DiffusionPipeline
from tqdm.auto import tqdm

from triptych.config.base import DataConfig
from triptych.data.image_set import ImageSet, to_images, to_unit_interval
from triptych.data.sources import load_images
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation.judges import Judge, load_judge
from triptych.evaluation.scores import load_metric
from triptych.evaluation.similarity import psnr, ssim
from triptych.evaluation.statistics import mean_and_interval
from triptych.figures.charts import save_curves
from triptych.figures.images import save_reverse_process
from triptych.figures.tables import markdown
from triptych.jsonl import Rows
from triptych.losses.diffusion import diffuse, signal_to_noise
from triptych.measures import MEASURES
from triptych.outputs import claim_study
from triptych.pipelines.schedulers import scheduler_class
from triptych.pipelines.store import load_pipeline, weights_hash
from triptych.seeds import keyed_generator

QUANTITIES = {key: MEASURES[key].column for key in ("psnr", "ssim", "perceptual_distance")} | {"kept": "class kept"}


def main(
    pipeline: str,
    judge: str = "runs/classifier_cifar10/classifier",
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
        judge: a classifier of scripts/train_classifier.py.
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
    place = find_device(device)
    critic = load_judge(judge, place)
    pipe = load_pipeline(pipeline, "unet", torch_dtype=getattr(torch, dtype)).to(place)
    pipe.scheduler = scheduler_class(scheduler).from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    last = pipe.scheduler.config.num_train_timesteps - 1
    chosen = timesteps or [round(last * k / 10) for k in range(11)]
    if not all(0 <= t <= last for t in chosen) or num_inference_steps < 1:
        raise UserError(f"timesteps {chosen} must lie between 0 and {last}, num_inference_steps be at least 1.")
    images = load_images(data, need_labels=True)
    if (images.channels, images.image_size, images.image_size) != pipe.image_shape:
        raise UserError(f"{pipeline} draws {pipe.image_shape}; the data has {images.channels, images.image_size}.")
    if images.class_names != pipe.class_names or set(pipe.class_names) - set(critic.class_names):
        raise UserError(
            f"The classes of {pipeline}, {', '.join(pipe.class_names)}, are not the data's and the judge's."
        )
    indices = first_of_each(images, num_images_per_class)
    rows = Rows(output / "rows.jsonl")
    same = {"weights": weights_hash(pipeline), "judge": critic.fingerprint, "data": data.path, "split": data.split}
    same |= {"n": len(indices), "seed": seed, "dtype": dtype, "scheduler": scheduler, "guidance_scale": guidance_scale}
    same["num_inference_steps"] = num_inference_steps

    way = Way(pipe, images, num_inference_steps, guidance_scale, seed)
    for t in sorted(chosen):
        if not rows.find(**same, t=t):
            rows.add(same | {"t": t, "snr_db": way.snr_db(t)} | measure(way, critic, indices, t, batch_size))
    found = [rows.find(**same, t=t) for t in sorted(chosen)]
    text = table(found, pipe.class_names)
    (output / "table.md").write_text(text)
    made = [charts(found, pipe.class_names, output), pictures(way, indices[::num_images_per_class], chosen, output)]
    print(f"\n{text}", output / "table.md", *made, sep="\n")


def first_of_each(images: ImageSet, count: int) -> list[int]:
    """Indices of the first `count` images of each class, class by class."""
    labels = images.__getitems__(range(len(images)))["labels"]
    found = [torch.nonzero(labels == k).flatten()[:count].tolist() for k in range(len(images.class_names))]
    if min(map(len, found)) < count:
        raise UserError(f"num_images_per_class {count}: a class has only {min(map(len, found))} images.")
    return [index for of_class in found for index in of_class]


@dataclass
class Way:
    """There and back: images noised to step t, and what the network makes of them."""

    pipe: DiffusionPipeline
    images: ImageSet
    num_inference_steps: int
    guidance_scale: float
    seed: int

    def snr_db(self, t: int) -> float:
        """What is left of the images at t."""
        return float(10 * signal_to_noise(self.pipe.scheduler.alphas_cumprod[t]).clamp(min=1e-12).log10())

    def there_and_back(self, indices: list[int], t: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x_0 in [0, 1], x_t in about [-1, 1], and x_t brought back, in [0, 1]: (B, C, H, W) each."""
        batch, scheduler = self.images.__getitems__(indices), self.pipe.scheduler
        x0 = to_images(batch["pixels"])
        eps = [torch.randn(x0.shape[1:], generator=keyed_generator("eps", self.seed, index)) for index in indices]
        x_t = diffuse(
            x0 / self.pipe.config.data_std, torch.stack(eps), scheduler.alphas_cumprod[torch.full((len(x0),), t)].to(x0)
        )
        steps = max(1, round(self.num_inference_steps * (t + 1) / scheduler.config.num_train_timesteps))
        back = self.pipe(
            batch["labels"].tolist(),
            guidance_scale=self.guidance_scale,
            timesteps=np.unique(np.linspace(t, 0, steps + 1)[:-1].round().astype(int))[::-1].tolist(),
            latents=x_t,
            generator=[keyed_generator("back", self.seed, index) for index in indices],
            output_type="pt",
        ).images
        return to_unit_interval(batch["pixels"]), x_t, back


def measure(way: Way, critic: Judge, indices: list[int], t: int, batch_size: int) -> dict[str, Any]:
    """Means over the images and per class, with 95 % intervals."""
    perceptual = load_metric("perceptual_distance")
    class_names = way.images.class_names
    judged = torch.tensor([critic.class_names.index(name) for name in class_names])
    each: dict[str, list[float]] = {key: [] for key in QUANTITIES}
    labels: list[int] = []
    for first in tqdm(range(0, len(indices), batch_size), desc=f"t = {t}", unit="batch"):
        some = indices[first : first + batch_size]
        wanted = way.images.__getitems__(some)["labels"]
        x0, _, back = way.there_and_back(some, t)
        pair = {"predictions": back.numpy(), "references": x0.numpy()}
        seen = perceptual.compute(**pair, feature_maps=critic.feature_maps, features=critic.name)
        each["psnr"] += psnr(x0, back).tolist()
        each["ssim"] += ssim(x0, back).tolist()
        each["perceptual_distance"] += seen["each"]
        each["kept"] += (critic(back)["logits"].argmax(1) == judged[wanted]).double().tolist()
        labels += wanted.tolist()
    row: dict[str, Any] = {}
    for key, values in each.items():
        row[key], row[f"{key}_interval"] = mean_and_interval(values)
    by_class = np.array(labels)
    row["per_class"] = {
        name: {key: float(np.mean(np.array(values)[by_class == k])) for key, values in each.items()}
        for k, name in enumerate(class_names)
    }
    return row


def table(rows: list[dict[str, Any]], class_names: list[str]) -> str:
    """All classes together at each t, then the classes at the t where they differ most in what is kept."""
    steps = []
    for row in rows:
        cells = (f"{row[key]:.3f} ± {row[f'{key}_interval']:.3f}" for key in QUANTITIES)
        steps.append([row["t"], f"{row['snr_db']:+.1f}", *cells])
    spread = max(rows, key=lambda row: np.std([c["kept"] for c in row["per_class"].values()]))
    classes = [[name, *(f"{spread['per_class'][name][key]:.3f}" for key in QUANTITIES)] for name in class_names]
    first = rows[0]
    note = (
        f"n = {first['n']:,} images of {first['data']}, {first['split']}; {first['scheduler']}, "
        f"{first['num_inference_steps']} steps from the last t, guidance {first['guidance_scale']:g}, seed "
        f"{first['seed']}."
    )
    at_each_t = markdown(["t", "SNR, dB", *QUANTITIES.values()], steps)
    by_class = markdown(["class", *QUANTITIES.values()], classes)
    return f"{at_each_t}\n\nBy class at t = {spread['t']}:\n\n{by_class}\n\n{note}\n"


def charts(rows: list[dict[str, Any]], class_names: list[str], output: Path) -> Path:
    ts = [row["t"] for row in rows]
    curves = {
        title: {name: (ts, [row["per_class"][name][key] for row in rows]) for name in class_names}
        for key, title in QUANTITIES.items()
    }
    return save_curves(curves, "t", output / "classes.png")


def pictures(way: Way, firsts: list[int], chosen: list[int], output: Path) -> Path:
    """An image of each class, noised to every t and brought back."""
    parts = [way.there_and_back(firsts, t) for t in sorted(chosen)]
    noisy = torch.stack([x_t / 2 + 0.5 for _, x_t, _ in parts], dim=1).clamp(0, 1)
    back = torch.stack([image for _, _, image in parts], dim=1)
    noisy, back = (x.permute(0, 1, 3, 4, 2).numpy() for x in (noisy, back))  # (images, steps, H, W, C)
    original = parts[0][0].permute(0, 2, 3, 1).numpy()
    how = {"row_labels": ("x_t", "brought back"), "title": "Noised to step t, and brought back"}
    names, path = way.images.class_names, output / "pictures.png"
    return save_reverse_process(noisy, back, original, sorted(chosen), names, path, **how)


if __name__ == "__main__":
    command(main)
