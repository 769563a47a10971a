"""What the page asks of the three pipelines: draw a class step by step, decode a point, clean a picture.

No Gradio in here. What a visitor gave is checked here too; what is wrong with it is a ``ValueError`` in words for them.
"""

from __future__ import annotations

import copy
import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

NAMES = {"diffusion": "cifar10-class-conditional", "vae": "vae-mnist-z2", "denoiser": "denoiser-cifar10"}
MAX_STEPS, MAX_GUIDANCE, MAX_SEED, MAX_SIGMA = 100, 15, 2**31 - 1, 55
MAX_IMAGES = 8  # drawn at once
MAX_SIDE = 1024  # of what is restored
MAX_MEGAPIXELS = 50  # of what is opened at all
PLANE_SIDE = 20


def load(model: str) -> DiffusionPipeline:
    """The pipeline "diffusion", "vae" or "denoiser", from the folder or the Hub account TRIPTYCH_MODELS.

    Raises:
        ValueError: it isn't there, or can't be loaded.
    """
    where, name = os.environ.get("TRIPTYCH_MODELS", ""), NAMES[model]
    folders = [Path(where)] if where else [parent / "pretrained" for parent in Path(__file__).resolve().parents[:2]]
    found = [str(folder / name) for folder in folders if (folder / name / "model_index.json").is_file()]
    if not found and where and "/" not in where and not Path(where).exists():
        found = [f"{where}/{name}"]  # an account on the Hub
    if not found:
        raise ValueError(
            f"There is no pipeline in `{where or 'pretrained'}/{name}`. The environment variable `TRIPTYCH_MODELS` "
            "says where the models are: a folder, or an account on the Hub."
        )
    try:
        pipeline = DiffusionPipeline.from_pretrained(found[0], trust_remote_code=True)
    except Exception as error:  # whatever is wrong with one model, the others are shown
        raise ValueError(f"`{found[0]}` could not be loaded: {' '.join(str(error).split())[:300]}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def number(what: str, value: object, low: int, high: int, whole: bool = False) -> float | int:
    """`value` as a number of [low, high].

    Raises:
        ValueError: it is not one.
    """
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high  # NaN doesn't
    if not fits or (whole and value != int(value)):
        raise ValueError(f"{what} must be a {'whole ' if whole else ''}number from {low:,} to {high:,}.")
    return int(value) if whole else float(value)


# ---- diffusion ----------------------------------------------------------------------------------------------------


@dataclass
class Step:
    """One step of the reverse process: what the sampler held, x_t, and the image the network expected, x_0.

    The steps count from 0; after the last, `index` equals `count` and `predicted` is the finished image. `noisy` and
    `predicted` are of the first image, `images` is what is expected of each.
    """

    index: int
    count: int
    noisy: Image.Image
    predicted: Image.Image
    images: list[Image.Image]


def draw(
    pipeline: DiffusionPipeline, name: str, steps: object, guidance: object, seed: object, count: object = 1
) -> Iterator[Step]:
    """Draw images of the class `name`, and yield every step as soon as it is taken; the last holds the images.

    The k-th of them is what the seed `seed + k` gives alone.

    Raises:
        ValueError: there is no such class, or a number is out of its range.
    """
    if name not in pipeline.class_names:
        raise ValueError(f"Choose a class: {', '.join(pipeline.class_names)}.")
    steps = number("Steps", steps, 1, MAX_STEPS, whole=True)
    guidance = number("Guidance", guidance, 0, MAX_GUIDANCE)
    seed = number("Seed", seed, 0, MAX_SEED, whole=True)
    count = number("Images", count, 1, MAX_IMAGES, whole=True)
    # A scheduler counts its steps and remembers the last ones: each visitor gets their own. The network is shared.
    own = copy.copy(pipeline)
    own.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    taken: queue.SimpleQueue = queue.SimpleQueue()
    gone = threading.Event()

    def tell(pipe: DiffusionPipeline, index: int, t: object, tensors: dict[str, torch.Tensor]) -> dict:
        pipe._interrupt = gone.is_set()
        taken.put((index, tensors["noisy_images"], tensors["predicted_images"]))
        return {}

    def work() -> None:
        try:
            result = own(
                [name] * count,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[torch.Generator().manual_seed(seed + k) for k in range(count)],
                output_type="pt",
                callback_on_step_end=tell,
                callback_on_step_end_tensor_inputs=["noisy_images", "predicted_images"],
            )
            taken.put((steps, None, result.images * 2 - 1))
        except Exception as error:
            taken.put(error)

    # The pipeline calls back while it draws, and a generator has to yield: so it draws in a thread of its own.
    threading.Thread(target=work, daemon=True).start()
    try:
        index, held = 0, None
        while index < steps:
            event = taken.get()
            if isinstance(event, Exception):
                raise event
            index, noisy, predicted = event
            held = held if noisy is None else as_picture(noisy[0])
            images = [as_picture(image) for image in predicted]
            yield Step(index, steps, held, images[0], images)
    finally:
        gone.set()  # nobody is looking any more


def as_picture(image: torch.Tensor) -> Image.Image:
    """(C, H, W) around [-1, 1], clipped to it -> a picture in RGB or grey."""
    pixels = ((image / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)


# ---- VAE ----------------------------------------------------------------------------------------------------------


def latents_at(place: object) -> tuple[float, float]:
    """The point of the latent plane at a place in its picture, (0, 0) top left to (1, 1): quantiles of N(0, I).

    Raises:
        ValueError: it is no place there.
    """
    across, down = place if isinstance(place, (list, tuple)) and len(place) == 2 else (None, None)
    share = torch.tensor([number("Across", across, 0, 1), 1 - number("Down", down, 0, 1)])
    z1, z2 = torch.distributions.Normal(0.0, 1.0).icdf(share.clamp(0.00135, 0.99865)).tolist()  # -3 to 3
    return z1, z2


def place_of(z1: float, z2: float) -> tuple[float, float]:
    """The place in the picture of the plane where a point lies."""
    across, up = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor([z1, z2])).tolist()
    return across, 1 - up


def decode(pipeline: DiffusionPipeline, z1: object, z2: object) -> Image.Image:
    """The digit at a point of the plane.

    Raises:
        ValueError: the point is not one of [-4, 4] x [-4, 4].
    """
    point = [number("z1", z1, -4, 4), number("z2", z2, -4, 4)]
    return pipeline.decode(torch.tensor([point]), "pil")[0]


def draw_plane(pipeline: DiffusionPipeline) -> Image.Image:
    """The whole plane: digits decoded at equal shares of the prior, z1 growing to the right, z2 upwards."""
    centres = [(k + 0.5) / PLANE_SIDE for k in range(PLANE_SIDE)]
    points = torch.tensor([latents_at((across, down)) for down in centres for across in centres])
    digits = pipeline.decode(points, "np")[..., 0]  # (N, H, W)
    height, width = digits.shape[1:]
    rows = digits.reshape(PLANE_SIDE, PLANE_SIDE, height, width).swapaxes(1, 2)
    return Image.fromarray((rows.reshape(PLANE_SIDE * height, -1) * 255).round().astype(np.uint8))


# ---- denoiser -----------------------------------------------------------------------------------------------------


@dataclass
class Cleaned:
    """A picture before and after, and what to say about it."""

    before: Image.Image
    after: Image.Image
    note: str


def clean(pipeline: DiffusionPipeline, path: str | None, sigma: object) -> Cleaned:
    """Take the noise out of an image file; with `sigma` above 0, first add noise of that deviation (of 255).

    Raises:
        ValueError: there is no picture, it can't be read, is too large to open, or sigma is out of its range.
    """
    sigma = number("Noise to add", sigma, 0, MAX_SIGMA)
    opened, notes = open_picture(pipeline, path)
    size, picture = opened.size, crop_to(opened, MAX_SIDE)
    original = np.asarray(picture)
    noise = np.random.default_rng(0).standard_normal(original.shape) * sigma
    before = (original + noise).round().clip(0, 255).astype(np.uint8)  # a picture file knows whole numbers, 0 to 255
    after = pipeline(Image.fromarray(before)).images[0].convert("RGB")
    if picture.size != size:
        notes.append(
            f"Your picture has {size[0]} x {size[1]} pixels; this is its middle, {picture.width} x {picture.height}."
        )
    if sigma > 0:
        psnr = [peak_signal_noise_ratio(original, np.asarray(p)) for p in (before, after)]
        notes.append(f"PSNR against the picture without noise: {psnr[0]:.1f} dB before, {psnr[1]:.1f} dB after.")
    return Cleaned(Image.fromarray(before), after, " ".join(notes))


def open_picture(pipeline: DiffusionPipeline, path: str | None) -> tuple[Image.Image, list[str]]:
    """The image in a file as the pipeline sees it, in RGB, and what was done to it that a visitor should know.

    Raises:
        ValueError: there is none, it is too large, or the pipeline can't read it.
    """
    if not path:
        raise ValueError("Give a picture first: drop one here, or take one of the examples.")
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_MEGAPIXELS * 1e6:
                raise Image.DecompressionBombError
            done = {
                "What was transparent is laid on white.": image.has_transparency_data,
                "It has more than 8 bits a channel; this is it in 8.": image.mode[0] in "IF",
                "It has several frames; this is the first.": getattr(image, "n_frames", 1) > 1,
            }
        (pixels,) = pipeline._as_tensors(path)  # (C, H, W) in [0, 1]
    except Image.DecompressionBombError:
        raise ValueError(
            f"This picture has more than {MAX_MEGAPIXELS} million pixels. Cut a piece out of it."
        ) from None
    except Exception as error:  # a damaged file makes Pillow's plugins raise whatever they may
        why = str(error).replace(str(path), Path(path).name)
        raise ValueError(f"This file can't be read as a picture: {' '.join(why.split())[:300]}") from None
    return as_picture(pixels * 2 - 1).convert("RGB"), [note for note, true in done.items() if true]


def crop_to(picture: Image.Image, side: int) -> Image.Image:
    """The middle of a picture, at most `side` pixels wide and high: made smaller, its noise would be another."""
    width, height = min(picture.width, side), min(picture.height, side)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
