"""A variational autoencoder as a pipeline: sample, encode, decode, reconstruct, interpolate.

Saved beside the weights in one file with what it imports from here (saving.py), which is what
``DiffusionPipeline.from_pretrained`` runs, here or on the Hub.
"""

from __future__ import annotations

# ---- arguments.py
import functools
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Sequence

import torch


def also_called(**names: str) -> Callable:
    """Let a call take arguments by the names they have in diffusers' own pipelines: ``alias="name"``."""

    def decorate(call: Callable) -> Callable:
        @functools.wraps(call)
        def renamed(self, *args, **kwargs):
            for alias, name in names.items():
                if alias in kwargs:
                    if name in kwargs or name in inspect.signature(call).bind_partial(self, *args).arguments:
                        raise ValueError(f"{alias} is called {name} here, and both were given. Give {name} alone.")
                    kwargs[name] = kwargs.pop(alias)
            return call(self, *args, **kwargs)

        return renamed

    return decorate


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


def finite(name: str, value: object) -> float:
    """`value` as a finite float; or a ValueError that names it."""
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, not {value!r}.")
    return number


def ends(interval: object) -> tuple[float, float]:
    """Both ends of a guidance interval, the upper of which may be infinite; or a ValueError."""
    try:
        low, high = (math.nan if isinstance(end, str) else float(end) for end in interval)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 <= low < high:
        raise ValueError(f"guidance_interval must be (low, high) with 0 <= low < high, not {interval!r}.")
    return low, high


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


def check_floats(name: str, images: object, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless `images` is a tensor of this shape, of finite floats."""
    check_is_float(name, images)
    if tuple(images.shape) != tuple(shape):
        raise ValueError(f"{name} must have the shape {tuple(shape)}, not {tuple(images.shape)}.")
    check_is_finite(name, images)


def check_batch(name: str, batch: object, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless `batch` is a tensor (B, *shape) of finite floats, B at least 1."""
    check_is_float(name, batch)
    if tuple(batch.shape[1:]) != tuple(shape) or not len(batch):
        raise ValueError(f"{name} must be (B, {', '.join(map(str, shape))}), not {tuple(batch.shape)}.")
    check_is_finite(name, batch)


def check_is_float(name: str, value: object) -> None:
    """Raise a ValueError unless `value` is a tensor of floats."""
    if not torch.is_tensor(value) or not value.is_floating_point():
        kind = value.dtype if torch.is_tensor(value) else type(value).__name__
        raise ValueError(
            f"{name} must be a tensor of floats, not {kind}. Of 8-bit images it is `images.float() / 255`."
        )


def check_is_finite(name: str, value: torch.Tensor) -> None:
    """Raise a ValueError if a value is NaN or infinite."""
    if not value.isfinite().all():
        raise ValueError(f"{name} hold NaN or infinite values.")


def check_noisy(images: object, sigma: float, shape: tuple[int, int, int]) -> None:
    """Raise a ValueError unless `images` are (B, *shape) in [0, 1] but for Gaussian noise of deviation `sigma`."""
    if sigma <= 0:
        raise ValueError(f"sigma must be positive, not {sigma:g}.")
    check_floats("images", images, (len(images) if torch.is_tensor(images) else 0, *shape))
    beyond = (images - 0.5).abs().max() - 0.5 if len(images) else 0
    if beyond > 0.1 + 7 * sigma:  # Gaussian noise goes beyond that less than once in 10^11 pixels
        raise ValueError(
            f"images must lie in [0, 1] but for noise of sigma {sigma:g}; they go from {images.min():g} to "
            f"{images.max():g}. Divide 8-bit values, and their sigma, by 255; of images in [-1, 1] it is "
            f"`images / 2 + 0.5`, and half their sigma."
        )


def whole(value: object) -> int:
    """`value` as an int, -1 where it is none."""
    try:
        return operator.index(value)
    except TypeError:
        return -1


def class_ids(classes: object, names: Sequence[str]) -> list[int]:
    """Ids of classes given by name, by id, or as a list of either; None is the null class, the one after the last.

    Raises:
        ValueError: a class doesn't exist; the message lists those that do.
    """
    plain = [item.tolist() if hasattr(item, "tolist") else item for item in listed(classes)]  # torch, NumPy
    if not plain:
        raise ValueError("No class was asked for.")
    ids = []
    for item in plain:
        if item is None:
            ids.append(len(names))
        elif isinstance(item, str) and item in names:
            ids.append(names.index(item))
        elif hasattr(item, "__index__") and not isinstance(item, bool) and 0 <= operator.index(item) < len(names):
            ids.append(operator.index(item))
        else:
            known = ", ".join(f"{i} {name!r}" for i, name in enumerate(names))
            raise ValueError(f"There is no class {item!r}. The classes are: {known}.")
    return ids


def listed(values: object) -> list:
    """One value, or several of them, as a list; a text is one."""
    values = values.tolist() if hasattr(values, "tolist") else values
    return list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]


# ---- saving.py
import ast
import inspect
import json
from pathlib import Path


def carried(name: str, file: str) -> tuple[str, str]:
    """Code as it is when a pipeline's module is imported: by the time it is saved, the files may be another version's.

    Args:
        name: what the module is saved as.
        file: its ``__file__``.

    Returns:
        `name`, and the text to save: the module's, after those that it imports by `from .module import ...`.
    """
    path = Path(file)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = gather(path, done=set())
    if len(parts) == 1:
        return name, path.read_text(encoding="utf-8")  # a saved one, or one that imports nothing from here
    head = f'"""{ast.get_docstring(tree, clean=False)}"""\n\nfrom __future__ import annotations\n\n'
    return name, head + "\n\n".join(f"# ---- {module}.py\n{text}" for module, text in parts)


def gather(path: Path, done: set[str]) -> list[tuple[str, str]]:
    """A module and those that it imports from its own folder, what is needed first coming first: (name, text).

    Of a text is left out what can stand once alone, at the top: docstring, `from __future__`, and imports from here.
    """
    text = path.read_text(encoding="utf-8")
    parts, lines = [], text.splitlines()
    for number, node in enumerate(ast.parse(text).body):
        relative = isinstance(node, ast.ImportFrom) and node.level == 1
        docstring = number == 0 and isinstance(node, ast.Expr)
        if relative and node.module not in done:
            done.add(node.module)
            parts += gather(path.with_name(f"{node.module}.py"), done)
        if relative or docstring or (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            lines[node.lineno - 1 : node.end_lineno] = [None] * (node.end_lineno - node.lineno + 1)
    return [*parts, (path.stem, "\n".join(line for line in lines if line is not None).strip() + "\n")]


class CarriesCode:
    """A base to name before `DiffusionPipeline`; the class keeps as `_code` what :func:`carried` gives."""

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        variant: str | None = None,
        push_to_hub: bool = False,
        **kwargs,
    ) -> None:
        """Save weights, configs and code, so that ``from_pretrained(..., trust_remote_code=True)`` works anywhere.

        Args as in [`DiffusionPipeline.save_pretrained`].
        """
        hub = {k: kwargs.pop(k) for k in ("repo_id", "commit_message", "private", "create_pr", "token") if k in kwargs}
        super().save_pretrained(save_directory, safe_serialization=safe_serialization, variant=variant, **kwargs)
        folder, kind = Path(save_directory), type(self)
        name, code = source(kind)
        (folder / "pipeline.py").write_text(alias(name, kind), encoding="utf-8")
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
        index_path = folder / "model_index.json"
        index = json.loads(index_path.read_text(encoding="utf-8"))
        index["_class_name"] = [name, kind.__name__]
        for key, component in self.components.items():
            component = type(getattr(component, "_orig_mod", component))  # what torch.compile wraps
            if isinstance(index.get(key), list) and "_code" in vars(component):
                file, text = component._code
                (folder / key / f"{file}.py").write_text(text, encoding="utf-8")
                index[key] = [file, component.__name__]
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
    """Name and text of the module that a pipeline's class is saved with; one derived from ours brings its own file."""
    return vars(kind).get("_code") or carried(Path(inspect.getfile(kind)).stem, inspect.getfile(kind))


# ---- pipeline_vae.py
from dataclasses import dataclass

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


class VAEPipeline(CarriesCode, DiffusionPipeline):
    """Draws images from the prior, and takes images apart and together again.

    Args:
        vae: the ``VAE`` of ``models/vae.py``.
        likelihood: what p(x | z) was trained as: "bernoulli", "binarized_bernoulli" or "gaussian".
        sigma: standard deviation of the Gaussian, unless the network learned it.
    """

    _code = carried("pipeline_vae", __file__)

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
        check_batch("images", images, self.image_shape)
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
        check_batch("latents", latents, (self.vae.config.latent_dim,))
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

    def restore(
        self, images: torch.Tensor, sigma: float | None = None, output_type: str = "pil", return_dict: bool = True
    ) -> VAEOutput | tuple:
        """Restore images, with the signature all restoring pipelines share: decode the noisy image's posterior mean.

        A VAE knows nothing of noise: whatever its latents can't describe is lost, noise and fine detail alike.

        Args:
            images: (B, C, H, W) of :attr:`image_shape`, clean ones in [0, 1]; noise beyond is clipped.
            sigma: standard deviation of the noise; not needed, and not used.
            output_type: "pil", "np" or "pt".
            return_dict: False returns ``(images,)``.

        Raises:
            ValueError: the images don't fit, see :meth:`encode`.
        """
        check_batch("images", images, self.image_shape)
        latents = self.encode(images.clamp(0, 1))[0]
        restored = self.decode(latents, output_type)
        return VAEOutput(restored, latents) if return_dict else (restored,)

    def interpolate(self, first: torch.Tensor, last: torch.Tensor, num_steps: int = 8) -> torch.Tensor:
        """Images along the straight line between two images' means: (C, H, W) twice -> (num_steps, C, H, W).

        Raises:
            ValueError: an image doesn't fit, see :meth:`encode`, or there are no steps.
        """
        num_steps = at_least_1("num_steps", num_steps)
        for name, image in (("first", first), ("last", last)):
            check_batch(name, image[None] if torch.is_tensor(image) else image, self.image_shape)
        ends = self.encode(torch.stack([first, last]))[0]
        weights = torch.linspace(0, 1, num_steps, device=ends.device)[:, None]
        return self.decode(ends[:1] * (1 - weights) + ends[1:] * weights)
