"""Draw restorations side by side: noisy, each method's answer, clean; with PSNR and SSIM under each picture.

    python scripts/figures/restorations.py --models regression=runs/a/pipeline,gan=runs/b/pipeline \\
        --data.path uoft-cs/cifar10 --sigma 50 --output runs/restorations.png
"""

from __future__ import annotations

from triptych.cli import command

from dataclasses import replace
from pathlib import Path

import torch

from triptych.config.base import DataConfig, NoiseConfig
from triptych.errors import UserError
from triptych.evaluation import classical
from triptych.evaluation.restorers import (
    DegradedImages,
    classical_restorer,
    load_any_images,
    load_restorers,
    make_levels,
    tuned_strength,
)
from triptych.evaluation.similarity import psnr, ssim
from triptych.figures.images import save_captioned
from triptych.outputs import PICTURES, claim_file


def main(
    models: str = "",
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    sigma: float | None = None,
    noise: NoiseConfig | None = None,
    paired: bool = False,
    methods: str = "non-local means,BM3D",
    num_images: int = 6,
    num_tuning: int = 50,
    tuning_split: str = "train",
    diffusion_steps: list[int] | None = None,
    posterior_draws: list[int] | None = None,
    device: str | None = None,
    num_workers: int = 1,
    seed: int = 0,
    output: Path = Path("runs/restorations.png"),
    overwrite: bool = False,
) -> None:
    """Draw restorations.

    Args:
        models: saved pipelines (denoisers, a VAE, a diffusion model), as name=folder, separated by commas.
        data: where the images come from, all of one size; the first `num_images` are drawn.
        sigma: Gaussian noise of this level, of 255; 25 if nothing is given.
        noise: another degradation instead.
        paired: the images come with their noisy versions, in folders "clean" and "noisy".
        methods: classical methods, separated by commas.
        num_images: rows of the table.
        num_tuning: images of `tuning_split` on which the classical methods are tuned.
        tuning_split: where these come from.
        diffusion_steps: of diffusion models, a column each; 1 and 25 if not given.
        posterior_draws: of diffusion models, a column each: the mean of so many draws from the posterior; none if not
            given.
        device: cpu, cuda, mps; the best there is if not given.
        num_workers: processes for the classical methods.
        seed: of the noise, which is that of scripts/score_denoiser.py at the same seed.
        output: the picture to write, .png, .svg or .pdf.
        overwrite: replace an output file that is there already.
    """
    claim_file(output, overwrite, *PICTURES)
    names = classical.chosen(methods)
    images = load_any_images(data, False, paired)
    if not 1 <= num_images <= len(images):
        raise UserError(f"num_images {num_images} must lie between 1 and {len(images)}.")
    sigmas = [sigma] if sigma is not None else None if noise or paired else [25.0]
    ((title, level),) = make_levels(sigmas, noise, paired).items()
    test = DegradedImages(images, level, seed)
    ((clean, noisy),) = test.chunks(num_images, num_images)

    columns = {f"noisy, {title}": noisy}
    if names:
        tuning = DegradedImages(load_any_images(replace(data, split=tuning_split), False, paired), level, seed)
    with classical.make_pool(num_workers) as pool:
        for name in names:
            restore = classical_restorer(name, tuned_strength(name, tuning, num_tuning, pool), pool)
            columns[name] = restore(noisy, test.sigma)
    restorers = load_restorers(models, diffusion_steps or [1, 25], posterior_draws or [], seed, device)
    columns |= {name: restore(noisy, test.sigma) for name, (restore, _) in restorers.items()}
    originals = torch.stack(clean)
    captions = []
    for column in columns.values():
        scores = (metric(originals, torch.stack(list(column))).tolist() for metric in (psnr, ssim))
        captions.append([f"{a:.2f} dB, {b:.3f}" for a, b in zip(*scores, strict=True)])
    columns["clean"] = clean
    captions.append([""] * num_images)
    pictures = torch.stack([torch.stack(list(column)) for column in columns.values()], dim=1).permute(0, 1, 3, 4, 2)
    print(save_captioned(pictures.clamp(0, 1).numpy(), list(columns), list(zip(*captions, strict=True)), output))


if __name__ == "__main__":
    command(main)
