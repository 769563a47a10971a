"""Draw how images are degraded: each kind of noise at several levels, with PSNR and SSIM under each picture.

Everything is shown and measured as it would be saved, clipped and rounded to 8 bits; the means are printed.

python scripts/figures/degradations.py --data.path uoft-cs/cifar10 --data.split test --output runs/degradations.png
"""

from __future__ import annotations

from triptych.cli import command

from pathlib import Path

import torch

from triptych.config.base import DataConfig, NoiseConfig
from triptych.data.degradations import degrade_by_index, to_8_bits
from triptych.data.image_set import to_images
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.evaluation.similarity import psnr, ssim
from triptych.figures.images import save_captioned
from triptych.outputs import PICTURES, claim_file

LEVELS = {  # the default columns: their titles and settings
    "sigma 15": NoiseConfig(sigma=(15, 15)),
    "sigma 25": NoiseConfig(sigma=(25, 25)),
    "sigma 50": NoiseConfig(sigma=(50, 50)),
    "30 photons": NoiseConfig(kinds=("poisson",), peak=(30, 30)),
    "5 photons": NoiseConfig(kinds=("poisson",), peak=(5, 5)),
    "10 % salt, pepper": NoiseConfig(kinds=("salt_and_pepper",), amount=(0.1, 0.1)),
    "speckle 0.3": NoiseConfig(kinds=("speckle",), speckle=(0.3, 0.3)),
    "30 photons, sigma 15": NoiseConfig(kinds=("poisson", "gaussian"), peak=(30, 30), sigma=(15, 15)),
}


def main(
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    noise: NoiseConfig | None = None,
    output: Path = Path("runs/degradations.png"),
    images: list[int] | None = None,
    num_scored: int = 1000,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Draw degradations.

    Args:
        data: where the images come from.
        noise: one degradation of your own, instead of the gallery.
        output: the picture to write, .png, .svg or .pdf.
        images: which images to draw, by index; the first four if not given.
        num_scored: the printed means are over so many images (all, if there are fewer).
        seed: of the noise; an image's noise depends on (seed, its index) alone.
        overwrite: replace an output file that is there already.
    """
    claim_file(output, overwrite, *PICTURES)
    clean_set = load_images(data)
    chosen = images if images is not None else list(range(min(4, len(clean_set))))
    if not chosen or not all(0 <= index < len(clean_set) for index in chosen):
        raise UserError(f"images: {chosen} must be indices from 0 to {len(clean_set) - 1}.")
    if num_scored < 1:
        raise UserError("num_scored must be at least 1.")
    gallery = LEVELS if noise is None else {" then ".join(noise.kinds): noise}
    clean = to_images(clean_set.__getitems__(chosen)["pixels"])
    scored = range(min(num_scored, len(clean_set)))
    originals = to_images(clean_set.__getitems__(scored)["pixels"])

    columns, captions = [clean / 2 + 0.5], [[""] * len(chosen)]
    for title, config in gallery.items():
        degraded, all_degraded = (
            to_8_bits(degrade_by_index(images, indices, config, seed)) / 2 + 0.5  # (B, C, H, W) in [0, 1]
            for images, indices in ((clean, chosen), (originals, scored))
        )
        scores = zip(psnr(columns[0], degraded).tolist(), ssim(columns[0], degraded).tolist(), strict=True)
        columns.append(degraded)
        captions.append([f"{a:.1f} dB, {b:.2f}" for a, b in scores])
        means = [metric(originals / 2 + 0.5, all_degraded).mean() for metric in (psnr, ssim)]
        print(f"{title:24} PSNR {means[0]:6.2f} dB   SSIM {means[1]:.3f}   n = {len(scored):,}")
    pictures = torch.stack(columns, dim=1).permute(0, 1, 3, 4, 2).numpy()  # (images, columns, H, W, C)
    by_row = list(zip(*captions, strict=True))
    print(save_captioned(pictures, ["clean", *gallery], by_row, output))


if __name__ == "__main__":
    command(main)
