"""The README's table of trained models: every number in it is computed again, from records/ and from the weights."""

from __future__ import annotations

import json
import re
from decimal import ROUND_HALF_UP, Decimal

import pytest
from conftest import ROOT
from safetensors import safe_open

RECORDS = ROOT / "records"
ROWS = {
    row[0]: row
    for row in (
        [cell.strip(" `") for cell in line.strip("|").split(" | ")]
        for line in (ROOT / "README.md").read_text().splitlines()
        if re.match(r"\| `[\w-]+` \|", line)
    )
}


def rounded(number: float, like: str) -> str:
    """`number` with as many decimals as `like`, halves upwards as people round."""
    places = Decimal(1).scaleb(-len(like.partition(".")[2]))
    return f"{Decimal(repr(number)).quantize(places, ROUND_HALF_UP)}"


def read(name: str) -> dict:
    return json.loads((RECORDS / name).read_text())


def row_of(study: str, **wanted: str) -> dict:
    rows = map(json.loads, (RECORDS / study / "rows.jsonl").read_text().splitlines())
    (found,) = (row for row in rows if all(row[key] == value for key, value in wanted.items()))
    return found


def restored(study: str, level: str, method: str) -> tuple[float, float, int]:
    row = row_of(study, level=level, method=method)
    return row["psnr"], row["psnr_interval"], row["n"]


def bound(latent_dim: int) -> tuple[float, float, int]:
    """Of the first seed's network, the one that is shipped."""
    scores = read("vae_comparison/comparison.json")[str(latent_dim)][0]
    return scores["importance_weighted_nll"], 1.96 * scores["importance_weighted_nll_standard_error"], scores["n"]


def right(run: str) -> tuple[float, float, int]:
    scores = read(f"{run}/scores.json")
    share, n = scores["accuracy"], scores["n"]
    return 100 * share, 196 * (share * (1 - share) / n) ** 0.5, n


def recognised() -> tuple[float, float, int]:
    scores = read("scores/scores.json")
    return 100 * scores["class_accuracy"], 100 * scores["class_accuracy_interval"], scores["n"]


SCORES = {
    "cifar10-class-conditional": recognised,
    "denoiser-cifar10": lambda: restored("denoising", "sigma 25", "GAN"),
    "denoiser-cifar10-regression": lambda: restored("denoising", "sigma 25", "regression"),
    "denoiser-mnist": lambda: restored("denoising_mnist", "sigma 50", "GAN"),
    "vae-mnist-z2": lambda: bound(2),
    "vae-mnist-z4": lambda: bound(4),
    "vae-mnist-z16": lambda: bound(16),
    "judge-cifar10": lambda: right("classifier_cifar10"),
    "judge-mnist": lambda: right("classifier_mnist"),
}
RUNS = {
    "cifar10-class-conditional": ["diffusion_cifar10_minutes"],
    "denoiser-cifar10": ["regression_cifar10", "gan_cifar10"],
    "denoiser-cifar10-regression": ["regression_cifar10"],
    "denoiser-mnist": ["gan_mnist"],
    "vae-mnist-z2": ["vae_comparison/z2_seed0"],
    "vae-mnist-z4": ["vae_comparison/z4_seed0"],
    "vae-mnist-z16": ["vae_comparison/z16_seed0"],
    "judge-cifar10": ["classifier_cifar10"],
    "judge-mnist": ["classifier_mnist"],
}


def test_every_shipped_model_has_a_row():
    assert ROWS.keys() == {path.name for path in (ROOT / "pretrained").iterdir()} == SCORES.keys()


@pytest.mark.parametrize("name", SCORES)
def test_scores_and_hours_are_those_of_the_records(name):
    *_, said, hours = ROWS[name]
    score, interval, n = re.search(r"([\d.]+) ± ([\d.]+) .*?\(([\d,]+)\)", said).groups()
    measured = SCORES[name]()
    assert [rounded(measured[0], score), rounded(measured[1], interval), f"{measured[2]:,}"] == [score, interval, n]
    last = [(RECORDS / run / "timing.jsonl").read_text().splitlines()[-1] for run in RUNS[name]]
    assert rounded(sum(json.loads(line)["seconds"] for line in last) / 3600, hours) == hours


@pytest.mark.parametrize("name", SCORES)
def test_sizes_are_those_of_the_weights(name):
    folder = ROOT / "pretrained" / name
    parameters, size = re.fullmatch(r"([\d.]+) M, ([\d.]+) MB", ROWS[name][2]).groups()
    (weights,) = folder.rglob("*.safetensors")
    with safe_open(weights, "pt") as opened:
        shapes = {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118 - no mapping
    count = 0
    for key, shape in shapes.items():
        if not re.search(r"running_(mean|var)|num_batches_tracked", key):
            product = 1
            for side in shape:
                product *= side
            count += product
    assert rounded(count / 1e6, parameters) == parameters
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert rounded(total / 1e6, size) == size
