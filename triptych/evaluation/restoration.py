"""How good a restorer is: its images compared with the clean ones, pixel by pixel and by a judge's features."""

from __future__ import annotations

import torch
from tqdm.auto import tqdm

from triptych.devices import seconds_now
from triptych.evaluation.judges import Judge
from triptych.evaluation.restorers import DegradedImages, Restore
from triptych.evaluation.scores import load_metric
from triptych.evaluation.similarity import psnr, ssim
from triptych.evaluation.statistics import mean_and_interval

CHUNK = 500  # images restored and measured at once: bounds the memory


def measure_restorer(
    test: DegradedImages, count: int, restore: Restore, critic: Judge | None, device: torch.device, title: str
) -> dict:
    """Restore the first `count` images and compare them with the clean ones.

    Args:
        test: clean and noisy images.
        count: how many of them.
        restore: what is measured.
        critic: a judge of images, or None.
        device: where `restore` computes, whose seconds are counted.
        title: of the bar that shows how far it is.

    Returns:
        "psnr" and "ssim", of each image; seconds an image; with a `critic` the perceptual and the Frechet distance.
    """
    each: dict[str, list[float]] = {"psnr": [], "ssim": []}
    judged, seconds = JudgedPairs(critic), 0.0
    for clean, noisy in tqdm(test.chunks(count, CHUNK), total=-(-count // CHUNK), desc=title, unit="chunk"):
        start = seconds_now(device)
        restored = restore(noisy, test.sigma)
        seconds += seconds_now(device) - start
        for a, b in zip(clean, restored, strict=True):
            each["psnr"].append(float(psnr(a[None], b[None])))
            each["ssim"].append(float(ssim(a[None], b[None])))
        judged.add(clean, restored)
    return each | {"seconds_per_image": seconds / count} | judged.distances()


class JudgedPairs:
    """A judge's features of clean and of restored images, gathered chunk by chunk; nothing without a judge."""

    def __init__(self, critic: Judge | None):
        self.critic, self.features, self.perceptual = critic, ([], []), []
        self.metrics = {}
        if critic is not None:
            names = ("frechet_distance", "perceptual_distance")
            self.metrics = {name: load_metric(name) for name in names}

    def add(self, clean: list[torch.Tensor], restored: list[torch.Tensor]) -> None:
        if self.critic is None:
            return
        clean, restored = (torch.stack(images).clamp(0, 1).numpy() for images in (clean, restored))
        features = []

        def look(images: torch.Tensor) -> list[torch.Tensor]:
            """The judge's answer, asked once for both distances."""
            answer = self.critic(images, feature_maps=True)
            features.append(answer["features"])
            return answer["feature_maps"]

        # `compute` would copy every pixel through Arrow and back, which takes as long as the judge itself
        found = self.metrics["perceptual_distance"]._compute(restored, clean, look, self.critic.name)
        self.perceptual += found["each"]
        for i, kept in enumerate(self.features):  # the metric asks for the restored images and the clean ones in turn
            kept += features[i::2]

    def distances(self) -> dict:
        if self.critic is None:
            return {}
        mean, interval = mean_and_interval(self.perceptual)
        restored, clean = (torch.cat(kept).numpy() for kept in self.features)
        frechet = self.metrics["frechet_distance"].compute(
            predictions=restored, reference=clean, features=self.critic.name
        )
        return {
            "perceptual_distance": mean,
            "perceptual_distance_interval": interval,
            "frechet_distance": frechet["frechet_distance"],
            "features": self.critic.name,
        }
