"""Class-conditional image diffusion: ask for a class, get its images.

Self-contained: this file is saved beside the weights and is what ``DiffusionPipeline.from_pretrained`` runs, here
or on the Hub.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import math
import operator
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

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


class ClassConditionalPipeline(DiffusionPipeline):
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
    fitting_schedulers = (
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
    # Kept from the moment of import: by the time a pipeline is saved, the module's file may be another's.
    _code = ("pipeline_class_conditional", Path(__file__).read_text(encoding="utf-8"))

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        id2label: dict | None = None,
        pixel_unshuffle: int = 1,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        data_std: float = 1.0,
        guidance_interval: tuple[float, float] | None = None,
        guide: UNet2DModel | None = None,
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, guide=guide)
        num_classes = unet.config.num_class_embeds - 1
        id2label = {str(k): str(v) for k, v in (id2label or {i: i for i in range(num_classes)}).items()}
        if sorted(map(int, id2label)) != list(range(num_classes)):
            raise ValueError(
                f"id2label must name the classes 0..{num_classes - 1} (num_class_embeds - 1 = {num_classes}; the last "
                f"embedding is the null class), but it names {sorted(map(int, id2label))}."
            )
        self.register_to_config(
            id2label=id2label,  # JSON turns keys into strings, so they are strings from the start
            pixel_unshuffle=pixel_unshuffle,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            data_std=data_std,
            guidance_interval=None if guidance_interval is None else list(guidance_interval),
        )
        # What the network was trained on: a scheduler put in later is held to it.
        self._trained = DDPMScheduler.from_config(scheduler.config) if hasattr(scheduler, "alphas_cumprod") else None
        self._fits: SchedulerMixin | None = None  # the last scheduler that was tried

    @property
    def class_names(self) -> list[str]:
        """Names by class id."""
        return [self.config.id2label[str(i)] for i in range(len(self.config.id2label))]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        p, side = self.config.pixel_unshuffle, self.unet.config.sample_size
        return self.unet.config.in_channels // p**2, side * p, side * p

    def class_ids(self, classes: str | int | Sequence[str | int | None] | torch.Tensor | None) -> list[int]:
        """Ids of classes given by name, by id, or as a list of either; None is the null class: none in particular.

        Raises:
            ValueError: a class doesn't exist; the message lists those that do.
        """
        plain = [item.tolist() if hasattr(item, "tolist") else item for item in self._listed(classes)]  # torch, NumPy
        if not plain:
            raise ValueError("No class was asked for.")
        names = self.class_names
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

    @staticmethod
    def _listed(classes: object) -> list:
        """One class, or several of them, as a list."""
        classes = classes.tolist() if hasattr(classes, "tolist") else classes
        return list(classes) if isinstance(classes, Iterable) and not isinstance(classes, str) else [classes]

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
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type must be 'pil', 'np' or 'pt', not {output_type!r}.")
        num_images_per_class = at_least_1("num_images_per_class", num_images_per_class)
        guidance_scale = finite("guidance_scale", guidance_scale)
        wanted = list(callback_on_step_end_tensor_inputs)
        if set(wanted) - {"latents", "noisy_images", "predicted_images"}:
            raise ValueError(
                "callback_on_step_end_tensor_inputs can hold 'latents', 'noisy_images' and 'predicted_images' only."
            )
        if callback_on_step_end is None:
            wanted = []
        ids = [i for i in self.class_ids(classes) for _ in range(num_images_per_class)]
        shape = (len(ids), *self.image_shape)
        generator = check_generators(generator, len(ids))

        device, p = self._execution_device, self.config.pixel_unshuffle
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        else:
            check_floats("latents", latents, shape)
        self.check_scheduler()
        self._set_timesteps(num_inference_steps, timesteps, device)

        # The sample stays in float32 whatever the network's precision: solvers lose small steps in half.
        x = latents.to(device, torch.float32) * self.scheduler.init_noise_sigma
        x = F.pixel_unshuffle(x, p) if p > 1 else x
        labels = torch.tensor(ids, device=device)
        null = torch.full_like(labels, self.unet.config.num_class_embeds - 1)
        extra = self._step_arguments(generator, eta)
        steps, noisy, predicted = [], [], []
        self._interrupt = False
        for i, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
            x_in = self.scheduler.scale_model_input(x, t)
            scale = guidance_scale if low <= self._sigma(t) <= high else 1
            output = self._denoise(x_in, t, labels, null, scale)
            seen = {}
            if return_intermediates or "noisy_images" in wanted or "predicted_images" in wanted:
                x_0 = self._predicted_x0(output, x_in, t)
                seen = {
                    "noisy_images": self._unfold(x_in * self.config.data_std).cpu(),
                    "predicted_images": self._unfold(x_0 * self.config.data_std).cpu(),
                }
            if return_intermediates:
                steps.append(float(t))
                noisy.append(seen["noisy_images"])
                predicted.append(seen["predicted_images"])
            x = self.scheduler.step(output, t, x, **extra, return_dict=False)[0]
            if callback_on_step_end is not None:
                seen["latents"] = x
                changed = callback_on_step_end(self, i, t, {name: seen[name] for name in wanted}) or {}
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

    def restore(
        self,
        images: torch.Tensor,
        sigma: float,
        classes: str | int | Sequence[str | int | None] | torch.Tensor | None = None,
        num_inference_steps: int = 25,
        scheduler: SchedulerMixin | None = None,
        **kwargs,
    ) -> ClassConditionalOutput | tuple:
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
        if sigma <= 0:
            raise ValueError(f"sigma must be positive, not {sigma:g}.")
        check_floats("images", images, (len(images) if torch.is_tensor(images) else 0, *self.image_shape))
        beyond = (images - 0.5).abs().max() - 0.5 if len(images) else 0
        if beyond > 0.1 + 7 * sigma:  # which Gaussian noise does not once in 10^11 pixels
            raise ValueError(
                f"images must lie in [0, 1] but for noise of sigma {sigma:g}; they go from {images.min():g} to "
                f"{images.max():g}. Divide 8-bit values, and their sigma, by 255; of images in [-1, 1] it is "
                f"`images / 2 + 0.5`, and half their sigma."
            )
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
        # Whatever the saved scheduler's variance is: the one below is that of the posterior.
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

    def check_scheduler(self) -> None:
        """Hold the scheduler to what the network was trained on.

        Raises:
            ValueError: its steps are none from x_t towards x_0 through the network's own noise levels; the message says
                why, and names those that fit.
        """
        scheduler, name = self.scheduler, type(self.scheduler).__name__
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
        elif self._trained is not None:
            trained, theirs = self._trained, scheduler.config.get("prediction_type")
            if theirs != trained.config.prediction_type:
                reason = f"it takes the network's answer for {theirs!r}, which is {trained.config.prediction_type!r}"
            elif alphas.shape != trained.alphas_cumprod.shape or not torch.allclose(
                alphas.cpu().float(), trained.alphas_cumprod, rtol=0, atol=1e-5
            ):
                reason = "its noise levels (alphas_cumprod) are not those that the network was trained on"
            elif scheduler is not self._fits:
                reason = self._failure(scheduler)
        if reason is not None:
            raise ValueError(
                f"{name} does not fit this network: {reason}. What fits, put in by `pipeline.scheduler = "
                f"DDIMScheduler.from_config(pipeline.scheduler.config)` while the saved one is in place: "
                f"{', '.join(self.fitting_schedulers)}."
            )
        self._fits = scheduler

    def _failure(self, scheduler: SchedulerMixin) -> str | None:
        """What is wrong with how a scheduler draws pixels N(0.2, 0.2^2) by the best network there is for them."""
        mean, std, num_inference_steps = 0.2, 0.2, 50
        trained, generator = self._trained, torch.Generator().manual_seed(0)
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
        if not (abs(x.mean() - mean) < 0.05 and abs(x.std() / std - 1) < 0.25):  # so written that NaN is refused too
            return "as it is set it draws something else than the network has learned, or NaN"
        return None

    def _set_timesteps(self, num_inference_steps: int, timesteps: object, device: torch.device) -> None:
        """Set the scheduler's steps: so many of its own, or those given."""
        scheduler, name = self.scheduler, type(self.scheduler).__name__
        count = scheduler.config.num_train_timesteps
        if timesteps is None:
            steps = at_least_1("num_inference_steps", num_inference_steps)
            if steps > count:
                raise ValueError(f"num_inference_steps must be at most {count}, the steps of training; not {steps}.")
            scheduler.set_timesteps(steps, device=device)
        else:
            if "timesteps" not in inspect.signature(scheduler.set_timesteps).parameters:
                raise ValueError(
                    f"{name} takes no timesteps; DDPMScheduler, DPMSolverMultistepScheduler and others do."
                )
            steps = self._listed(timesteps)
            try:
                steps = [operator.index(step) for step in steps]
            except TypeError:
                raise ValueError(f"timesteps must be integers, not {steps}.") from None
            fits = all(a > b for a, b in itertools.pairwise(steps)) and steps
            if not fits or steps[0] >= count or steps[-1] < 0:
                raise ValueError(
                    f"timesteps must descend from at most {count - 1} to at least 0, each once; not {steps}."
                )
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

    def _denoise(
        self,
        x_in: torch.Tensor,
        t: torch.Tensor,
        labels: torch.Tensor,
        null: torch.Tensor,
        guidance_scale: float,
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

    def _alpha_bar(self, t: torch.Tensor | float) -> torch.Tensor:
        """alpha_bar of the training step nearest to t."""
        alphas = self.scheduler.alphas_cumprod
        return alphas[int(torch.as_tensor(t).round().clamp(0, len(alphas) - 1))]

    def _sigma(self, t: torch.Tensor | float) -> float:
        """Standard deviation of the noise at t, on images in [-1, 1]."""
        a = self._alpha_bar(t)
        return self.config.data_std * float(((1 - a) / a.clamp(min=1e-12)).sqrt())

    def _predicted_x0(self, output: torch.Tensor, x_in: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The clean image a prediction stands for (Ho et al. 2020, eq. 4; Salimans & Ho 2022, appendix D)."""
        a = self._alpha_bar(t).to(x_in)
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            return (x_in - (1 - a).sqrt() * output) / a.sqrt().clamp(min=1e-4)
        if kind == "v_prediction":
            return a.sqrt() * x_in - (1 - a).sqrt() * output
        return output

    def _unfold(self, x: torch.Tensor) -> torch.Tensor:
        p = self.config.pixel_unshuffle
        return F.pixel_shuffle(x, p) if p > 1 else x

    def _step_arguments(self, generator: object, eta: float | None) -> dict:
        """What this scheduler's ``step`` takes of `generator` and `eta`; schedulers differ."""
        accepted = inspect.signature(self.scheduler.step).parameters
        given = {"generator": generator} if "generator" in accepted else {}
        if eta is not None:
            if "eta" not in accepted:
                raise ValueError(f"{type(self.scheduler).__name__} takes no eta; it belongs to DDIMScheduler.")
            if not 0 <= finite("eta", eta) <= 1:
                raise ValueError(f"eta must lie between 0 and 1, not {eta!r}.")
            given["eta"] = min(float(eta), 1 - 1e-5)  # at 1, DDIM takes a root of what rounding makes less than nothing
        return given

    # ---- saving: a custom pipeline carries its code ----------------------------------------------------

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        variant: str | None = None,
        push_to_hub: bool = False,
        **kwargs,
    ) -> None:
        """Save weights, configs and this file, so that ``from_pretrained(..., trust_remote_code=True)`` works anywhere.

        Args as in [`DiffusionPipeline.save_pretrained`]; plain diffusers writes no code for a custom pipeline, and
        the folder would not load.
        """
        hub = {k: kwargs.pop(k) for k in ("repo_id", "commit_message", "private", "create_pr", "token") if k in kwargs}
        super().save_pretrained(save_directory, safe_serialization=safe_serialization, variant=variant, **kwargs)
        folder, kind = Path(save_directory), type(self)
        own = vars(kind).get("_code")  # a subclass brings its own file
        name, code = own or (Path(inspect.getfile(kind)).stem, Path(inspect.getfile(kind)).read_text(encoding="utf-8"))
        (folder / "pipeline.py").write_text(alias(name, kind), encoding="utf-8")
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
        index_path = folder / "model_index.json"
        index = json.loads(index_path.read_text(encoding="utf-8"))
        index["_class_name"] = [name, kind.__name__]
        index.pop("_name_or_path", None)
        index_path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        if push_to_hub:
            self.push_to_hub(hub.pop("repo_id", folder.name), variant=variant, **hub)


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
    if not torch.is_tensor(images) or not images.is_floating_point():
        kind = images.dtype if torch.is_tensor(images) else type(images).__name__
        raise ValueError(
            f"{name} must be a tensor of floats, not {kind}. Of 8-bit images it is `images.float() / 255`."
        )
    if tuple(images.shape) != tuple(shape):
        raise ValueError(f"{name} must have the shape {tuple(shape)}, not {tuple(images.shape)}.")
    if not images.isfinite().all():
        raise ValueError(f"{name} hold NaN or infinite values.")


def alias(name: str, kind: type) -> str:
    """Text of the `pipeline.py` that diffusers' `custom_pipeline=folder` looks for.

    Diffusers runs those of all folders in one module and wants one pipeline there, so what another left is dropped.
    """
    return (
        "for key in [key for key, value in globals().items() if isinstance(value, type)]:\n"
        "    del globals()[key]\n"
        f"from .{name} import {kind.__name__}  # noqa: E402, F401\n"
    )
