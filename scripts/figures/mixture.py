"""Compute what the report's chapter on an exact world shows: a mixture of Gaussians of the plane, whole.

python scripts/figures/mixture.py --output runs/mixture

Writes mixture.json: numbers, curves and contours, which the report draws in the language of its page. Beside what is
exact, small networks are trained on the same points, by the losses of triptych/losses, to be compared with it
(triptych/studies/exact_world.py). Two minutes on one core.
"""

from __future__ import annotations

from triptych.cli import command

import json
from pathlib import Path

import torch

from triptych.errors import UserError
from triptych.losses.mixture import Mixture
from triptych.outputs import claim_file
from triptych.studies.exact_world import bound, contest, describe, diffusion

WORLD = Mixture(
    torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
    torch.tensor([[-2.0, -0.8], [1.8, -0.6], [0.3, 2.0]], dtype=torch.float64),
    torch.tensor([[[0.5, 0.25], [0.25, 0.3]], [[0.25, -0.1], [-0.1, 0.4]], [[0.35, 0.0], [0.0, 0.12]]]).double(),
)


def main(output: Path = Path("runs/mixture"), num_updates: int = 2000, seed: int = 0, overwrite: bool = False) -> None:
    """Compute the exact world.

    Args:
        output: folder for mixture.json.
        num_updates: of each small network.
        seed: of all draws and networks.
        overwrite: replace a mixture.json that is there.
    """
    if num_updates < 1:
        raise UserError("num_updates must be at least 1.")
    target = output / "mixture.json"
    claim_file(target, overwrite)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    found = {
        "world": describe(WORLD, generator),
        "bound": bound(WORLD, num_updates, generator),
        "contest": contest(WORLD, num_updates, generator),
        "diffusion": diffusion(WORLD, num_updates, generator),
    }
    output.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found) + "\n")
    print(target)


if __name__ == "__main__":
    command(main)
