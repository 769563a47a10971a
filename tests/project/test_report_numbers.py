"""Every number of the report is one of the records, and every layer one of the networks."""

from __future__ import annotations

import json
import re
import shutil
import statistics
from decimal import ROUND_HALF_UP, Decimal

import pytest
import torch
import yaml
from conftest import ROOT
from project.build_report import REPORT, main
from report_text import (
    LANGUAGES,
    RECORDS,
    RESULTS,
    needs_typst,
    newest,
    prose,
    read,
    rows,
)

from triptych.errors import UserError


@pytest.fixture(scope="module")
def shown() -> dict[str, list[str]]:
    """By language, every number of the results as it was handed to the page, in Latin digits."""
    import typst

    common = {"root": str(ROOT), "font_paths": [str(REPORT / "fonts")], "ignore_system_fonts": True}
    return {
        language: json.loads(typst.query(str(REPORT / language / "main.typ"), "<shown>", field="value", **common))
        for language in LANGUAGES
    }


def shapes(module: torch.nn.Module, *inputs: torch.Tensor) -> list[tuple[int, int]]:
    """(side, channels) of every layer's output, in the order of the computation."""
    found = []

    def note(_, __, output) -> None:
        if isinstance(output, torch.Tensor):
            found.append((output.shape[-1], output.shape[1]) if output.dim() == 4 else (1, output.shape[1]))

    layers = [part for part in module.modules() if isinstance(part, torch.nn.Conv2d) or not list(part.children())]
    hooks = [part.register_forward_hook(note) for part in layers]
    with torch.no_grad():
        module(*inputs)
    for hook in hooks:
        hook.remove()
    return found


@needs_typst
@pytest.mark.parametrize("language", LANGUAGES)
def test_layer_tables_are_the_networks(language):
    """Every row's output is one of a layer of the network that the record's settings build, in this order."""
    import typst
    from diffusers import UNet2DModel

    from models.gan import DenoisingUNet, PatchDiscriminator
    from models.vae import VAE
    from triptych.config.diffusion import UNetConfig

    common = {"root": str(ROOT), "font_paths": [str(REPORT / "fonts")], "ignore_system_fonts": True}
    rows = json.loads(typst.query(str(REPORT / language / "main.typ"), "<layer>", field="value", **common))
    vae = VAE(**record("vae_comparison/z2_seed0/config.yaml")["model"])
    game = record("gan_cifar10/config.yaml")
    image = torch.zeros(1, 3, 32, 32)
    settings = record("diffusion_cifar10_cpu/config.yaml")
    arguments = UNetConfig(**settings["unet"]).arguments(32, 3, settings["pixel_unshuffle"])
    unet = UNet2DModel(**arguments, num_class_embeds=11)
    computed = [
        *shapes(vae, torch.zeros(1, 1, 28, 28), torch.zeros(1, 2)),
        (16, 12),  # folding is no module
        *shapes(DenoisingUNet(**game["generator"]), image),
        (32, 3),
        *shapes(PatchDiscriminator(**game["discriminator"]), image, image),
        (16, 12),
        *shapes(unet, torch.zeros(1, 12, 16, 16), torch.tensor(5), torch.tensor([1])),
        (32, 3),
    ]
    at = 0
    for row in rows:
        assert tuple(row) in computed[at:], (row, at)
        at = computed.index(tuple(row), at)
    assert len(rows) > 35


def record(path: str) -> dict:
    text = (RECORDS / path).read_text()
    return yaml.safe_load(text) if path.endswith(".yaml") else json.loads(text)


def largest(found: list[dict], *key: str) -> list[dict]:
    """Of the groups of rows with the same key the largest; of equals the one with the lowest Frechet distance."""
    groups: dict[tuple, list[dict]] = {}
    for row in found:
        groups.setdefault(tuple(row[k] for k in key), []).append(row)
    return min(groups.values(), key=lambda group: (-len(group), min(row["frechet_distance"] for row in group)))


def written(value: float, digits: int) -> str:
    """As the report writes it: halves away from zero, where Python's format takes the even one."""
    rounded = Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    return f"{rounded:,}".replace("-", "\N{MINUS SIGN}")


def spread(value: float, half: float, digits: int) -> list[str]:
    """Value and deviation, with as many more digits as the deviation needs to be no zero."""
    while half > 0 and float(written(half, digits)) == 0:
        digits += 1
    return [written(value, digits), written(half, digits)]


def with_interval(row: dict, key: str, digits: int) -> list[str]:
    half = row.get(f"{key}_interval")
    return [written(row[key], digits)] if half is None else spread(row[key], half, digits)


def expected_numbers() -> list[str]:
    """What the tables must say, computed here from the records, independently of the typesetting."""
    found = []
    columns = {
        "neg_elbo": 2,
        "importance_weighted_nll": 2,
        "reconstruction": 2,
        "kl": 2,
        "mse": 4,
        "psnr": 2,
        "ssim": 3,
    }
    for seeds in record("vae_comparison/comparison.json").values():
        for key, digits in columns.items():
            values = [row[key] for row in seeds]
            found += spread(statistics.mean(values), statistics.stdev(values), digits)
        found.append(written(100 * statistics.mean(row["knn_accuracy"] for row in seeds), 1))
    listed = json.loads((RECORDS / "studies.json").read_text())
    for study in sorted({"denoising", "gan_sweep", "three_families", "denoising_mnist"} & set(listed)):
        measured = newest(f"{study}/rows.jsonl", "level", "method")
        levels = sorted({row["level"] for row in measured}, key=lambda level: float(level.split()[-1]))
        for row in measured:
            whole = study != "denoising" or row["level"] == levels[(len(levels) - 1) // 2]
            if whole and (row["method"] != "noisy" or study in ("denoising", "denoising_mnist")):
                found += [*with_interval(row, "psnr", 2), written(row["frechet_distance"], 3)]
                if study != "denoising_mnist":
                    found += with_interval(row, "perceptual_distance", 3)
    if "gan_seeds" in listed:
        measured = [row for row in newest("gan_seeds/rows.jsonl", "level", "method") if "seed" in row["method"]]
        for level in {row["level"] for row in measured}:
            of_seeds = [row["frechet_distance"] for row in measured if row["level"] == level]
            found += spread(statistics.mean(of_seeds), statistics.stdev(of_seeds), 3)
    if "scores_cpu" in listed:
        scores = record("scores_cpu/scores.json")
        found += with_interval(scores, "frechet_distance", 3) + with_interval(scores["floor"], "frechet_distance", 3)
    else:
        settings = {"scheduler": "DPMSolverMultistep", "num_inference_steps": 25, "guidance_scale": 3.0}
        scores = [row for row in rows("sampling/rows.jsonl") if settings.items() <= row.items()][-1]
    found.append(written(100 * scores["class_accuracy"], 1))
    for name, of_class in scores["per_class"].items():
        found.append(written(100 * of_class["accuracy"], 1))
        found.append(written(100 * record("classifier_cifar10/scores.json")["per_class"][name]["accuracy"], 1))
    if "reconstruction" in listed:
        for row in newest("reconstruction/rows.jsonl", "t"):
            found += [written(row["t"], 0), *with_interval(row, "psnr", 2)]
            found += spread(100 * row["kept"], 100 * row["kept_interval"], 1)
            found += [written(100 * of_class["kept"], 0) for of_class in row["per_class"].values()]
    sampled = newest("sampling/rows.jsonl", "scheduler", "num_inference_steps", "guidance_scale")
    # Steps are compared at the guidance, guidance by the sampler and steps, of which most was measured.
    at_a_guidance = largest(sampled, "guidance_scale")
    by_a_sampler = largest(sampled, "scheduler", "num_inference_steps")
    tables = [at_a_guidance] if len({row["num_inference_steps"] for row in at_a_guidance}) > 1 else []
    tables += [by_a_sampler] if len(by_a_sampler) > 1 else []
    found += [number for table in tables for row in table for number in with_interval(row, "frechet_distance", 2)]
    for path in sorted(RECORDS.glob("noise_study/*/scores.json")):
        found += with_interval(json.loads(path.read_text()), "frechet_distance", 2)
    if "mixture" in listed:
        exact = record("mixture/mixture.json")
        found.append(written(exact["world"]["entropy"], 3))
        found += [number for name in ("best", "linear", "network") for number in spread(*exact["bound"][name], 3)]
        found += [written(row[key], 3) for row in exact["contest"]["divergences"].values() for key in row]
        found += [number for way in ("mean", "draw", "flow") for number in spread(*exact["diffusion"]["ways"][way], 3)]
    for run in ("vae_comparison/z16_seed0", "regression_cifar10", "gan_cifar10", "diffusion_cifar10_cpu"):
        config = record(f"{run}/config.yaml")
        found.append(written(config["num_updates"] * config["batch_size"], 0))
        found.append(written(rows(f"{run}/timing.jsonl")[-1]["seconds"] / 60, 1))
    return found


@needs_typst
@pytest.mark.parametrize("language", LANGUAGES)
def test_numbers_are_those_of_the_records(shown, language):
    numbers = expected_numbers()
    assert len(numbers) > 70
    assert sorted(set(numbers) - set(shown[language])) == []


@needs_typst
def test_both_languages_show_the_same_numbers(shown):
    assert sorted(shown["fa"]) == sorted(shown["en"])


@needs_typst
def test_numbers_reach_the_page(shown, tmp_path):
    """In the text of the last chapter of the English PDF."""
    from pypdf import PdfReader

    main("Name", "1", tmp_path)
    pages = [page.extract_text() for page in PdfReader(tmp_path / "HW3-Name-1-en.pdf").pages[2:]]
    text = re.sub(r"[\u2066-\u2069\s]", "", "".join(pages))
    text = text[text.index("4Theimplementations") :]
    assert [number for number in shown["en"] if number not in text] == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("chapter", RESULTS)
def test_no_result_is_typed_by_hand(language, chapter):
    """Outside mathematics, names and layout there is no digit; what is left are definitions."""
    text = re.sub(r"#asked\[.*?\n\n", "", prose(read(language, chapter)), flags=re.DOTALL)
    text = re.sub(r"\$[^$]*\$|`[^`]*`|<[^>\n]*>|@[\w-]+|\"[^\"]*\"|super\[2\]|at\(\d\)", "", text)
    text = re.sub(r"CIFAR-10|BM3D|95 %|۹۵ درصد|مقیاس ۲۵۵|of 255|4 and 9|۴ و ۹|guidance == 1|3 dB|۳ دسی‌بل", "", text)
    assert re.findall(r"[^\n]*\d[^\n]*", text) == []


@needs_typst
def test_a_missing_record_is_named_with_the_command_that_makes_it(tmp_path, monkeypatch):
    import project.build_report as build_report

    for folder in ("report", "docs/images", "records", "triptych/figures"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "records/vae_comparison/comparison.json").unlink()
    monkeypatch.setattr(build_report, "ROOT", tmp_path)
    monkeypatch.setattr(build_report, "REPORT", tmp_path / "report")
    with pytest.raises(
        UserError, match=r"records/vae_comparison/comparison\.json.*latent_size\.py.*collect_records\.py"
    ):
        main("Name", "1", tmp_path / "out")
