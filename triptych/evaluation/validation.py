"""What is measured on held-out images while a network trains; the scoring scripts measure more."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from triptych.config.vae import VaeConfig
from triptych.data.image_set import ImageSet, to_images
from triptych.errors import UserError
from triptych.losses.vae import kl_to_standard_normal, negative_log_likelihood
from triptych.seeds import keyed_generator


def refuse_unless_alike(images: ImageSet, held_out: ImageSet, split: str) -> None:
    """Hold the held-out images to the size and the classes of those that are trained on.

    Raises:
        UserError: one of them differs; `split` is what ``validation_split`` was.
    """
    if (images.class_names, images.image_size) != (held_out.class_names, held_out.image_size):
        raise UserError(
            f"validation_split {split!r} has images of {held_out.image_size} pixels and the classes "
            f"{held_out.class_names}, the training images {images.image_size} and {images.class_names}. Set "
            f"data.image_size, or choose another validation_split."
        )


def _batches(images: ImageSet, batch_size: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """(index of the first, images (B, C, H, W) in [-1, 1], labels (B,)), of all in order."""
    for first in range(0, len(images), batch_size):
        batch = images.__getitems__(range(first, min(first + batch_size, len(images))))
        yield first, to_images(batch["pixels"]), batch["labels"]


@torch.no_grad()
def validate_vae(
    vae: torch.nn.Module, images: ImageSet, config: VaeConfig, log_sigma: torch.Tensor | None
) -> dict[str, float]:
    """The parts of the ELBO on held-out images, one z for each, the same noise every time;
    ``score_vae.py`` measures more, in fp32.

    Returns:
        ``validation_reconstruction``, and of a variational one ``validation_kl`` and ``validation_neg_elbo``: nats per
        image, means over `images`.
    """
    totals = {"validation_reconstruction": 0.0, "validation_kl": 0.0}
    for first, x, _ in _batches(images, 500):
        generator = keyed_generator("validation", config.seed, first)
        if config.likelihood == "binarized_bernoulli":
            x = 2 * (torch.rand(x.shape, generator=generator) < (x + 1) / 2).float() - 1
        eps = torch.randn(len(x), config.model.latent_dim, generator=generator)
        x, eps = x.to(vae.device), eps.to(vae.device)
        logits, posterior = vae(x, eps)
        nll = negative_log_likelihood(config.likelihood, logits, (x + 1) / 2, log_sigma)
        totals["validation_reconstruction"] += nll.sum().item() / len(images)
        if config.model.variational:
            kl = kl_to_standard_normal(posterior.mean, posterior.logvar)
            totals["validation_kl"] += kl.sum().item() / len(images)
    if not config.model.variational:
        return {"validation_reconstruction": totals["validation_reconstruction"]}
    return totals | {"validation_neg_elbo": sum(totals.values())}


@torch.no_grad()
def validate_classifier(
    logits_of: Callable[[torch.Tensor], torch.Tensor], images: ImageSet, device: torch.device, batch_size: int
) -> dict[str, float]:
    """``validation_accuracy`` and ``validation_loss``, the cross-entropy, on held-out images, in fp32.

    Args:
        logits_of: (B, C, H, W) in [-1, 1] -> (B, K).
        images: held-out, with labels.
        device: where the network is.
        batch_size: images at once.
    """
    totals = {"validation_accuracy": 0.0, "validation_loss": 0.0}
    for _, x, labels in _batches(images, batch_size):
        labels = labels.to(device)
        logits = logits_of(x.to(device))
        totals["validation_accuracy"] += (logits.argmax(1) == labels).sum().item() / len(images)
        totals["validation_loss"] += F.cross_entropy(logits, labels, reduction="sum").item() / len(images)
    return totals
