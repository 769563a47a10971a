"""Restore noisy image files with a saved denoiser: a file or a folder in, files of the same names out.

python scripts/restore.py runs/demo_gan_digits/pipeline photos --output restored
"""

from __future__ import annotations

from triptych.cli import command

import sys
from collections import Counter
from pathlib import Path

from tqdm.auto import tqdm

from triptych.data.decoding import DecodingError, as_picture, decode
from triptych.data.listing import list_folder
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.outputs import claim_folder
from triptych.pipelines.store import load_pipeline


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
    passed = ""
    if source.is_file():
        root, found = source.parent, [source]
    else:
        listing = list_folder(source)
        root, found, passed = source, [source / name for name in listing.images], listing.passed_over()
        passed = f"; passed over: {passed}" if passed else ""
    if not found:
        raise UserError(f"{source} holds no images{passed}.")
    print(f"{source}: {len(found)} images{passed}", file=sys.stderr)
    targets = [output / path.relative_to(root).with_suffix(".png") for path in found]
    twins = [target for target, count in Counter(targets).items() if count > 1]
    if twins:
        raise UserError(
            f"{len(twins)} names would be written twice, such as {min(twins)}: rename one of the originals."
        )
    own = {path.resolve() for path in found} & {target.resolve() for target in targets}
    if own:
        raise UserError(f"{min(own)} is one of the originals and would be overwritten. Choose another --output.")
    claim_folder(output, overwrite)
    pipe = load_pipeline(pipeline, "denoiser")
    pipe.to(find_device(device))
    skipped = 0
    for path, target in zip(tqdm(found, unit="image"), targets, strict=True):
        try:
            pixels = decode(path)  # uint8 (H, W, 1 or 3)
        except DecodingError as error:
            print(f"note: {path} cannot be read ({error}); it is left out.", file=sys.stderr)
            skipped += 1
            continue
        restored = pipe(as_picture(pixels), tile=tile, overlap=overlap).images[0]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            restored.save(target)
        except OSError as error:
            raise UserError(
                f"{target} cannot be written ({error}). Make room, or choose another --output that can be written to."
            ) from None
    if skipped == len(found):
        raise UserError(f"None of {len(found)} images could be read (see above): nothing is restored.")
    print(f"{len(found) - skipped} of {len(found)} images restored: {output}")


if __name__ == "__main__":
    command(main)
