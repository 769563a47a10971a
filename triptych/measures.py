"""The scores of this project, each named once: for tables, charts and cards alike."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """How a score is shown.

    Attributes:
        title: at the head of a column or on an axis, without the unit.
        digits: after the point.
        larger_is_better: which way is up; None where neither is.
        unit: such as "dB"; empty where it has none.
        hub: the metric's name on the Hub; empty where a card doesn't show the score.
        card: its title in a card; {...} is another entry of the same scores.
        by_inception: the Hub's name and the title that only Inception's features give it.
    """

    title: str
    digits: int
    larger_is_better: bool | None
    unit: str = ""
    hub: str = ""
    card: str = ""
    by_inception: tuple[str, str] | None = None

    @property
    def column(self) -> str:
        """The title with its unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


# by the key in scores.json and rows.jsonl, in the order of a card
MEASURES = {
    "accuracy": Measure("accuracy", 4, True, hub="accuracy", card="accuracy"),
    "class_accuracy": Measure(
        "class accuracy", 3, True, hub="accuracy", card="images recognised as the class asked for, by the {judge}"
    ),
    "frechet_distance": Measure(
        "Frechet distance", 3, False, "", "frechet_distance", "Frechet distance, {judge}", ("fid", "FID")
    ),
    "kernel_distance": Measure(
        "kernel distance", 4, False, "", "kernel_distance", "kernel distance, {judge}", ("kid", "KID")
    ),
    "precision": Measure("precision", 3, True, hub="precision", card="precision of Kynkaanniemi et al., {judge}"),
    "recall": Measure("recall", 3, True, hub="recall", card="recall of Kynkaanniemi et al., {judge}"),
    "inception_score": Measure(
        "classifier score",
        3,
        True,
        hub="classifier_score",
        card="classifier score, {judge}",
        by_inception=("inception_score", "Inception score"),
    ),
    "neg_elbo": Measure("-ELBO", 2, False, "nats", "neg_elbo", "-ELBO, nats"),
    "importance_weighted_nll": Measure(
        "-log p(x) (importance-weighted bound)",
        2,
        False,
        "nats",
        "importance_weighted_nll",
        "-log p(x), importance-weighted bound, k = {num_importance_samples}, nats",
    ),
    "mse": Measure("MSE", 4, False, hub="mse", card="mean squared error of the reconstruction"),
    "psnr": Measure("PSNR", 2, True, "dB", "psnr", "PSNR against the original, dB"),
    "ssim": Measure("SSIM", 4, True, hub="ssim", card="SSIM against the original"),
    "perceptual_distance": Measure(
        "perceptual distance", 4, False, hub="perceptual_distance", card="perceptual distance, {judge}"
    ),
    "knn_accuracy": Measure(
        "k-NN accuracy",
        4,
        True,
        hub="accuracy",
        card="accuracy of {num_neighbors} nearest neighbours on the latent means",
    ),
    "reconstruction": Measure("reconstruction", 2, False, "nats"),
    "kl": Measure("KL", 2, None, "nats"),
    "active_units": Measure("active units", 1, None),
}
