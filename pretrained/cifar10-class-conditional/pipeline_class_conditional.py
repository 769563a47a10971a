"""Class-conditional image diffusion: ask for a class, get its images.

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


# ---- classes.py
from collections.abc import Sequence

import torch
from diffusers import UNet2DModel



class NamedClasses:
    """A base to name before `DiffusionPipeline`, for a pipeline that keeps ``id2label`` in its config."""

    @staticmethod
    def checked_names(unet: UNet2DModel, id2label: dict | None) -> dict[str, str]:
        """``id2label`` as a config holds it: keys are strings, which is what JSON makes of them; ids if None.

        Raises:
            ValueError: not all of the network's classes are named, or others are.
        """
        num_classes = unet.config.num_class_embeds - 1
        names = {str(k): str(v) for k, v in (id2label or {i: i for i in range(num_classes)}).items()}
        if sorted(map(int, names)) != list(range(num_classes)):
            raise ValueError(
                f"id2label must name the classes 0..{num_classes - 1} (num_class_embeds - 1 = {num_classes}; the last "
                f"embedding is the null class), but it names {sorted(map(int, names))}."
            )
        return names

    @property
    def class_names(self) -> list[str]:
        """Names by class id."""
        return [self.config.id2label[str(i)] for i in range(len(self.config.id2label))]

    def class_ids(self, classes: str | int | Sequence[str | int | None] | torch.Tensor | None) -> list[int]:
        """Ids of classes given by name, by id, or as a list of either; None is the null class: none in particular.

        Raises:
            ValueError: a class doesn't exist; the message lists those that do.
        """
        return class_ids(classes, self.class_names)


# ---- posterior.py
from collections.abc import Sequence

import torch
from diffusers import DDPMScheduler
from diffusers.schedulers import SchedulerMixin
from diffusers.utils import BaseOutput



class RestoresFromPosterior:
    """The ``restore`` of a class-conditional diffusion pipeline."""

    def restore(
        self,
        images: torch.Tensor,
        sigma: float,
        classes: str | int | Sequence[str | int | None] | torch.Tensor | None = None,
        num_inference_steps: int = 25,
        scheduler: SchedulerMixin | None = None,
        **kwargs,
    ) -> BaseOutput | tuple:
        """Take Gaussian noise out of images: go the reverse process from the step whose noise is theirs.

        An image with noise of deviation s, scaled by sqrt(alpha_bar), is distributed as x_t where
        (1 - alpha_bar) / alpha_bar = s^2. From there DDPM's ancestral steps draw from p(x_0 | the image): each seed
        gives another sample, whatever scheduler the pipeline was saved with. A deterministic scheduler gives all seeds
        one answer: where the model's own path through the image ends, neither a draw from the posterior nor its mean.
        One step alone gives the network's E[x_0 | the image] with either, which no other estimate beats in mean
        squared error.

        Args:
            images: (B, C, H, W) of :attr:`image_shape`, floats, clean ones in [0, 1]; noise is not clipped.
            sigma: the noise's standard deviation on that scale, positive.
            classes: what they show, one for all or one for each; None = not known.
            num_inference_steps: steps back, at most; there are no more than the matching t has.
            scheduler: what takes the steps, one that can be given timesteps; None = DDPM. ``pipeline.scheduler`` is the
                one that draws, if that can.
            kwargs: for the call: `generator`, `guidance_scale`, `output_type`, ...

        Returns:
            What the call returns.

        Raises:
            ValueError: sigma is not positive, the images don't fit, or the scheduler doesn't.
        """
        num_inference_steps = at_least_1("num_inference_steps", num_inference_steps)
        sigma = finite("sigma", sigma)
        check_noisy(images, sigma, self.image_shape)
        ids = self.class_ids(classes)
        ids = ids * len(images) if len(ids) == 1 else ids
        if len(ids) != len(images) or not ids:
            raise ValueError(
                f"{len(ids)} classes were given for {len(images)} images. Give one for all, or one for each."
            )
        own = self.scheduler
        if not isinstance(scheduler, (SchedulerMixin, type(None))):
            raise ValueError(f"scheduler must be one of diffusers' schedulers, or None, not {scheduler!r}.")
        self.check_scheduler()
        # The saved scheduler may have another variance; the one below is that of the posterior.
        ancestral = DDPMScheduler.from_config(own.config, variance_type="fixed_small")
        alphas = own.alphas_cumprod
        noise_to_signal = ((1 - alphas) / alphas.clamp(min=1e-12)).log()
        t = int((noise_to_signal - torch.tensor(2 * sigma / self.config.data_std).square().log()).abs().argmin())
        steps = torch.linspace(t, 0, num_inference_steps + 1)[:-1].round().long().unique().flip(0).tolist()
        x_t = alphas[t].sqrt() * (images.float().cpu() * 2 - 1) / self.config.data_std
        names = [None if i == len(self.class_names) else i for i in ids]
        try:
            self.scheduler = ancestral if scheduler is None else scheduler
            return self(names, timesteps=steps, latents=x_t, **kwargs)
        finally:
            self.scheduler = own


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


# ---- schedulers.py
import inspect
import itertools
import operator
import warnings

import torch
from diffusers import DDPMScheduler
from diffusers.schedulers import SchedulerMixin


FITTING = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "PNDMScheduler",
)


def misfit(
    scheduler: SchedulerMixin, trained: DDPMScheduler | None, known_to_fit: SchedulerMixin | None = None
) -> str | None:
    """Why a scheduler's steps are none from x_t towards x_0 through the network's own noise levels; None if they are.

    Args:
        scheduler: the one to be tried.
        trained: what the network was trained on, if it is known.
        known_to_fit: a scheduler that was checked before, and is not made to draw again.
    """
    step = getattr(type(scheduler), "step", None)
    required = [
        key
        for key, parameter in (inspect.signature(step).parameters.items() if callable(step) else ())
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    alphas = getattr(scheduler, "alphas_cumprod", None)
    reason = None
    if not torch.is_tensor(alphas) or not hasattr(scheduler, "init_noise_sigma"):
        reason = "it is not made for variance-preserving diffusion (it has no alphas_cumprod)"
    elif required[1:] != ["model_output", "timestep", "sample"]:
        reason = f"its step takes {', '.join(required[1:])}"
    elif "original_inference_steps" in inspect.signature(scheduler.set_timesteps).parameters:
        reason = "it is made for networks distilled to a few steps"
    elif trained is not None:
        prediction_type = scheduler.config.get("prediction_type")
        if prediction_type != trained.config.prediction_type:
            reason = (
                f"it takes the network's answer for {prediction_type!r}, which is {trained.config.prediction_type!r}"
            )
        elif alphas.shape != trained.alphas_cumprod.shape or not torch.allclose(
            alphas.cpu().float(), trained.alphas_cumprod, rtol=0, atol=1e-5
        ):
            reason = "its noise levels (alphas_cumprod) are not those that the network was trained on"
        elif scheduler is not known_to_fit:
            reason = failure(scheduler, trained)
    return reason


def check_fit(scheduler: SchedulerMixin, trained: DDPMScheduler | None, known_to_fit: SchedulerMixin | None) -> None:
    """Raise a ValueError that says why, and names those that fit, unless the scheduler does; see :func:`misfit`."""
    reason = misfit(scheduler, trained, known_to_fit)
    if reason is not None:
        raise ValueError(
            f"{type(scheduler).__name__} does not fit this network: {reason}. What fits, put in by "
            f"`pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)` while the saved one is in "
            f"place: {', '.join(FITTING)}."
        )


def failure(scheduler: SchedulerMixin, trained: DDPMScheduler) -> str | None:
    """What is wrong with how a scheduler draws pixels N(0.2, 0.2^2) by the best network there is for them."""
    mean, std, num_inference_steps = 0.2, 0.2, 50
    generator = torch.Generator().manual_seed(0)
    if len(trained.alphas_cumprod) < num_inference_steps:
        return None  # too coarse a schedule to tell
    # The logarithm of the signal-to-noise ratio: between two steps of training it is interpolated, as samplers do.
    log_snr = torch.logit(trained.alphas_cumprod.double().clamp(1e-12, 1 - 1e-12))
    try:
        scheduler = type(scheduler).from_config(scheduler.config)
        takes = inspect.signature(scheduler.step).parameters
        extra = {"generator": generator} if "generator" in takes else {}
        scheduler.set_timesteps(num_inference_steps)
        x = torch.randn(1, 1, 16, 16, generator=generator) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x_in, low = scheduler.scale_model_input(x, t).double(), int(t)
            a = torch.lerp(log_snr[low], log_snr[min(low + 1, len(log_snr) - 1)], float(t) - low).sigmoid()
            x_0 = mean + a.sqrt() * std**2 / (a * std**2 + 1 - a) * (x_in - a.sqrt() * mean)  # E[x_0 | x_t]
            eps = (x_in - a.sqrt() * x_0) / (1 - a).sqrt()
            answers = {"sample": x_0, "epsilon": eps, "v_prediction": a.sqrt() * eps - (1 - a).sqrt() * x_0}
            answer = answers[trained.config.prediction_type].float()
            x = scheduler.step(answer, t, x, **extra, return_dict=False)[0]
    except Exception as error:  # whatever a scheduler raises that is set as it cannot be
        return f"as it is set it fails ({' '.join(str(error).split())})"
    if not (abs(x.mean() - mean) < 0.05 and abs(x.std() / std - 1) < 0.25):  # negated, so that NaN is refused too
        return "as it is set it draws something else than the network has learned, or NaN"
    return None


def set_timesteps(scheduler: SchedulerMixin, num_inference_steps: int, timesteps: object, device: torch.device) -> None:
    """Set the scheduler's steps: so many of its own, or those given; a ValueError if it cannot take them."""
    name, count = type(scheduler).__name__, scheduler.config.num_train_timesteps
    if timesteps is None:
        steps = at_least_1("num_inference_steps", num_inference_steps)
        if steps > count:
            raise ValueError(f"num_inference_steps must be at most {count}, the steps of training; not {steps}.")
        scheduler.set_timesteps(steps, device=device)
    else:
        if "timesteps" not in inspect.signature(scheduler.set_timesteps).parameters:
            raise ValueError(f"{name} takes no timesteps; DDPMScheduler, DPMSolverMultistepScheduler and others do.")
        steps = listed(timesteps)
        try:
            steps = [operator.index(step) for step in steps]
        except TypeError:
            raise ValueError(f"timesteps must be integers, not {steps}.") from None
        fits = all(a > b for a, b in itertools.pairwise(steps)) and steps
        if not fits or steps[0] >= count or steps[-1] < 0:
            raise ValueError(f"timesteps must descend from at most {count - 1} to at least 0, each once; not {steps}.")
        scheduler.set_timesteps(timesteps=steps, device=device)
    second_order = getattr(scheduler, "order", 1) == 2 and hasattr(scheduler, "sigmas")
    karras = scheduler.config.get("use_karras_sigmas")
    if second_order and not karras and scheduler.alphas_cumprod[-1] < 1e-6 and len(scheduler.timesteps) < 200:
        warnings.warn(
            f"{name} may leave noise in the images: its second-order steps are too long where this schedule "
            f"begins, in almost nothing but noise. HeunDiscreteScheduler with use_karras_sigmas=True does better, "
            f"and so do DPMSolverMultistepScheduler, UniPCMultistepScheduler and DDIMScheduler.",
            stacklevel=5,
        )


def step_arguments(scheduler: SchedulerMixin, generator: object, eta: float | None) -> dict:
    """What this scheduler's ``step`` takes of `generator` and `eta`; schedulers differ."""
    accepted = inspect.signature(scheduler.step).parameters
    given = {"generator": generator} if "generator" in accepted else {}
    if eta is not None:
        if "eta" not in accepted:
            raise ValueError(f"{type(scheduler).__name__} takes no eta; it belongs to DDIMScheduler.")
        if not 0 <= finite("eta", eta) <= 1:
            raise ValueError(f"eta must lie between 0 and 1, not {eta!r}.")
        given["eta"] = min(float(eta), 1 - 1e-5)  # at 1, DDIM takes a root of what rounding makes less than nothing
    return given


def alpha_bar(scheduler: SchedulerMixin, t: torch.Tensor | float) -> torch.Tensor:
    """alpha_bar of the training step nearest to t."""
    alphas = scheduler.alphas_cumprod
    return alphas[int(torch.as_tensor(t).round().clamp(0, len(alphas) - 1))]


def predicted_x0(scheduler: SchedulerMixin, output: torch.Tensor, x_in: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The clean image a prediction stands for (Ho et al. 2020, eq. 4; Salimans & Ho 2022, appendix D)."""
    a = alpha_bar(scheduler, t).to(x_in)
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return (x_in - (1 - a).sqrt() * output) / a.sqrt().clamp(min=1e-4)
    if kind == "v_prediction":
        return a.sqrt() * x_in - (1 - a).sqrt() * output
    return output


# ---- pipeline_class_conditional.py
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DModel
from diffusers.schedulers import SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor



@dataclass
class ClassConditionalOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        images: list of PIL images, or array (B, H, W, C) / tensor (B, C, H, W) in [0, 1].
        class_ids: the class of each image.
        timesteps: with ``return_intermediates``, the training step of each sampling step, noisiest first.
        noisy_images: likewise x_t, float (S, B, C, H, W), scaled so that signal and noise have unit variance (times
            data_std: so that it ends as an image in [-1, 1]).
        predicted_images: likewise the x_0 the network expects at that step, (S, B, C, H, W), in about [-1, 1].
    """

    images: object
    class_ids: list[int]
    timesteps: list[float] | None = None
    noisy_images: torch.Tensor | None = None
    predicted_images: torch.Tensor | None = None


class ClassConditionalPipeline(NamedClasses, CarriesCode, RestoresFromPosterior, DiffusionPipeline):
    """Draws images of named classes with a `UNet2DModel` and one of diffusers' schedulers.

    Args:
        unet ([`UNet2DModel`]):
            Denoiser with ``num_class_embeds`` = number of classes + 1; the last embedding is the null class that
            classifier-free guidance compares with.
        scheduler ([`SchedulerMixin`]):
            One for variance-preserving diffusion, with the noise levels that the network was trained on; what fits is
            listed in :attr:`fitting_schedulers`, and :meth:`check_scheduler` tells.
        id2label (`dict[int, str]`, *optional*):
            Class names by id. Default: the ids themselves.
        pixel_unshuffle (`int`, defaults to 1):
            The network works on images whose p x p pixels are folded into channels; folded and unfolded in here.
        data_std (`float`, defaults to 1.0):
            The network works on images / data_std, images being in [-1, 1]; scaled and scaled back in here.
        guide ([`UNet2DModel`], *optional*):
            A weaker network of the same data, such as a smaller or less trained one. Guidance then leads away from its
            answer for the same class instead of from the null class's (Karras et al. 2024, "autoguidance").
        num_inference_steps (`int`, defaults to 50), guidance_scale (`float`, defaults to 1.0), guidance_interval
            (`tuple[float, float]`, *optional*):
            What is used when a call doesn't say.
    """

    model_cpu_offload_seq = "guide->unet"
    _optional_components = ("guide",)
    fitting_schedulers = FITTING
    _code = carried("pipeline_class_conditional", __file__)

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        id2label: dict | None = None,
        pixel_unshuffle: int = 1,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        data_std: float = 1.0,
        guidance_interval: list | tuple | None = None,  # a list once it was saved, and diffusers compares types
        guide: UNet2DModel | None = None,
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, guide=guide)
        self.register_to_config(
            id2label=self.checked_names(unet, id2label),
            pixel_unshuffle=pixel_unshuffle,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            data_std=data_std,
            guidance_interval=None if guidance_interval is None else list(guidance_interval),
        )
        # What the network was trained on: a scheduler put in later is held to it.
        self._trained = DDPMScheduler.from_config(scheduler.config) if hasattr(scheduler, "alphas_cumprod") else None
        self._fits: SchedulerMixin | None = None  # the last scheduler that was checked

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        p, side = self.config.pixel_unshuffle, self.unet.config.sample_size
        return self.unet.config.in_channels // p**2, side * p, side * p

    @torch.no_grad()
    @also_called(
        class_labels="classes",
        prompt="classes",
        num_images_per_prompt="num_images_per_class",
        num_images_per_label="num_images_per_class",
    )
    def __call__(
        self,
        classes: str | int | Sequence[str | int | None] | torch.Tensor | None,
        num_images_per_class: int = 1,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        guidance_interval: Sequence[float] | None = None,
        timesteps: Sequence[int] | None = None,
        eta: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        return_intermediates: bool = False,
        callback_on_step_end: Callable[[DiffusionPipeline, int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ClassConditionalOutput | tuple:
        """Draw images.

        Args:
            classes: one class or several, by name or id; a list gives its images in its order. None asks for no class
                in particular, and guidance then changes nothing.
            num_images_per_class: images for each entry of `classes`.
            guidance_scale: ``uncond + s * (cond - uncond)`` (Ho & Salimans 2022); 1 turns it off and halves the cost.
            num_inference_steps: steps of the scheduler.
            guidance_interval: guide only where the noise is within (low, high), its standard deviation on images in
                [-1, 1]: sigma = data_std sqrt((1 - alpha_bar) / alpha_bar) (Kynkaanniemi et al. 2024). ``(0,
                float("inf"))`` guides at every step.
            timesteps: training steps to visit instead, descending, for schedulers that take them.
            eta: noise of DDIM's steps in [0, 1], for schedulers that take it.
            generator: one for the batch, or a list with one per image; then an image doesn't depend on its batch.
            latents: starting noise, (B, C, H, W) of :attr:`image_shape`, unit variance; drawn if None.
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), in [0, 1].
            return_dict: False returns ``(images,)``.
            return_intermediates: also return x_t and the predicted x_0 of every step.
            callback_on_step_end: called as ``f(pipeline, i, t, {"latents": x})`` after each step; may return a dict
                with a new "latents", and may set ``pipeline._interrupt = True`` to stop.
            callback_on_step_end_tensor_inputs: which tensors the callback gets: "latents", where the step led (folded,
                as the network sees it); "noisy_images" and "predicted_images", x_t and x_0 of this step as
                `return_intermediates` gives them, (B, C, H, W).

        Returns:
            [`ClassConditionalOutput`], or a tuple.

        Raises:
            ValueError: unknown class or output type; a scheduler that doesn't fit the network; steps that it cannot
                take; generators or latents that don't fit the batch; anything that is NaN or infinite.
        """
        guidance_scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        num_inference_steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        interval = self.config.guidance_interval if guidance_interval is None else guidance_interval
        low, high = (0, math.inf) if interval is None else ends(interval)
        check_output_type(output_type)
        num_images_per_class = at_least_1("num_images_per_class", num_images_per_class)
        guidance_scale = finite("guidance_scale", guidance_scale)
        requested = list(callback_on_step_end_tensor_inputs)
        if set(requested) - {"latents", "noisy_images", "predicted_images"}:
            raise ValueError(
                "callback_on_step_end_tensor_inputs can hold 'latents', 'noisy_images' and 'predicted_images' only."
            )
        if callback_on_step_end is None:
            requested = []
        ids = [i for i in self.class_ids(classes) for _ in range(num_images_per_class)]
        shape = (len(ids), *self.image_shape)
        generator = check_generators(generator, len(ids))

        device, p = self._execution_device, self.config.pixel_unshuffle
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        else:
            check_floats("latents", latents, shape)
        self.check_scheduler()
        set_timesteps(self.scheduler, num_inference_steps, timesteps, device)

        # The sample stays in float32 whatever the network's precision: solvers lose small steps in half.
        x = latents.to(device, torch.float32) * self.scheduler.init_noise_sigma
        x = F.pixel_unshuffle(x, p) if p > 1 else x
        labels = torch.tensor(ids, device=device)
        null = torch.full_like(labels, self.unet.config.num_class_embeds - 1)
        extra = step_arguments(self.scheduler, generator, eta)
        steps, noisy, predicted = [], [], []
        self._interrupt = False
        for i, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
            x_in = self.scheduler.scale_model_input(x, t)
            scale = guidance_scale if low <= self._sigma(t) <= high else 1
            output = self._denoise(x_in, t, labels, null, scale)
            of_step = {}
            if return_intermediates or "noisy_images" in requested or "predicted_images" in requested:
                x_0 = predicted_x0(self.scheduler, output, x_in, t)
                of_step = {
                    "noisy_images": self._unfold(x_in * self.config.data_std).cpu(),
                    "predicted_images": self._unfold(x_0 * self.config.data_std).cpu(),
                }
            if return_intermediates:
                steps.append(float(t))
                noisy.append(of_step["noisy_images"])
                predicted.append(of_step["predicted_images"])
            x = self.scheduler.step(output, t, x, **extra, return_dict=False)[0]
            if callback_on_step_end is not None:
                of_step["latents"] = x
                changed = callback_on_step_end(self, i, t, {name: of_step[name] for name in requested}) or {}
                x = changed.get("latents", x)
            if self._interrupt:
                break
        if not x.isfinite().all():
            raise ValueError(
                f"Sampling with {type(self.scheduler).__name__} gave NaN or infinite images. Try more steps, another "
                f"scheduler, or weights in float32."
            )

        images = (self._unfold(x) * self.config.data_std / 2 + 0.5).clamp(0, 1).cpu()  # (B, C, H, W) in [0, 1]
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        self.maybe_free_model_hooks()
        if not return_dict:
            return (images,)
        intermediates = (steps, torch.stack(noisy), torch.stack(predicted)) if return_intermediates else (None,) * 3
        return ClassConditionalOutput(images, ids, *intermediates)

    def check_scheduler(self) -> None:
        """Hold the scheduler to what the network was trained on.

        Raises:
            ValueError: its steps are none from x_t towards x_0 through the network's own noise levels; the message says
                why, and names those that fit.
        """
        check_fit(self.scheduler, self._trained, self._fits)
        self._fits = self.scheduler

    def _denoise(
        self, x_in: torch.Tensor, t: torch.Tensor, labels: torch.Tensor, null: torch.Tensor, guidance_scale: float
    ) -> torch.Tensor:
        """The network's answer under guidance: (B, C, H, W) -> (B, C, H, W), float32."""
        x_in = x_in.to(self.unet.dtype)
        if guidance_scale == 1:
            return self.unet(x_in, t, class_labels=labels).sample.float()
        if self.guide is not None:
            weak, strong = (net(x_in, t, class_labels=labels).sample.float() for net in (self.guide, self.unet))
            return weak + guidance_scale * (strong - weak)
        both = self.unet(torch.cat([x_in, x_in]), t, class_labels=torch.cat([labels, null])).sample.float()
        cond, uncond = both.chunk(2)
        return uncond + guidance_scale * (cond - uncond)

    def _sigma(self, t: torch.Tensor | float) -> float:
        """Standard deviation of the noise at t, on images in [-1, 1]."""
        a = alpha_bar(self.scheduler, t)
        return self.config.data_std * float(((1 - a) / a.clamp(min=1e-12)).sqrt())

    def _unfold(self, x: torch.Tensor) -> torch.Tensor:
        p = self.config.pixel_unshuffle
        return F.pixel_shuffle(x, p) if p > 1 else x
