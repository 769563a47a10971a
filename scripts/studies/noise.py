"""What the noise parameters are worth: models that differ in one thing, at an equal training budget, scored alike.

    python scripts/studies/noise.py configs/diffusion_cifar10_cpu.yaml --judge runs/classifier_cifar10/classifier \\
        --num_updates 2000 --output runs/noise_study

Varied are the schedule, the end of beta, the number of training steps, what is predicted, and zero terminal SNR. Can
be interrupted at any time: trainings are resumed, and what has been trained or scored already is reused. Small budgets
tell what learns fast, not what is best in the end: the table and the chart say how small it was.
"""

from __future__ import annotations

from triptych.cli import command, listed

import json
from pathlib import Path

from triptych.config.base import DataConfig, read_yaml
from triptych.data.sources import load_images
from triptych.errors import UserError
from triptych.evaluation.judges import load_critic
from triptych.figures.charts import save_bars
from triptych.figures.tables import markdown, with_interval
from triptych.measures import MEASURES
from triptych.outputs import claim_study
from triptych.studies import stages

BASE = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}
VARIANTS: dict[str, dict[str, object]] = {  # by title: what differs from the base, keys of `schedule`
    "base": {},
    "linear": {"beta_schedule": "linear"},
    "linear, beta_end 0.01": {"beta_schedule": "linear", "beta_end": 0.01},
    "linear, beta_end 0.04": {"beta_schedule": "linear", "beta_end": 0.04},
    "scaled linear": {"beta_schedule": "scaled_linear"},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "100 training steps": {"num_train_timesteps": 100},
    "4000 training steps": {"num_train_timesteps": 4000},
    "epsilon": {"prediction_type": "epsilon"},
    "sample": {"prediction_type": "sample"},
    "zero terminal SNR": {"zero_terminal_snr": True},
}
COLUMNS = {key: MEASURES[key].column for key in ("frechet_distance", "class_accuracy", "precision", "recall")}


def main(
    experiment: Path,
    judge: str | None = None,
    variants: str = "; ".join(VARIANTS),
    num_updates: int = 2000,
    num_images_per_class: int = 100,
    seed: int = 0,
    output: Path = Path("runs/noise_study"),
    data_path: str | None = None,
    device: str | None = None,
    train_flags: list[str] | None = None,
    score_flags: list[str] | None = None,
    overwrite: bool = False,
) -> None:
    """Study noise parameters.

    Args:
        experiment: a config of scripts/train_diffusion.py; its schedule, budget, seed, name and folder are set here,
            and no part is published (run.push_to).
        judge: a classifier of scripts/train_classifier.py, or "inception"; if not given, the latter where its weights
            can be had, else the judge in pretrained/ that knows these classes.
        variants: titles of those to train, separated by semicolons.
        num_updates: the budget of each.
        num_images_per_class: images of each class that are scored.
        seed: of training and of drawing.
        output: folder of the runs, of table.md and of the chart.
        data_path: where the images come from, if not from where the config says.
        device: cpu, cuda, mps; the best there is if not given.
        train_flags: more flags for scripts/train_diffusion.py, such as '[--batch_size, "16"]'.
        score_flags: more flags for scripts/score.py, such as '[--guidance_scale, "2"]'.
        overwrite: write into an output folder that holds other things than this command's own work.
    """
    claim_study(output, overwrite)
    titles = listed(variants, ";")
    unknown = [title for title in titles if title not in VARIANTS]
    if unknown or not titles:
        raise UserError(f"variants: {unknown or 'none'} is not among: {'; '.join(VARIANTS)}.")
    if not experiment.exists():
        raise UserError(f"{experiment} does not exist.")
    path = data_path or read_yaml(experiment)["data"]["path"]
    images = load_images(DataConfig(path, split="test"), need_labels=True)
    data = ["--data.path", data_path] if data_path else []
    # loaded here too, so that a judge that cannot be had is said before hours of training, and another one scores anew
    critic = load_critic(judge, images.class_names, images.image_size, device)
    scored_by = {"judge_fingerprint": critic.fingerprint, "score_flags": score_flags or []}
    scored_by |= {"seed": seed, "num_images_per_class": num_images_per_class}
    found = {}
    for title in titles:
        name = title.replace(" ", "_").replace(",", "")
        schedule = BASE | VARIANTS[title]
        settings = [part for key, value in schedule.items() for part in (f"--schedule.{key}", str(value).lower())]
        settings += ["--num_updates", num_updates, "--seed", seed, *data, *(train_flags or [])]
        run = stages.train_once("train_diffusion.py", experiment, output, name, *settings)
        path = run / "scores.json"
        scores = json.loads(path.read_text()) if path.exists() else {}
        if any(scores.get(key) != value for key, value in scored_by.items()):
            trained_on = read_yaml(run / "config.yaml")["data"]["path"]
            settings = ["--data.path", trained_on, "--data.split", "test", "--seed", seed]
            settings += ["--judge", judge] if judge else []
            settings += ["--num_images_per_class", num_images_per_class, "--output", run, "--overwrite"]
            settings += ["--features", output / "features"]  # of the real images, the same for all
            settings += stages.device_flags(device)
            stages.run("score.py", run / "pipeline", *settings, *(score_flags or []))
            scores = json.loads(path.read_text()) | {"score_flags": scored_by["score_flags"]}  # the rest it says itself
            path.write_text(json.dumps(scores, indent=2) + "\n")
        found[title] = scores
    trained = read_yaml(run / "config.yaml")
    budget = f"{trained['num_updates']:,} updates of {trained['batch_size']}"
    text = table(found, budget)
    (output / "table.md").write_text(text)
    columns = {
        name: {t: (s[key], s.get(f"{key}_interval", 0.0)) for t, s in found.items()}
        for key, name in COLUMNS.items()
        if key in found[titles[0]]
    }
    chart = save_bars(columns, f"after {budget}", output / "scores.png")
    print(f"\n{text}\n{output / 'table.md'}\n{chart}")


def table(found: dict[str, dict], budget: str) -> str:
    first = next(iter(found.values()))
    shown = {key: name for key, name in COLUMNS.items() if key in first}
    lines = [[title, *(with_interval(scores, key) for key in shown)] for title, scores in found.items()]
    base = ", ".join(f"{key} {value}" for key, value in BASE.items())
    note = (
        f"Base: {base}. Each trained for {budget}; n = {first['n']:,}; {first['judge']}; against {first['data']}, "
        f"{first['reference_split']}; {first['scheduler']}, {first['num_inference_steps']} steps, guidance "
        f"{first['guidance_scale']:g}; seed {first['seed']}, of one training each; intervals of the images drawn, 95 %."
    )
    return f"{markdown(['what differs', *shown.values()], lines)}\n\n{note}\n"


if __name__ == "__main__":
    command(main)
