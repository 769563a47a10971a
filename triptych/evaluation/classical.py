"""Denoising without learning: what our networks are measured against, as scikit-image and BM3D's authors compute it.

An image is a float array, (H, W, C) around [0, 1]; sigma is the noise's standard deviation on that scale, which these
methods are told where it is known. Their other setting, the strength, is tuned on training images (:func:`tune`).
"""

from __future__ import annotations

from triptych.cli import listed

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
from skimage.filters import median
from skimage.metrics import peak_signal_noise_ratio
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet, estimate_sigma

from triptych.errors import UserError


def median_filter(noisy: np.ndarray, sigma: float, strength: float) -> np.ndarray:
    """Median of the neighbourhood of each pixel, channel by channel; `strength` is its radius in pixels."""
    side = 2 * int(strength) + 1
    return median(noisy, np.ones((side, side, 1), bool))


def non_local_means(noisy: np.ndarray, sigma: float, strength: float) -> np.ndarray:
    """Mean of pixels whose surroundings look alike (Buades et al. 2005); the filter's h is `strength` sigmas."""
    return denoise_nl_means(
        noisy, patch_size=3, patch_distance=6, h=strength * sigma, sigma=sigma, fast_mode=True, channel_axis=-1
    )


def wavelet(noisy: np.ndarray, sigma: float, strength: float) -> np.ndarray:
    """Wavelet coefficients shrunk by BayesShrink (Chang et al. 2000), for a noise of `strength` sigmas."""
    colour = noisy.shape[-1] == 3
    return denoise_wavelet(noisy, sigma=strength * sigma, convert2ycbcr=colour, channel_axis=-1, rescale_sigma=True)


def total_variation(noisy: np.ndarray, sigma: float, strength: float) -> np.ndarray:
    """Least total variation near the image (Chambolle 2004), weighted by `strength` sigmas."""
    return denoise_tv_chambolle(noisy, weight=strength * sigma, channel_axis=-1)


def bm3d(noisy: np.ndarray, sigma: float, strength: float) -> np.ndarray:
    """Block matching and collaborative filtering (Dabov et al. 2007), by its authors' package."""
    from bm3d import bm3d as grey  # optional: its licence excludes commercial use
    from bm3d import bm3d_rgb as colour

    height, width = noisy.shape[:2]
    # Its process dies of images about as small as its blocks, 8 pixels; mirrored beyond their edges they are larger.
    padded = np.pad(noisy, ((0, max(0, 16 - height)), (0, max(0, 16 - width)), (0, 0)), mode="symmetric")
    restored = colour(padded, strength * sigma) if noisy.shape[-1] == 3 else grey(padded[..., 0], strength * sigma)
    return restored[:height, :width]


@dataclass(frozen=True)
class Method:
    """A function of (noisy, sigma, strength) that restores an image, and the strengths worth trying."""

    restore: Callable[[np.ndarray, float, float], np.ndarray]
    strengths: tuple[float, ...]


METHODS = {
    "median": Method(median_filter, (1, 2)),
    "non-local means": Method(non_local_means, (0.4, 0.6, 0.8, 1.0)),
    "wavelet": Method(wavelet, (0.7, 1.0, 1.3)),
    "total variation": Method(total_variation, (0.5, 0.8, 1.2, 1.6)),
    "BM3D": Method(bm3d, (1.0,)),
}


def chosen(methods: str) -> list[str]:
    """Names of methods, separated by commas on the command line; each is known and installed (:func:`require`)."""
    names = listed(methods)
    for name in names:
        require(name)
    return names


def require(name: str) -> Method:
    """The method called `name`.

    Raises:
        UserError: there is none, or its package is not installed.
    """
    if name not in METHODS:
        raise UserError(f"classical: there is no method {name!r}; there are {', '.join(METHODS)}.")
    if name == "BM3D":
        try:
            import bm3d  # noqa: F401
        except ImportError:
            raise UserError(
                "classical: BM3D needs the package bm3d, which is free for non-commercial use only: "
                "`pip install 'triptych[classical]'`, or leave BM3D out."
            ) from None
    return METHODS[name]


def restore_all(
    name: str, strength: float, noisy: Sequence[np.ndarray], sigma: float | None, pool: ProcessPoolExecutor
) -> list[np.ndarray]:
    """Restore images by a method in the processes of `pool`; a `sigma` of None is estimated from each image."""
    return list(pool.map(partial(_restore, name, strength, sigma), noisy, chunksize=8))


def _restore(name: str, strength: float, sigma: float | None, noisy: np.ndarray) -> np.ndarray:
    if sigma is None:
        sigma = float(np.mean(estimate_sigma(noisy, channel_axis=-1)))
    restored = METHODS[name].restore(noisy, max(sigma, 1e-4), strength)  # some drop the axis of a single channel
    return restored.reshape(noisy.shape).clip(0, 1).astype(np.float32)


def tune(
    name: str,
    clean: Sequence[np.ndarray],
    noisy: Sequence[np.ndarray],
    sigma: float | None,
    pool: ProcessPoolExecutor,
) -> float:
    """The strength with the best mean PSNR on images that are not those of the test."""
    strengths = METHODS[name].strengths
    if len(strengths) == 1:
        return strengths[0]

    def quality(strength: float) -> float:
        pairs = zip(clean, restore_all(name, strength, noisy, sigma, pool), strict=True)
        return float(np.mean([peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in pairs]))

    return max(strengths, key=quality)


def make_pool(num_workers: int) -> ProcessPoolExecutor:
    """Processes to restore in; started afresh, because a fork of a process that runs torch's threads may hang."""
    if num_workers < 1:
        raise UserError(f"num_workers must be at least 1, not {num_workers}.")
    return ProcessPoolExecutor(num_workers, mp_context=get_context("spawn"))
