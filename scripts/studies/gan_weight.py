"""Which weight of the adversarial loss is best? Train a denoiser at several weights and seeds, and measure all alike.

    python scripts/studies/gan_weight.py configs/gan_cifar10.yaml --adversarial_weights 0.003,0.01,0.03 \\
        --baseline runs/regression_cifar10/pipeline --output runs/gan_sweep

Ends in the table and the charts of score_denoiser.py, distortion against perception (Blau & Michaeli 2018) among them
when a judge is given; and tells of each training whether generator and discriminator stayed balanced. Can be
interrupted at any time: trainings are resumed, and what has been trained or measured already is reused.
"""

from __future__ import annotations

from triptych.cli import command

from pathlib import Path

import numpy as np

from triptych.config.base import read_yaml
from triptych.figures.tables import markdown
from triptych.jsonl import read_rows
from triptych.outputs import claim_study
from triptych.studies import stages

HEALTH = ("accuracy_real", "accuracy_restored", "grad_norm_generator", "grad_norm_discriminator", "psnr")


def main(
    experiment: Path,
    adversarial_weights: list[float] | None = None,
    seeds: list[int] | None = None,
    baseline: str | None = None,
    output: Path = Path("runs/gan_sweep"),
    data_path: str | None = None,
    device: str | None = None,
    train_flags: list[str] | None = None,
    score_flags: list[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Sweep the adversarial weight.

    Args:
        experiment: a config of scripts/train_gan.py; its weight, seed, name and output folder are set here, and no part
            is published (run.push_to).
        adversarial_weights: 0.003, 0.01 and 0.03 if not given.
        seeds: 0 if not given.
        baseline: folder of the regression's pipeline: measured with the others, and what each generator starts from.
        output: folder of the runs (weight<w>_seed<seed>), of health.md and of the measurements.
        data_path: where the images come from, if not from where the config says.
        device: cpu, cuda, mps; the best there is if not given.
        train_flags: more flags for scripts/train_gan.py, such as '[--num_updates, "100"]'.
        score_flags: more flags for scripts/score_denoiser.py, such as '[--judge, runs/classifier_cifar10/classifier]'.
        overwrite: write into an output folder that holds other things than this command's own work.
    """
    claim_study(output, overwrite)
    data = ["--data.path", data_path] if data_path else []
    start = ["--generator_init", baseline] if baseline else []
    models = {"regression": baseline} if baseline else {}
    runs = {}
    for weight in adversarial_weights or [0.003, 0.01, 0.03]:
        for seed in seeds or [0]:
            settings = ["--adversarial_weight", weight, "--seed", seed, *start, *data, *(train_flags or [])]
            run = stages.train_once("train_gan.py", experiment, output, f"weight{weight:g}_seed{seed}", *settings)
            runs[f"GAN {weight:g}" + (f" seed {seed}" if len(seeds or [0]) > 1 else "")] = run
    models |= {name: str(run / "pipeline") for name, run in runs.items()}
    text = health(runs)
    (output / "health.md").write_text(text)
    print(f"\n{text}\n{output / 'health.md'}")
    named = ",".join(f"{name}={folder}" for name, folder in models.items())
    trained_on = read_yaml(next(iter(runs.values())) / "config.yaml")["data"]["path"]
    settings = ["--models", named, "--data.path", trained_on, "--output", output, *stages.device_flags(device)]
    stages.run("score_denoiser.py", *settings, *(score_flags or []))


def health(runs: dict[str, Path]) -> str:
    """Means over the last tenth of each training: where it collapsed, accuracies are 1 or gradients grow."""
    lines = []
    for name, run in runs.items():
        rows = read_rows(run / "log.jsonl")
        last = rows[-max(1, len(rows) // 10) :]
        means = (np.mean([row[key] for row in last if key in row] or [np.nan]) for key in HEALTH)
        lines.append([name, *(f"{mean:.3g}" for mean in means)])
    return markdown(["game", *HEALTH], lines) + "\n"


if __name__ == "__main__":
    command(main)
