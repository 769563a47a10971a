"""Copy a saved pipeline, or a judge, in half precision: half the size, to ship or to upload.

python scripts/export_pipeline.py runs/diffusion_cifar10/pipeline pretrained/cifar10-class-conditional

Our own code, and `DiffusionPipeline.from_pretrained`, load it in single precision again.
"""

from __future__ import annotations

from triptych.cli import command

from pathlib import Path
from typing import Literal

import torch

from triptych.errors import UserError
from triptych.evaluation.judges import load_judge
from triptych.outputs import claim_folder
from triptych.pipelines.store import load_pipeline, save_parts


def main(
    pipeline: str, output: Path, dtype: Literal["float16", "bfloat16", "float32"] = "float16", overwrite: bool = False
) -> None:
    """Copy a pipeline or a classifier.

    Args:
        pipeline: folder of a saved pipeline, or of a classifier of scripts/train_classifier.py.
        output: folder of the copy; the model card comes along.
        dtype: precision of the copy's weights.
        overwrite: replace an output folder that already holds something.
    """
    claim_folder(output, overwrite)
    if output.resolve() == Path(pipeline).resolve():
        raise UserError(f"{output} is the original, and would lose its precision. Choose another --output.")
    if (Path(pipeline) / "preprocessor_config.json").exists():
        judge = load_judge(pipeline)
        parts = [judge.model.to(getattr(torch, dtype)), judge.processor]
    else:
        parts = [load_pipeline(pipeline).to(getattr(torch, dtype))]
    card = Path(pipeline) / "README.md"
    save_parts(parts, output, card.read_text() if card.exists() else "")
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"{output}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    command(main)
