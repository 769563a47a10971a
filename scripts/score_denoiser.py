"""Measure restoration: classical methods and saved denoisers, all on the same noisy images.

    python scripts/score_denoiser.py --models regression=runs/a/pipeline,gan=runs/b/pipeline \\
        --data.path uoft-cs/cifar10 --output runs/denoising

Writes rows.jsonl, a row for each method and level of noise, table.md, and the charts. The command can be interrupted,
and repeated with more methods: what has been measured already is not measured again.
"""

from __future__ import annotations

from triptych.cli import command

from dataclasses import replace
from functools import cache
from pathlib import Path

from triptych.config.base import DataConfig, NoiseConfig
from triptych.devices import find_device
from triptych.errors import UserError
from triptych.evaluation import classical
from triptych.evaluation.judges import load_judge
from triptych.evaluation.restoration import measure_restorer
from triptych.evaluation.restorers import (
    DegradedImages,
    classical_restorer,
    load_any_images,
    load_restorers,
    make_levels,
    tuned_strength,
)
from triptych.evaluation.scores import key_of
from triptych.evaluation.work_sharing import require_one_process
from triptych.jsonl import Rows
from triptych.outputs import claim_study
from triptych.studies import comparison


def main(
    models: str = "",
    data: DataConfig = DataConfig(split="test"),  # noqa: B008 - frozen
    sigmas: list[float] | None = None,
    noise: NoiseConfig | None = None,
    any_size: bool = False,
    paired: bool = False,
    methods: str | None = None,
    judge: str | None = None,
    num_images: int | None = None,
    num_bm3d: int = 1000,
    num_tuning: int = 200,
    tuning_split: str = "train",
    diffusion_steps: list[int] | None = None,
    posterior_draws: list[int] | None = None,
    device: str | None = None,
    num_workers: int = 1,
    seed: int = 0,
    output: Path = Path("runs/denoising"),
    overwrite: bool = False,
) -> None:
    """Measure denoisers.

    Args:
        models: saved pipelines, as name=folder, separated by commas: denoisers; a VAE, which reconstructs; a
            diffusion model, which goes back from the step whose noise is the images'.
        data: the clean images to degrade and restore.
        sigmas: levels of Gaussian noise, of 255, measured one after the other; 15, 25 and 50 if not given.
        noise: another degradation instead of these.
        any_size: the images are of any sizes, as photographs are.
        paired: the images lie in folders "clean" and "noisy", under the same names; no noise is added here.
        methods: classical methods, separated by commas: median, non-local means, wavelet, total variation, BM3D. All if
            not given, none if empty.
        judge: a classifier of scripts/train_classifier.py: its features give the perceptual and the Frechet distance.
        num_images: how many of the images (all if not given).
        num_bm3d: how many of them BM3D gets at most: it takes a second for a small image.
        num_tuning: images on which the classical methods are tuned, for each level.
        tuning_split: the split these come from, which must not be the measured one.
        diffusion_steps: of diffusion models, each measured: 1 gives the mean of the clean images that fit, more an
            image where the scheduler it was saved with leads; 1 and 25 if not given.
        posterior_draws: of diffusion models, each measured: the mean of so many draws from the posterior, by DDPM in
            the largest number of diffusion_steps; none if not given.
        device: cpu, cuda, mps; the best there is if not given.
        num_workers: processes for the classical methods.
        seed: of the noise; an image's noise depends on (seed, its index) alone.
        output: folder of the results.
        overwrite: write into an output folder that holds other things than this command's own work.
    """
    claim_study(output, overwrite)
    names = list(classical.METHODS) if methods is None else classical.chosen(methods)
    if names and tuning_split == data.split:
        raise UserError(f"tuning_split {tuning_split!r} is what is measured, which the classical methods must not see.")
    if judge and (any_size or paired):
        raise UserError("judge: its features are of images of one size; leave any_size and paired unset.")
    if min(1 if num_images is None else num_images, num_bm3d, num_tuning) < 1:
        raise UserError("num_images, num_bm3d and num_tuning must be at least 1.")
    if min([*(diffusion_steps or []), *(posterior_draws or []), 1]) < 1:
        raise UserError(f"diffusion_steps {diffusion_steps} and posterior_draws {posterior_draws} must be 1 or more.")
    # Loaded before anything is measured: a wrong folder is said at once.
    require_one_process()
    place = find_device(device)
    restorers = load_restorers(models, diffusion_steps or [1, 25], posterior_draws or [], seed, place)
    critic = load_judge(judge, place) if judge else None
    images = load_any_images(data, any_size, paired)
    tuning_images = cache(
        lambda: load_any_images(replace(data, split=tuning_split), any_size, paired)
    )  # only if needed
    count = min(num_images or len(images), len(images))
    rows = Rows(output / "rows.jsonl")

    common = {"data": data.path, "split": data.split, "seed": seed, "judge": critic.fingerprint if critic else None}
    todo = [("noisy", count, {})]  # (method, number of images, further entries of its rows' key)
    todo += [(name, min(count, num_bm3d) if name == "BM3D" else count, {"num_tuning": num_tuning}) for name in names]
    todo += [(name, count, facts) for name, (_, facts) in restorers.items()]

    found: dict[str, dict[str, dict]] = {}
    with classical.make_pool(num_workers) as pool:
        for title, level in make_levels(sigmas, noise, paired).items():
            test, found[title] = DegradedImages(images, level, seed), {}
            for name, n, further in todo:
                key = common | {"level": title, "method": name, "n": n} | further
                row = rows.find(**key)
                if row is None:
                    strength = {}
                    if name in names:
                        strength["strength"] = tuned_strength(
                            name, DegradedImages(tuning_images(), level, seed), num_tuning, pool
                        )
                        restore = classical_restorer(name, strength["strength"], pool)
                    else:
                        restore = restorers[name][0] if name in restorers else lambda noisy, _: noisy
                    measured = measure_restorer(test, n, restore, critic, place, f"{name}, {title}")
                    each = {quantity: measured.pop(quantity) for quantity in ("psnr", "ssim")}
                    each["labels"] = [images.label(index) for index in range(n)]
                    row = key | strength | measured | comparison.summarize_each(output, key_of(key), each)
                    rows.add(row)
                found[title][name] = row
    print(*comparison.report(found, images.class_names, output), sep="\n")


if __name__ == "__main__":
    command(main)
