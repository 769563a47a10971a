"""What finished studies leave behind, and what the report is built from: small files, copied as they are."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Study:
    """A run or a study whose results are kept.

    Attributes:
        command: what makes it, said where a file of it is missing.
        files: patterns of what is kept, within its folder.
    """

    command: str
    files: tuple[str, ...]


def _trained(script: str, config: str, *more: str) -> Study:
    launch = "accelerate launch --config_file accelerate_config.yaml"
    kept = ("config.yaml", "run.json", "log.jsonl", "timing.jsonl", *more)
    return Study(f"{launch} scripts/{script} --config configs/{config}", kept)


_SHIPPED = "pretrained/cifar10-class-conditional"
_DENOISERS = "regression=pretrained/denoiser-cifar10-regression,GAN=pretrained/denoiser-cifar10"
_ON_CIFAR10 = "--data.path uoft-cs/cifar10 --judge pretrained/judge-cifar10"
_SAMPLING = f"python scripts/studies/sampling.py {_SHIPPED} {_ON_CIFAR10} --dtype bfloat16"
_MEASURED = ("rows.jsonl", "table.md", "*.png")


def _gan_study(study: str, which: str) -> Study:
    score = """'[--judge, pretrained/judge-cifar10, --num_images, "2000", --methods, "", --sigmas, "[25, 50]"]'"""
    return Study(
        f"python scripts/studies/gan_weight.py configs/gan_cifar10.yaml {which} "
        f"--baseline runs/regression_cifar10/pipeline --score_flags {score} --output runs/{study}",
        ("health.md", *_MEASURED, "weight*/config.yaml"),
    )


STUDIES = {  # by folder, in runs/ as in records/
    "vae_comparison": Study(
        "python scripts/studies/latent_size.py configs/vae_mnist.yaml --output runs/vae_comparison",
        (
            "comparison.json",
            "comparison.png",
            "z*_seed*/config.yaml",
            "z*_seed*/run.json",
            "z*_seed*/timing.jsonl",
            "autoencoder_z2/scores.json",
        ),
    ),
    "diffusion_cifar10_cpu": _trained("train_diffusion.py", "diffusion_cifar10_cpu.yaml"),
    "regression_cifar10": _trained("train_gan.py", "regression_cifar10.yaml"),
    "gan_cifar10": _trained("train_gan.py", "gan_cifar10.yaml"),
    "gan_mnist": _trained("train_gan.py", "gan_mnist.yaml"),
    "classifier_cifar10": _trained("train_classifier.py", "classifier_cifar10.yaml", "scores.json"),
    "classifier_mnist": _trained("train_classifier.py", "classifier_mnist.yaml", "scores.json"),
    "scores": Study(
        f"python scripts/score.py {_SHIPPED} {_ON_CIFAR10} --num_images_per_class 200 --dtype bfloat16 "
        "--output runs/scores",
        ("scores.json",),
    ),
    # the record also holds a scan of guidance and 250 steps, by the same command with other grids: docs/sampling.md
    "sampling": Study(
        f"{_SAMPLING} --num_images_per_class 30 "
        "--schedulers DDPM,DDIM,DPMSolverMultistep,UniPCMultistep,DEISMultistep "
        "--num_inference_steps 5,10,25,50,100 --guidance_scales 2 --output runs/sampling",
        _MEASURED,
    ),
    "sampling_to_1000": Study(
        f"{_SAMPLING} --num_images_per_class 10 "
        "--num_inference_steps 5,10,25,50,100,250,1000 --guidance_scales 2 "
        "--output runs/sampling_to_1000",
        _MEASURED,
    ),
    "reconstruction": Study(
        f"python scripts/studies/reconstruction.py {_SHIPPED} {_ON_CIFAR10} --num_images_per_class 20 --dtype bfloat16 "
        "--output runs/reconstruction",
        _MEASURED,
    ),
    "noise_study": Study(
        "python scripts/studies/noise.py configs/diffusion_cifar10_cpu.yaml --judge pretrained/judge-cifar10 "
        "--num_updates 800 --num_images_per_class 50 --score_flags '[--guidance_scale, \"2\", --dtype, bfloat16]' "
        "--output runs/noise_study",
        ("table.md", "*.png", "*/scores.json", "*/config.yaml"),
    ),
    "gan_sweep": _gan_study("gan_sweep", "--adversarial_weights 0.003,0.01,0.03"),
    "gan_seeds": _gan_study("gan_seeds", "--adversarial_weights 0.01 --seeds 0,1,2"),
    "three_families": Study(
        f"python scripts/score_denoiser.py --models {_DENOISERS},diffusion={_SHIPPED} {_ON_CIFAR10} --methods '' "
        "--num_images 500 --sigmas 25,50 --output runs/three_families",
        _MEASURED,
    ),
    "restorations": Study(
        f"python scripts/figures/restorations.py --models {_DENOISERS},diffusion={_SHIPPED} "
        "--data.path uoft-cs/cifar10 --data.split test --sigma 50 --methods BM3D "
        "--output runs/restorations/restorations.png",
        ("*.png",),
    ),
    "denoising": Study(
        f"python scripts/score_denoiser.py --models {_DENOISERS} {_ON_CIFAR10} --num_images 2000 --num_bm3d 100 "
        "--output runs/denoising",
        _MEASURED,
    ),
    "denoising_mnist": Study(
        "python scripts/score_denoiser.py --models GAN=pretrained/denoiser-mnist,VAE=pretrained/vae-mnist-z16 "
        "--data.path ylecun/mnist --judge pretrained/judge-mnist --methods 'median,non-local means,BM3D' "
        "--num_images 2000 --num_bm3d 100 --sigmas 50,100 --output runs/denoising_mnist",
        _MEASURED,
    ),
    "mixture": Study("python scripts/figures/mixture.py --output runs/mixture", ("mixture.json",)),
}


def collect(study: str, source: Path, target: Path) -> list[Path]:
    """Copy what `study` keeps from its folder `source` into ``target/<study>``; returns the copies.

    Files that are not there are passed over: whoever needs them says so (:func:`made_by`). The study is entered in
    ``target/studies.json``: of what is listed there the report shows what it has a section for, and insists on it.
    """
    copies = []
    for pattern in STUDIES[study].files:
        for path in sorted(source.glob(pattern)):
            copy = target / study / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            copies.append(copy)
    index = target / "studies.json"
    known = json.loads(index.read_text()) if index.exists() else []
    target.mkdir(parents=True, exist_ok=True)
    index.write_text(json.dumps([name for name in STUDIES if name in {*known, study}], indent=2) + "\n")
    return copies


def made_by(path: Path) -> str:
    """The command that makes the study which the record `path`, relative to the records' folder, belongs to."""
    return STUDIES[path.parts[0]].command if path.parts[0] in STUDIES else "no command we know"
