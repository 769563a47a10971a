"""Restore noisy image files with a saved denoiser: a file or a folder in, files of the same names out.

python scripts/restore.py runs/demo_gan_digits/pipeline photos --output restored
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from triptych.config import UserError, command
from triptych.export import load_pipeline, refuse_unless_empty

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def main(
    pipeline: str,
    source: Path,
    output: Path = Path("runs/restored"),
    tile: int = 256,
    overlap: int = 32,
    device: str | None = None,
    overwrite: bool = False,
) -> None:
    """Restore images.

    Args:
        pipeline: folder of a saved denoiser, or a Hub id.
        source: an image, or a folder of them (its subfolders too).
        output: folder for the restored images, as PNG.
        tile: side of the squares that larger images are cut into: bounds the memory.
        overlap: pixels that neighbouring tiles share.
        device: cpu, cuda, mps; the best there is if not given.
        overwrite: write into an output folder that already holds something.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist. Give an image or a folder of images.")
    found = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{source} holds no images ({', '.join(sorted(SUFFIXES))}).")
    root = source.parent if source.is_file() else source
    targets = [output / path.relative_to(root).with_suffix(".png") for path in found]
    twins = {target for target in targets if targets.count(target) > 1}
    if twins:
        raise UserError(
            f"{len(twins)} names would be written twice, such as {min(twins)}: rename one of the originals."
        )
    refuse_unless_empty(output, overwrite)
    pipe = load_pipeline(pipeline, "denoiser")
    pipe.to(device or ("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"))
    skipped = 0
    for path, target in zip(tqdm(found, unit="image"), targets, strict=True):
        try:
            image = ImageOps.exif_transpose(Image.open(path))
            image.load()
        except (OSError, SyntaxError) as error:
            print(f"note: {path} cannot be read ({error}); it is left out.", file=sys.stderr)
            skipped += 1
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            pipe(image, tile=tile, overlap=overlap).images[0].save(target)
        except ValueError as error:
            raise UserError(str(error)) from None
    print(f"{len(found) - skipped} of {len(found)} images restored: {output}")


if __name__ == "__main__":
    command(main)
