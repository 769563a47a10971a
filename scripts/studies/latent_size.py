"""Compare latent sizes: train (or reuse) a VAE for each size and seed, measure each, write one table and one figure.

    python scripts/studies/latent_size.py configs/demo/vae_digits.yaml --data_path digits --output runs/vae_comparison

Can be interrupted at any time: trainings are resumed, and what has been trained or measured already is reused.
"""

from __future__ import annotations

from triptych.cli import command

import json
from pathlib import Path

import numpy as np

from triptych.config.base import read_yaml
from triptych.figures.charts import save_comparison
from triptych.figures.tables import markdown
from triptych.measures import MEASURES
from triptych.outputs import claim_study
from triptych.studies import stages

SHOWN = ("neg_elbo", "importance_weighted_nll", "reconstruction", "kl", "mse", "psnr", "ssim")
SHOWN += ("active_units", "knn_accuracy")
COLUMNS = {key: (MEASURES[key].column, MEASURES[key].digits) for key in SHOWN}  # score: (title, digits)
COLUMNS["psnr"] = ("PSNR, dB (mean over images)", 2)  # the PSNR of the mean squared error is another number
COLUMNS["ssim"] = ("SSIM", 3)  # the seeds differ in the third digit


def main(
    experiment: Path,
    latent_dims: list[int] | None = None,
    seeds: list[int] | None = None,
    output: Path = Path("runs/vae_comparison"),
    data_path: str | None = None,
    num_importance_samples: int = 500,
    device: str | None = None,
    train_flags: list[str] | None = None,
    score_flags: list[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Compare latent sizes.

    Args:
        experiment: a config of scripts/train_vae.py; its latent size, seed, name and output folder are set here, and
            no part is published (run.push_to).
        latent_dims: 2, 4 and 16 if not given.
        seeds: 0, 1 and 2 if not given.
        output: folder of the runs (z<size>_seed<seed>), comparison.json, comparison.md and comparison.png.
        data_path: where the images come from, if not from where the config says.
        num_importance_samples: k of the importance-weighted bound.
        device: cpu, cuda, mps; the best there is if not given.
        train_flags: more flags for scripts/train_vae.py, such as '[--num_updates, "100"]'.
        score_flags: more flags for scripts/score_vae.py, such as '[--dtype, bfloat16]'.
        overwrite: write into an output folder that holds other things than this command's own work.
    """
    claim_study(output, overwrite)
    data = ["--data.path", data_path] if data_path else []
    results: dict[int, list[dict]] = {}
    for latent_dim in latent_dims or [2, 4, 16]:
        for seed in seeds or [0, 1, 2]:
            settings = ["--model.latent_dim", latent_dim, "--seed", seed, *data, *(train_flags or [])]
            run = stages.train_once("train_vae.py", experiment, output, f"z{latent_dim}_seed{seed}", *settings)
            if not (run / "scores.json").exists():
                trained_on = ["--data.path", read_yaml(run / "config.yaml")["data"]["path"]]
                k = ["--num_importance_samples", num_importance_samples]
                stages.run(
                    "score_vae.py",
                    run / "pipeline",
                    *trained_on,
                    *k,
                    *stages.device_flags(device),
                    *(score_flags or []),
                )
            results.setdefault(latent_dim, []).append(json.loads((run / "scores.json").read_text()))

    table = {d: {key: [s[key] for s in scores if key in s] for key in COLUMNS} for d, scores in results.items()}
    (output / "comparison.json").write_text(json.dumps(results, indent=2) + "\n")
    text = summary(table, results)
    (output / "comparison.md").write_text(text)
    shown = {COLUMNS[key][0]: {d: row[key] for d, row in table.items()} for key in COLUMNS}
    figure = save_comparison(
        {k: v for k, v in shown.items() if all(v.values())}, "latent size", output / "comparison.png"
    )
    print(f"\n{text}\n{output / 'comparison.md'}\n{figure}")


def summary(table: dict[int, dict[str, list[float]]], results: dict[int, list[dict]]) -> str:
    """Mean and standard deviation over seeds, a row per latent size."""
    lines = []
    for latent_dim, row in table.items():
        cells = []
        for key, (_, digits) in COLUMNS.items():
            values = row[key]
            spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.{digits}f}{spread}" if values else "")
        lines.append([latent_dim, *cells])
    of_one_size = next(iter(results.values()))
    first = of_one_size[0]
    note = f"{first['n']:,} {first['split']} images of {first['data']}, {first['likelihood']} likelihood"
    if "num_importance_samples" in first:
        note += f", k = {first['num_importance_samples']}"
    note += f"; mean ± standard deviation over {len(of_one_size)} seeds." if len(of_one_size) > 1 else "; one seed."
    titles = ["latent size", *(title for title, _ in COLUMNS.values())]
    return f"{markdown(titles, lines)}\n\n{note}\n"


if __name__ == "__main__":
    command(main)
