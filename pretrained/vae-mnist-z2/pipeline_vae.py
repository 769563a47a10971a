"""A variational autoencoder as a pipeline: sample, encode, decode, reconstruct, interpolate.

Self-contained: this file is saved beside the weights and is what ``DiffusionPipeline.from_pretrained`` runs, here
or on the Hub.
"""

from __future__ import annotations

import functools
import inspect
import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor


@dataclass
class VAEOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        images: list of PIL images, or array (B, H, W, C) / tensor (B, C, H, W) in [0, 1]: the mean of p(x | z).
        latents: the z they were decoded from, (B, latent_dim).
    """

    images: object
    latents: torch.Tensor


def also_called(**names: str) -> Callable:
    """Let a call take arguments by the names they have in diffusers' own pipelines: ``theirs="ours"``."""

    def decorate(call: Callable) -> Callable:
        @functools.wraps(call)
        def renamed(self, *args, **kwargs):
            for theirs, ours in names.items():
                if theirs in kwargs:
                    if ours in kwargs or ours in inspect.signature(call).bind_partial(self, *args).arguments:
                        raise ValueError(f"{theirs} is called {ours} here, and both were given. Give {ours} alone.")
                    kwargs[ours] = kwargs.pop(theirs)
            return call(self, *args, **kwargs)

        return renamed

    return decorate


class VAEPipeline(DiffusionPipeline):
    """Draws images from the prior, and takes images apart and together again.

    Args:
        vae: the ``VAE`` of ``models/vae.py``.
        likelihood: what p(x | z) was trained as: "bernoulli", "binarized_bernoulli" or "gaussian".
        sigma: standard deviation of the Gaussian, unless the network learned it.
    """

    # Kept from the moment of import: by the time a pipeline is saved, the module's file may be another's.
    _code = ("pipeline_vae", Path(__file__).read_text(encoding="utf-8"))

    def __init__(self, vae: ModelMixin, likelihood: str = "bernoulli", sigma: float | None = None):
        super().__init__()
        self.register_modules(vae=vae)
        self.register_to_config(likelihood=likelihood, sigma=sigma)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        side = self.vae.config.image_size
        return self.vae.config.in_channels, side, side

    @torch.no_grad()
    @also_called(batch_size="num_images", num_images_per_prompt="num_images")
    def __call__(
        self,
        num_images: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> VAEOutput | tuple:
        """Draw images: z ~ N(0, I), then the mean of p(x | z).

        Args:
            num_images: how many.
            generator: one for the batch, or a list with one per image.
            latents: z to decode instead, (B, latent_dim).
            output_type: "pil", "np" or "pt".
            return_dict: False returns ``(images,)``.

        Raises:
            ValueError: no image is asked for, another output type, or generators or latents that don't fit.
        """
        check_output_type(output_type)
        if latents is None:
            shape = (at_least_1("num_images", num_images), self.vae.config.latent_dim)
            generator = check_generators(generator, shape[0])
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=torch.float32)
        images = self.decode(latents, output_type)
        return VAEOutput(images, latents) if return_dict else (images,)

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of q(z | x): (B, C, H, W) in [0, 1] -> (B, latent_dim) twice.

        Raises:
            ValueError: there are none, they have another shape than :attr:`image_shape`, are no floats, or lie outside
                [0, 1].
        """
        check_floats("images", images, self.image_shape)
        if not (images.min() >= 0 and images.max() <= 1):
            raise ValueError("images must lie in [0, 1].")
        x = (images * 2 - 1).to(self._execution_device, self.vae.dtype)
        posterior = self.vae.encode(x)
        return posterior.mean, posterior.logvar

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, output_type: str = "pt") -> object:
        """Mean of p(x | z): (B, latent_dim) -> images in [0, 1], as `output_type` says.

        Raises:
            ValueError: the latents have another shape, or aren't finite floats; or the network's answer isn't.
        """
        check_output_type(output_type)
        check_floats("latents", latents, (self.vae.config.latent_dim,))
        images = self.vae.decode(latents.to(self._execution_device, self.vae.dtype)).sigmoid().cpu()
        if not images.isfinite().all():
            raise ValueError(
                "The network gave NaN or infinite values. Latents are about N(0, 1); or its weights are torn, or need "
                "float32."
            )
        if output_type == "pt":
            return images
        images = images.permute(0, 2, 3, 1).numpy()
        return self.numpy_to_pil(images) if output_type == "pil" else images

    def reconstruct(self, images: torch.Tensor, output_type: str = "pt") -> object:
        """Encode to the posterior mean and decode: (B, C, H, W) in [0, 1] -> the same, as `output_type` says."""
        return self.decode(self.encode(images)[0], output_type)

    def interpolate(self, first: torch.Tensor, last: torch.Tensor, num_steps: int = 8) -> torch.Tensor:
        """Images along the straight line between two images' means: (C, H, W) twice -> (num_steps, C, H, W).

        Raises:
            ValueError: an image doesn't fit, see :meth:`encode`, or there are no steps.
        """
        num_steps = at_least_1("num_steps", num_steps)
        for name, image in (("first", first), ("last", last)):
            check_floats(name, image[None] if torch.is_tensor(image) else image, self.image_shape)
        ends = self.encode(torch.stack([first, last]))[0]
        weights = torch.linspace(0, 1, num_steps, device=ends.device)[:, None]
        return self.decode(ends[:1] * (1 - weights) + ends[1:] * weights)

    # ---- saving: a custom pipeline carries its code, and so do its custom components ----------------------

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        variant: str | None = None,
        push_to_hub: bool = False,
        **kwargs,
    ) -> None:
        """Save weights, configs and code, so that ``from_pretrained(..., trust_remote_code=True)`` works anywhere.

        Args as in [`DiffusionPipeline.save_pretrained`]; plain diffusers writes no code for a custom pipeline, and
        the folder would not load.
        """
        hub = {k: kwargs.pop(k) for k in ("repo_id", "commit_message", "private", "create_pr", "token") if k in kwargs}
        super().save_pretrained(save_directory, safe_serialization=safe_serialization, variant=variant, **kwargs)
        folder, kind = Path(save_directory), type(self)
        component = type(getattr(self.vae, "_orig_mod", self.vae))  # what torch.compile wraps
        (name, code), (component_name, component_code) = source(kind), source(component)
        (folder / "pipeline.py").write_text(alias(name, kind), encoding="utf-8")
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
        (folder / "vae" / f"{component_name}.py").write_text(component_code, encoding="utf-8")
        index_path = folder / "model_index.json"
        index = json.loads(index_path.read_text(encoding="utf-8"))
        index["_class_name"] = [name, kind.__name__]
        index["vae"] = [component_name, component.__name__]
        index.pop("_name_or_path", None)
        index_path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        if push_to_hub:
            self.push_to_hub(hub.pop("repo_id", folder.name), variant=variant, **hub)


def alias(name: str, kind: type) -> str:
    """Text of the `pipeline.py` that diffusers' `custom_pipeline=folder` looks for.

    Diffusers runs those of all folders in one module and wants one pipeline there, so what another left is dropped.
    """
    return (
        "for key in [key for key, value in globals().items() if isinstance(value, type)]:\n"
        "    del globals()[key]\n"
        f"from .{name} import {kind.__name__}  # noqa: E402, F401\n"
    )


def source(kind: type) -> tuple[str, str]:
    """Name and text of the module that a class is saved with: as it was when imported, where the class kept it."""
    if "_code" in vars(kind):
        return kind._code
    path = Path(inspect.getfile(kind))
    return path.stem, path.read_text(encoding="utf-8")


def check_output_type(output_type: str) -> None:
    """Raise a ValueError unless it is "pil", "np" or "pt"."""
    if output_type not in ("pil", "np", "pt"):
        raise ValueError(f"output_type must be 'pil', 'np' or 'pt', not {output_type!r}.")


def at_least_1(name: str, value: object) -> int:
    """`value` as an int of 1 or more; or a ValueError that names it."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}.")
    return number


def check_generators(generator: object, count: int) -> torch.Generator | list[torch.Generator] | None:
    """One generator or None as it is, several as a list of `count`; or a ValueError."""
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    listed = list(generator) if isinstance(generator, Sequence) else [generator]
    if not all(isinstance(each, torch.Generator) for each in listed):
        raise ValueError(f"generator must be a torch.Generator, or a list with one per image, not {generator!r}.")
    if len(listed) != count:
        raise ValueError(f"{len(listed)} generators were given for {count} images.")
    return listed


def check_floats(name: str, batch: object, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless `batch` is a tensor (B, *shape) of finite floats, B at least 1."""
    if not torch.is_tensor(batch) or not batch.is_floating_point():
        kind = batch.dtype if torch.is_tensor(batch) else type(batch).__name__
        raise ValueError(
            f"{name} must be a tensor of floats, not {kind}. Of 8-bit images it is `images.float() / 255`."
        )
    if tuple(batch.shape[1:]) != tuple(shape) or not len(batch):
        raise ValueError(f"{name} must be (B, {', '.join(map(str, shape))}), not {tuple(batch.shape)}.")
    if not batch.isfinite().all():
        raise ValueError(f"{name} hold NaN or infinite values.")
